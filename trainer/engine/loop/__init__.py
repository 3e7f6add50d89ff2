"""The training loop that methods on rows share, with its checkpoints and its best weights."""
