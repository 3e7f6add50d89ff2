"""Base models: their files, weights, adapters and number format."""
