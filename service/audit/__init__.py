"""The log of every call that changes something: append-only, and read by administrators."""
