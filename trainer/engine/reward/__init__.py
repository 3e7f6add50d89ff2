"""Reward models: loading them and scoring with them."""
