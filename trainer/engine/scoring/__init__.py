"""Scoring tokens through the LM head, evaluation, and answers side by side."""
