"""Signed notices of what happened to jobs, posted by Standard Webhooks."""
