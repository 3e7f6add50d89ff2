"""Exports: fine-tuned models and their checkpoints in other formats, made on demand by a worker."""
