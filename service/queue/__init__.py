"""Carries job ids from the controller to the workers; SQL stays the truth."""
