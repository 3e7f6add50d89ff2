"""Public ids: a prefix that names the kind, then 24 random characters (142 bits)."""

from __future__ import annotations

import re
import secrets
import string

_ALPHABET = string.ascii_letters + string.digits
_LENGTH = 24

FILE = "file-"
UPLOAD = "upload_"
PART = "part_"
JOB = "ftjob-"
PREVIEW = "ftpreview-"
EVENT = "ftevent-"
CHECKPOINT = "ftckpt_"
PERMISSION = "cp_"
EXPORT = "ftexport-"
WEBHOOK_EVENT = "evt_"
WEBHOOK_ENDPOINT = "whe_"
WEBHOOK_ATTEMPT = "whatt_"
PROJECT = "proj_"
KEY = "key_"
AUDIT = "audit_log-"
CHAT = "chatcmpl-"
TOOL_CALL = "call_"


def new_id(prefix: str) -> str:
    """Return a fresh id of one kind."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


def new_request_id() -> str:
    """Return an id for a request without one from its caller."""
    return f"req_{secrets.token_hex(16)}"


def is_id(text: str, prefix: str) -> bool:
    """Return whether a text from outside has the form of an id of this kind."""
    return re.fullmatch(re.escape(prefix) + rf"[A-Za-z0-9]{{{_LENGTH}}}", text) is not None
