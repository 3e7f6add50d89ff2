"""Datasets and scripts that show Burnish at work."""
