"""Signed notices of a job's end to the configured endpoint."""
