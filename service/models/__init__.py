"""The catalog of base models, and the fine-tuned models that jobs leave."""
