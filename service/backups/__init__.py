"""Backups of the embedded set-up: one file out of a running service, and an empty folder filled from it."""
