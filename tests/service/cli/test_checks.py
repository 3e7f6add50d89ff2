"""What is checked before `up` starts anything."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from service.cli import checks
from service.cli.errors import CommandFailed
from tests.fixtures.processes import free_port
from tests.service.cli.observed import too_wide


def test_missing_packages_are_named_with_the_command() -> None:
    with pytest.raises(CommandFailed) as caught:
        checks.check_packages(("json", "no_such_package", "nor_this"))
    assert "no_such_package, nor_this" in caught.value.message
    assert "pip install 'burnish-server[trainer]'" in caught.value.message
    checks.check_packages(("json",))


def test_a_port_in_use_and_hosts_that_are_none_of_ours() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(CommandFailed, match=f"Port {port} on 127.0.0.1 is in use: choose another with --port."):
            checks.check_port("127.0.0.1", port)
    checks.check_port("127.0.0.1", free_port())
    with pytest.raises(CommandFailed, match="not an address of this machine"):
        checks.check_port("192.0.2.1", free_port())
    with pytest.raises(CommandFailed, match="not an address of this machine"):
        checks.check_port("主机 名", free_port())


def test_the_data_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "数据"
    checks.prepare_folder(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / "blobs").mkdir(mode=0o755)
    (folder / "blobs" / "数据.jsonl").touch(mode=0o644)
    (tmp_path / "elsewhere").touch(mode=0o644)
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    folder.chmod(0o755)
    checks.prepare_folder(folder)
    assert too_wide(folder) == []
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o644
    (tmp_path / "file").touch()
    with pytest.raises(CommandFailed, match=r"cannot be used: .* by --data"):
        checks.prepare_folder(tmp_path / "file" / "data")


def test_little_space_is_a_warning(tmp_path: Path) -> None:
    assert checks.low_space(tmp_path, least=0) is None
    assert "MiB are free" in (checks.low_space(tmp_path, least=1 << 62) or "")


def test_a_folder_is_locked_for_one(tmp_path: Path) -> None:
    with (
        checks.lock_data_folder(tmp_path),
        pytest.raises(CommandFailed, match=f"process {os.getpid()}"),
        checks.lock_data_folder(tmp_path),
    ):
        pass
    with checks.lock_data_folder(tmp_path):
        pass
