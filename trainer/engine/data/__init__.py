"""Rows as tokens, splits, batches, and every seeded order."""
