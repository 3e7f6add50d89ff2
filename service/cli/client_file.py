"""`client.json`: where the client and its CLI find the embedded service, for its owner alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

from service.audit.service import record_operator
from service.context import Context
from service.keys.service import SCOPES, authenticate_header, create_key
from service.kit.errors import Unauthenticated

NAME = "client.json"
PROJECT = "default"
_KEY_NAME = "first key"


def write_client_file(context: Context, base_url: str) -> str | None:
    """Make the file say how to reach the service. Return the key if it had to be made; the first start makes it."""
    path = context.settings.data / NAME
    profile = _read_client_file(path)
    token = profile.get("api_key")
    if isinstance(token, str) and _is_valid_token(context, token):
        if profile.get("base_url") != base_url or path.stat().st_mode & 0o077:
            _replace_client_file(path, base_url, token)
        return None
    with context.db.write() as session:
        key, token = create_key(session, context.hmac_key, project=PROJECT, name=_KEY_NAME, scopes=SCOPES)
        record_operator(session, "api_key.created", object_id=key.id, project_id=key.project_id)
    _replace_client_file(path, base_url, token)
    return token


def _read_client_file(path: Path) -> dict[str, Any]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", content) if isinstance(content, dict) else {}


def _is_valid_token(context: Context, token: str) -> bool:
    try:
        with context.db.read() as session:
            authenticate_header(session, context.hmac_key, f"Bearer {token}")
    except Unauthenticated:
        return False
    return True


def _replace_client_file(path: Path, base_url: str, token: str) -> None:
    """Write the whole file or nothing of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({"base_url": base_url, "api_key": token}, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
