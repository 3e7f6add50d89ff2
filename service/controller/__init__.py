"""The process that moves things on: checked datasets, the queue, expired leases, webhooks, garbage."""
