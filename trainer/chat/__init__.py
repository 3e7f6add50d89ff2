"""Answering conversations: one base in memory, adapters switched on it, tokens streamed as they are drawn."""
