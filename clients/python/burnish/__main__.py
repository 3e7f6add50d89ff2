"""`python -m burnish` is the same as `burnish`."""

import sys

from burnish.cli import main

sys.exit(main())
