"""`python -m service.files.parquet_reader`: the rows of the Parquet file at stdin as JSON lines on stdout.

A process of its own with little memory and no secrets, because a file from anywhere goes through a large native
parser: what breaks that, or makes it grow, ends here and not the service. Exit 3 with a sentence on stderr: the file
is damaged.
"""

from __future__ import annotations

import resource
import sys

from burnish.datasets.errors import UnreadableError
from burnish.datasets.parquet import read_lines

UNREADABLE = 3
_MEMORY_BYTES = 1 << 30
_CPU_SECONDS = 3600


def main() -> int:
    """Read all rows; return the exit status."""
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        for piece in read_lines(sys.stdin.buffer):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    except UnreadableError as error:
        sys.stderr.write(str(error))
        return UNREADABLE
    except MemoryError:
        sys.stderr.write("one piece of the Parquet file takes more than 1 GiB of memory: write smaller row groups")
        return UNREADABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())
