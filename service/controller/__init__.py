"""The process that moves things on: outbox, expired leases, dataset checks, webhooks, garbage."""
