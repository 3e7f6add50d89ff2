"""Graders, run on one answer or checked. What they are stands in `trainer.graders`."""
