"""What can be wrong with a backup or with the wish for one.

BackupError
├── BackupRefused   it is not to be made, or not there; nothing was done
└── BackupCorrupt   its bytes are not those that were written
"""

from __future__ import annotations


class BackupError(Exception):
    """The message is a sentence for the operator."""


class BackupRefused(BackupError):
    """The set-up, the folder or the file does not allow it."""


class BackupCorrupt(BackupError):
    """The archive, or the store that it is made of, is damaged."""
