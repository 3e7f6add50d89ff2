"""Pre-training on plain text: windows without padding, new models and their tokenizers, full weights."""
