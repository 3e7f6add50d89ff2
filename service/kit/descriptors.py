"""How many files and connections a process may have open."""

from __future__ import annotations

import resource
from contextlib import suppress

MOST_DESCRIPTORS = 1 << 16


def raise_descriptor_limit(most: int = MOST_DESCRIPTORS) -> int:
    """Raise this process's soft limit of open files to the hard one, `most` if that is lower. Return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft_limit = most if hard == resource.RLIM_INFINITY else min(hard, most)
    if soft != resource.RLIM_INFINITY and soft < soft_limit:
        with suppress(ValueError, OSError):  # a sandbox may forbid it: the process then lives with what it has
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft_limit, hard))
    return descriptor_limit(most)


def descriptor_limit(most: int = MOST_DESCRIPTORS) -> int:
    """Return how many files this process may have open, `most` if that is lower."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if soft == resource.RLIM_INFINITY else min(soft, most)
