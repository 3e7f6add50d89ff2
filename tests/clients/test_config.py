from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from burnish import Burnish, ConfigurationError, config

URL = "http://127.0.0.1:8000/v1"


def write(path: Path, base_url: str = URL, api_key: str = "from-file") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"base_url": base_url, "api_key": api_key}), encoding="utf-8")


def test_arguments_then_environment_then_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(config.user_file(), api_key="of-user")
    assert config.resolve_settings() == (URL, "of-user")
    write(Path(".burnish/client.json"), "http://here:1/v1", "of-folder")
    assert config.resolve_settings() == ("http://here:1/v1", "of-folder")
    write(tmp_path / "数据" / "client.json", "http://data:1/v1", "of-data")
    monkeypatch.setenv("BURNISH_DATA", str(tmp_path / "数据"))
    assert config.resolve_settings() == ("http://data:1/v1", "of-data")
    monkeypatch.setenv("BURNISH_API_KEY", "of-env")
    assert config.resolve_settings() == ("http://data:1/v1", "of-env")
    monkeypatch.setenv("BURNISH_BASE_URL", "http://env:1/v1/")
    assert config.resolve_settings() == ("http://env:1/v1", "of-env")
    assert config.resolve_settings("http://arg:1/v1", "of-arg") == ("http://arg:1/v1", "of-arg")
    with Burnish() as client:
        assert client.base_url == "http://env:1/v1"


def test_a_saved_key_goes_to_its_own_server_only() -> None:
    write(Path(".burnish/client.json"))
    with pytest.raises(ConfigurationError, match="No API key for http://other:1/v1 found"):
        config.resolve_settings("http://other:1/v1")
    assert config.resolve_settings(URL + "/").api_key == "from-file"


def test_nothing_found() -> None:
    with pytest.raises(ConfigurationError, match=r"set BURNISH_BASE_URL.*burnish login.*client\.json"):
        Burnish()
    with pytest.raises(ConfigurationError, match="set BURNISH_API_KEY"):
        Burnish(base_url=URL)


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[" * 100_000,
        "[" * 50_000,
        "\\ud800",
        '{"base_url": "http://a/v1", "api_key": "' + "k" * 2**16 + '"}',
        "[]",
        '{"base_url": "http://a/v1"}',
        '{"api_key": 1, "base_url": 2}',
    ],
)
def test_a_broken_file_is_named(text: str) -> None:
    path = Path(".burnish/client.json")
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"client\.json .*remove it and run `burnish login`"):
        config.resolve_settings()


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://a/v1", "http://", "http://a:port/v1", "/v1"])
def test_a_malformed_address(url: str) -> None:
    with pytest.raises(ConfigurationError, match="The address"):
        Burnish(base_url=url, api_key="k")


@pytest.mark.parametrize("key", ["密钥", "a b", "a\nb", " "])
def test_a_malformed_key_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Burnish(base_url=URL, api_key=key)
    assert key.strip() == "" or key not in str(caught.value)


def test_a_bare_host_gets_v1() -> None:
    assert config.normalize_url("http://localhost:8000/") == "http://localhost:8000/v1"
    assert config.normalize_url("https://x.example/burnish/v1/") == "https://x.example/burnish/v1"


def test_save_is_for_the_owner_only() -> None:
    path = config.save_settings(config.ClientSettings(URL, "secret"))
    assert path == config.user_file()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in path.parent.iterdir()] == ["client.json"]
    assert config.resolve_settings() == (URL, "secret")


def test_a_save_that_fails_leaves_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = config.user_file()
    folder.mkdir(parents=True)
    with pytest.raises(OSError, match=r"client\.json"):
        config.save_settings(config.ClientSettings(URL, "secret"))
    assert [item.name for item in folder.parent.iterdir()] == ["client.json"]
    with pytest.raises(ConfigurationError, match="is a folder"):
        config.resolve_settings()


def test_save_is_for_the_owner_only_whatever_the_umask() -> None:
    before = os.umask(0)
    try:
        path = config.save_settings(config.ClientSettings(URL, "secret"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
