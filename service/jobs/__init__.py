"""Fine-tuning jobs: the rules, the state machine, the rows."""
