"""A full disk: what is there can be read and deleted, and nothing else uses up the room that is kept for deleting."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.kit.reserve import NAME, DiskReserve
from service.kit.settings import Settings

UNSHARE = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "--mount"]


def on_small_disk(folder: Path, reserved: int) -> dict[str, Any]:
    """Run the program on a tmpfs in a mount namespace of its own."""
    mount = [*UNSHARE, "sh", "-c", 'mount -t tmpfs -o size=24m tmpfs "$0" && exec "$@"', str(folder)]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*mount, "true"], capture_output=True, check=False).returncode != 0
    ):
        pytest.skip("this machine lets nobody mount a tmpfs")
    command = [sys.executable, "-m", "tests.service.api.full_disk_world", str(folder), str(reserved)]
    done = subprocess.run([*mount, *command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.integration
def test_deleting_is_possible_on_a_full_disk(tmp_path: Path) -> None:
    told = on_small_disk(tmp_path, 4 << 20)
    assert told["kept"]
    assert told["full"] == [507]
    assert told["read"] == [200, 200]
    assert told["deleted"] == ["200"] * 4
    assert (told["cancelled"], told["job deleted"]) == ("200", "200")
    assert told["audited"] == ["succeeded"] * 4
    assert told["used up"]
    assert told["meanwhile"] == ["507 insufficient_storage"] * 2
    assert told["meanwhile read"] == 200
    assert told["blobs"] >= 4
    assert told["kept again"]
    assert told["after"] == 200
    assert told["starts again"] == ["insufficient_storage", "ok"]


def test_the_reserve_is_kept_released_and_kept_again(tmp_path: Path) -> None:
    one, other = DiskReserve(tmp_path, 1 << 20), DiskReserve(tmp_path, 1 << 20)
    for reserve in (one, other):
        assert not reserve.is_used_up()
        reserve.fill()
        assert not reserve.is_used_up()
    kept = tmp_path / NAME
    assert kept.stat().st_blocks * 512 >= 1 << 20, "the bytes are taken, not only the length"
    assert kept.stat().st_mode & 0o077 == 0
    one.release()
    one.release()
    assert one.is_used_up()
    assert other.is_used_up()
    other.fill()
    assert not one.is_used_up()
    assert list(tmp_path.iterdir()) == [kept]


def test_no_more_is_kept_than_the_disk_can_spare(tmp_path: Path) -> None:
    reserve = DiskReserve(tmp_path, shutil.disk_usage(tmp_path).free // 2)
    reserve.fill()
    assert list(tmp_path.iterdir()) == []
    assert not reserve.is_used_up(), "what was never there is not missed"


def test_a_database_elsewhere_needs_none(tmp_path: Path) -> None:
    for settings in ({"database_url": "postgresql://db/burnish"}, {"disk_reserve_bytes": 0}):
        DiskReserve.from_settings(Settings.model_validate({"data": tmp_path, **settings})).fill()
    assert list(tmp_path.iterdir()) == []
    DiskReserve.from_settings(Settings(data=tmp_path, disk_reserve_bytes=4096)).fill()
    assert (tmp_path / NAME).stat().st_size == 4096
