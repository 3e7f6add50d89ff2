"""Proximal policy optimisation with one base in memory: policy, value, reward and reference are its adapters."""
