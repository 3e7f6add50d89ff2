"""Deletion of a project with everything it owns."""
