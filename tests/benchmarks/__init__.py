"""Benchmarks against peers: programs that are run by hand (`make bench`, `make proof`), not by pytest."""
