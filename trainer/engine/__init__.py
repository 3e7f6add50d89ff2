"""Where torch lives: models, data, training, evaluation and export."""
