"""What the trainer and the service agree on: jobs, events, results, rows, methods. Pydantic only; no engine."""
