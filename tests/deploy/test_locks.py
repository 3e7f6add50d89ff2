"""The locks say the versions of constraints.txt, with a hash for each file, for all that an install needs."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
_ENTRY = re.compile(r"([a-z0-9-]+)==(\S+)( ; python_version < \"3\.\d+\")?")
_HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}")


def load_writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_locks", ROOT / "deploy/write_locks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


writer = load_writer()
PINS: dict[str, str] = writer.read_pins()


def locked(install: str) -> dict[str, str]:
    """Return name and version of each entry, every line of which is looked at."""
    text = (ROOT / f"locks/{install}.lock").read_text(encoding="utf-8")
    head, *lines = text.replace(" \\\n", "\0").splitlines()
    assert head.startswith("# Written by `make lock`")
    found: dict[str, str] = {}
    for line in lines:
        entry, *hashes = line.split("\0")
        match = _ENTRY.fullmatch(entry)
        assert match is not None, entry
        assert hashes, f"{entry} has no hash"
        assert all(_HASH.fullmatch(one) for one in hashes)
        assert match[1] not in found
        found[match[1]] = match[2]
    return found


@pytest.mark.parametrize("install", writer.INSTALLS)
def test_a_lock_has_the_versions_of_the_constraints(install: str) -> None:
    entries = locked(install)
    assert {name: PINS.get(name) for name in entries} == entries, "run make lock"


@pytest.mark.parametrize("install", writer.INSTALLS)
def test_a_lock_has_all_that_is_needed_but_torch(install: str) -> None:
    needed = writer.closure_of(writer.INSTALLS[install]) - writer.LEFT_OUT
    assert sorted(needed - locked(install).keys()) == [], "run make lock"
    assert not writer.LEFT_OUT & locked(install).keys()


def test_every_pin_is_needed() -> None:
    assert PINS.keys() == locked("dev").keys() | {"torch"}
    assert locked("api").keys() < locked("worker").keys() < locked("dev").keys()


def test_there_is_a_lock_for_each_install_and_no_other() -> None:
    names = [path.stem for path in (ROOT / "locks").iterdir() if path.suffix == ".lock"]
    assert sorted(names) == sorted(writer.INSTALLS)


@pytest.mark.slow
def test_pip_refuses_a_file_with_another_hash(tmp_path: Path) -> None:
    """What `--require-hashes` is trusted to do, by the pip that is used: on a file of our own, without an index."""
    wheel = tmp_path / "lockedpkg-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("lockedpkg-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: lockedpkg\nVersion: 1.0\n")
        archive.writestr("lockedpkg-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("lockedpkg-1.0.dist-info/RECORD", "")
    lock = tmp_path / "x.lock"
    lock.write_text(f"lockedpkg==1.0 --hash=sha256:{'0' * 64}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--find-links", str(tmp_path), "--no-deps"]
    command += ["--require-hashes", "--target", str(tmp_path / "there"), "-r", str(lock)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode != 0
    assert "HASHES" in ran.stderr
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize(
    ("bounds", "marker"),
    [
        ({">=3.9,<3.14", "<3.14,>=3.9"}, ' ; python_version < "3.14"'),
        ({">=3.9"}, ""),
        ({""}, ""),
        ({">=3.8,<4"}, ""),
        ({">=3.8,<3.14", ">=3.8,<3.15"}, ""),
    ],
)
def test_a_package_that_newer_pythons_do_not_take_is_marked(bounds: set[str], marker: str) -> None:
    assert writer._marker(bounds) == marker
