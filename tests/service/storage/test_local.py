from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from datetime import timedelta
from pathlib import Path

import pytest

from service.storage import InvalidKey, InvalidStorageUrl, StorageUnavailable, open_storage
from service.storage.local import LocalStorage


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


def test_files_and_folders_are_for_the_owner_alone(root: Path) -> None:
    before = os.umask(0)
    try:
        LocalStorage(root).put("a/b/c", [b"x"])
    finally:
        os.umask(before)
    assert (root / "a/b/c").stat().st_mode & 0o777 == 0o600
    assert {path.stat().st_mode & 0o777 for path in (root / ".tmp", root / "a", root / "a/b")} == {0o700}


def test_empty_folders_go_with_the_last_blob(root: Path) -> None:
    storage = LocalStorage(root)
    storage.put("a/b/c", [b"x"])
    storage.put("a/d", [b"x"])
    storage.delete("a/b/c")
    assert not (root / "a/b").exists()
    storage.delete("a/d")
    assert [path.name for path in root.iterdir()] == [".tmp"]
    storage.check()


def test_a_link_out_of_the_folder_is_not_followed(root: Path, tmp_path: Path) -> None:
    storage = LocalStorage(root)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (root / "a").symlink_to(outside)
    (root / "b").symlink_to(outside / "secret")
    for key in ("a/secret", "b"):
        with pytest.raises(InvalidKey, match="leads out"):
            storage.read(key)
        with pytest.raises(InvalidKey, match="leads out"):
            storage.put(key, [b"x"])
    assert (outside / "secret").read_bytes() == b"secret"


def test_a_key_is_a_blob_or_a_folder(root: Path) -> None:
    storage = LocalStorage(root)
    storage.put("a/b", [b"x"])
    for create in (lambda key: storage.put(key, [b"y"]), lambda key: storage.put_if_absent(key, b"y")):
        with pytest.raises(InvalidKey, match="folder of other blobs"):
            create("a")
        with pytest.raises(InvalidKey, match="is a blob, not a folder"):
            create("a/b/c")
        with pytest.raises(InvalidKey, match="is a blob, not a folder"):
            create("a/b/c/d")
    assert list((root / ".tmp").iterdir()) == []


def test_an_empty_folder_left_behind_does_no_harm(root: Path) -> None:
    storage = LocalStorage(root)
    (root / "a").mkdir()
    storage.put("a", [b"x"])
    assert b"".join(storage.read("a")) == b"x"


def test_what_a_killed_writer_left_is_removed_by_age(root: Path) -> None:
    script = """
        import os, signal, sys
        from pathlib import Path
        from service.storage.local import LocalStorage
        writer = LocalStorage(Path(sys.argv[1])).writer("a")
        writer.write(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(root)], check=False)
    assert killed.returncode == -signal.SIGKILL
    storage = LocalStorage(root)
    assert list(storage.list("")) == []
    assert storage.remove_abandoned(timedelta(hours=1)) == 0
    assert storage.remove_abandoned(timedelta(0)) == 1
    assert list((root / ".tmp").iterdir()) == []


@pytest.mark.integration
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    """A real file system of 1 MB, mounted in a namespace of the child's own: no root is needed."""
    script = """
        import sys
        from pathlib import Path
        from service.storage import StorageFull
        from service.storage.local import LocalStorage
        storage = LocalStorage(Path(sys.argv[1]))
        storage.put("kept", [b"old"])
        for key in ("kept", "new"):
            try:
                storage.put(key, [b"x" * 100_000] * 20)
            except StorageFull as error:
                print(error)
        print([blob.key for blob in storage.list("")], b"".join(storage.read("kept")))
        print(storage.remove_abandoned(__import__("datetime").timedelta(0)))
    """
    mount = 'mount -t tmpfs -o size=1m tmpfs "$1" && exec "$2" -c "$3" "$1"'
    alone = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine allows no namespaces of one's own, so no small disk can be mounted")
    command = [*alone, "sh", "-c", mount, "sh"]
    arguments = [str(tmp_path), sys.executable, textwrap.dedent(script)]
    child = subprocess.run([*command, *arguments], check=False, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    sentence = "The disk of the blob folder is full: nothing was kept. Free some space and try again."
    assert child.stdout.splitlines() == [sentence, sentence, "['kept'] b'old'", "0"]


def test_a_vanished_folder_fails_the_check(root: Path) -> None:
    storage = LocalStorage(root)
    (root / ".tmp").rmdir()
    with pytest.raises(StorageUnavailable, match="No such file or directory"):
        storage.check()
    with pytest.raises(StorageUnavailable):
        storage.put("a", [b"x"])


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InvalidStorageUrl, match="Not a directory"):
        open_storage((tmp_path / "file" / "blobs").as_uri())
