"""Where the server is and which key opens it: arguments, then the environment, then `client.json`."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple, cast

import httpx

from burnish.errors import ConfigurationError

FILE_NAME = "client.json"
_LARGEST = 2**16


class ClientSettings(NamedTuple):
    """The API's address, without a slash at the end, and the key."""

    base_url: str
    api_key: str


def user_file() -> Path:
    """Return the path of the file that `burnish login` writes."""
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "burnish" / FILE_NAME


def resolve_settings(base_url: str | None = None, api_key: str | None = None) -> ClientSettings:
    """Find both settings.

    A file's key is used only for the address that stands beside it: a key never goes to another server.
    Raises ConfigurationError if one is missing or malformed.
    """
    base_url = base_url or os.environ.get("BURNISH_BASE_URL")
    api_key = api_key or os.environ.get("BURNISH_API_KEY")
    if base_url:
        base_url = normalize_url(base_url)
    for path in _settings_files():
        if base_url and api_key:
            break
        file_settings = _read_settings(path)
        if file_settings and base_url in (None, file_settings.base_url):
            base_url, api_key = file_settings.base_url, api_key or file_settings.api_key
    if not base_url:
        raise ConfigurationError(_missing_setting_message("server address", "base_url"))
    if not api_key:
        raise ConfigurationError(_missing_setting_message(f"API key for {base_url}", "api_key"))
    return ClientSettings(base_url, check_key(api_key))


def save_settings(settings: ClientSettings) -> Path:
    """Write the user's file, readable by its owner only, and return its path."""
    path = user_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # mkstemp creates with 0600, so the key is never readable by others, not even for a moment.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{FILE_NAME}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(settings._asdict(), file, indent=1)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def normalize_url(text: str) -> str:
    """Return the address without trailing slash; a bare host gets `/v1`. Raises ConfigurationError."""
    try:
        url = httpx.URL(text.strip())
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"The address {text!r} is not a URL: {error}.") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError(f"The address {text!r} must look like http://127.0.0.1:8000/v1.")
    return str(url.copy_with(path="/v1") if url.path in ("", "/") else url).rstrip("/")


def check_key(key: str) -> str:
    """Return the key without space around it. Raises ConfigurationError if a header cannot carry it."""
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError("The API key holds characters that no key has; copy it again.")
    return key


def _settings_files() -> tuple[Path, Path]:
    return Path(os.environ.get("BURNISH_DATA") or ".burnish") / FILE_NAME, user_file()


def _read_settings(path: Path) -> ClientSettings | None:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
        values: Any = json.loads(content) if len(content) <= _LARGEST else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise ConfigurationError(f"{path} exists but may not be read by this user.") from None
    except IsADirectoryError:
        raise ConfigurationError(f"{path} is a folder; remove it and run `burnish login`.") from None
    except (ValueError, RecursionError):
        raise ConfigurationError(f"{path} is not valid JSON; remove it and run `burnish login`.") from None
    fields = cast("dict[str, Any]", values) if isinstance(values, dict) else {}
    base_url, api_key = fields.get("base_url"), fields.get("api_key")
    if not isinstance(base_url, str) or not isinstance(api_key, str):
        raise ConfigurationError(f"{path} must hold base_url and api_key; remove it and run `burnish login`.")
    return ClientSettings(normalize_url(base_url), api_key)


def _missing_setting_message(setting: str, name: str) -> str:
    searched_files = " and ".join(str(path) for path in _settings_files())
    return (
        f"No {setting} found: give {name}=, set BURNISH_{name.upper()}, or run `burnish login` "
        f"(looked in {searched_files})."
    )
