"""What every part of the trainer uses, without torch: errors, phases, progress, budget, statistics."""
