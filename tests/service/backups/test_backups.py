"""A backup out of a database that is written to, and an empty folder filled from it."""

from __future__ import annotations

import io
import json
import shutil
import stat
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import select, text

from service.__main__ import cli
from service.backups import make
from service.backups.archive import DATABASE
from service.backups.errors import BackupCorrupt, BackupRefused
from service.backups.make import make_backup
from service.backups.restore import restore_backup
from service.context import Context, open_context
from service.keys.service import authenticate_header, create_key
from service.kit import ids
from service.kit.settings import Settings
from service.storage import Storage, open_storage
from service.tables.files import FileRow
from tests.fixtures.service import make_context


def add_file(context: Context, content: bytes, *, keep: bool = True) -> str:
    """Keep a blob, and with `keep` its row."""
    file_id = ids.new_id(ids.FILE)
    blob = context.storage.put(f"files/{file_id}", [content])
    with context.db.write() as session:
        project = create_key(session, context.hmac_key, project="p", name="n")[0].project_id
        if keep:
            session.add(
                FileRow(
                    id=file_id,
                    project_id=project,
                    filename="训练.jsonl",
                    purpose="fine-tune",
                    bytes=blob.bytes,
                    sha256=blob.sha256,
                    blob_key=blob.key,
                )
            )
    return file_id


@pytest.fixture
def context(tmp_path: Path) -> Iterable[Context]:
    (tmp_path / "data").mkdir()
    made = make_context(tmp_path / "data")
    yield made
    made.db.close()


@pytest.fixture
def backup(context: Context, tmp_path: Path) -> Path:
    add_file(context, "你好".encode() * 1000)
    add_file(context, b"")
    path = tmp_path / "burnish.tar"
    make_backup(context.settings, path)
    return path


def contents(settings: Settings) -> dict[str, bytes]:
    """Return the bytes of all files that the rows name."""
    context = open_context(settings)
    try:
        with context.db.read() as session:
            keys = {row.id: row.blob_key for row in session.scalars(select(FileRow))}
        return {file_id: b"".join(context.storage.read(key)) for file_id, key in keys.items()}
    finally:
        context.db.close()


def test_everything_comes_back(context: Context, tmp_path: Path) -> None:
    add_file(context, "你好".encode() * 1_000_000)
    add_file(context, b"x")
    with context.db.write() as session:
        _, token = create_key(session, context.hmac_key, project="p", name="k")
    passed: list[int] = []
    made = make_backup(context.settings, tmp_path / "burnish.tar", passed.append)
    assert (made.blobs, made.missing, made.bytes) == (2, (), (tmp_path / "burnish.tar").stat().st_size)
    assert sum(passed) > 6_000_000
    assert stat.S_IMODE((tmp_path / "burnish.tar").stat().st_mode) == 0o600

    add_file(context, b"after the backup")
    restored = Settings(data=tmp_path / "restored", catalog=context.settings.catalog)
    restore_backup(tmp_path / "burnish.tar", restored.data)
    before, after = contents(context.settings), contents(restored)
    assert len(before) == 3
    assert len(after) == 2
    assert after.items() <= before.items()
    assert stat.S_IMODE(restored.data.stat().st_mode) == 0o700
    fresh = open_context(restored)
    with fresh.db.write() as session:
        assert authenticate_header(session, fresh.hmac_key, f"Bearer {token}"), "keys are valid as before"
        assert session.scalar(text("PRAGMA foreign_key_check")) is None
    fresh.db.close()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


class _Eventful:
    """A store in which something happens while it is listed."""

    def __init__(self, storage: Storage, events: list[object]) -> None:
        self._storage, self._events = storage, events
        self.read = storage.read

    def list(self, prefix: str) -> Iterable[object]:
        yield from self._storage.list(prefix)
        if self._events:
            self._events.pop(0)()  # type: ignore[operator]


def test_what_is_written_and_deleted_meanwhile_leaves_no_gap(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a pass over the blobs and the snapshot a file comes; after the snapshot it goes, row first."""
    came: list[str] = []

    def come() -> None:
        came.append(add_file(context, b"came late"))

    def go() -> None:
        with context.db.write() as session:
            session.delete(session.scalars(select(FileRow).where(FileRow.id == came[0])).one())
        context.storage.delete(f"files/{came[0]}")
        add_file(context, b"came last")

    add_file(context, b"always there")
    take = make._take_snapshot
    snapshots: list[int] = []

    def take_then_go(database: Path, path: Path) -> None:
        take(database, path)
        snapshots.append(1)
        if len(snapshots) == 1:
            go()

    monkeypatch.setattr(make, "_take_snapshot", take_then_go)
    monkeypatch.setattr(make, "open_storage", lambda url: _Eventful(open_storage(url), [come]))
    made = make_backup(context.settings, tmp_path / "b.tar")
    assert (len(snapshots), made.missing) == (2, ())
    restored = Settings(data=tmp_path / "restored", catalog=context.settings.catalog)
    restore_backup(tmp_path / "b.tar", restored.data)
    assert sorted(contents(restored).values()) == [b"always there", b"came last"]


def test_blobs_that_the_store_had_lost_are_reported(context: Context, tmp_path: Path) -> None:
    lost = add_file(context, b"x")
    context.storage.delete(f"files/{lost}")
    assert make_backup(context.settings, tmp_path / "b.tar").missing == (f"files/{lost}",)


@pytest.mark.parametrize("inside", ["你好", "SQLite format 3", "schema_revision"])
def test_a_flipped_bit_is_found_and_nothing_is_restored(backup: Path, tmp_path: Path, inside: str) -> None:
    data = bytearray(backup.read_bytes())
    data[data.index(inside.encode()) + 3] ^= 1
    backup.write_bytes(data)
    with pytest.raises(BackupCorrupt, match="Take another copy"):
        restore_backup(backup, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()
    assert [path.name for path in tmp_path.iterdir() if "restoring" in path.name] == []


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_cut_backup_is_refused(backup: Path, tmp_path: Path, share: float) -> None:
    data = backup.read_bytes()
    whole = data.rstrip(b"\0")
    backup.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(BackupCorrupt, match=r"cut off|not a complete backup"):
        restore_backup(backup, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "blobs/../evil", "blobs/a/../../evil", "evil", "blobs/.tmp/x", "blobs/", ""]
)
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
def test_a_foreign_archive_writes_nothing(tmp_path: Path, name: str, kind: bytes) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member, io.BytesIO(b""))
    with pytest.raises(BackupCorrupt, match=r"is not a backup of Burnish|cut off"):
        restore_backup(path, tmp_path / "inside" / "restored")
    assert [entry.name for entry in tmp_path.rglob("*")] == ["x.tar"]


def rewritten(backup: Path, **changes: object) -> Path:
    """Return a copy of a backup with another manifest."""
    path = backup.with_name("changed.tar")
    with tarfile.open(backup) as source, tarfile.open(path, "w") as target:
        for member in source:
            file = source.extractfile(member)
            assert file is not None
            data = file.read()
            if member.name == "manifest.json":
                data = json.dumps(json.loads(data) | changes).encode()
                member.size = len(data)
            target.addfile(member, io.BytesIO(data))
    return path


def test_a_later_releases_backup_is_refused(backup: Path, tmp_path: Path) -> None:
    with pytest.raises(BackupRefused, match=r"release 9\.0\.0, with the schema 9999, newer"):
        restore_backup(rewritten(backup, version="9.0.0", schema_revision="9999"), tmp_path / "restored")
    with pytest.raises(BackupCorrupt, match="has the form 2; this release reads 1"):
        restore_backup(rewritten(backup, form=2), tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


def test_only_an_empty_folder_is_filled(backup: Path, tmp_path: Path) -> None:
    folder = tmp_path / "restored"
    folder.mkdir()
    (folder / "mine").write_text("x")
    with pytest.raises(BackupRefused, match="is not an empty folder"):
        restore_backup(backup, folder)
    assert [path.name for path in folder.iterdir()] == ["mine"]
    (folder / "mine").unlink()
    restore_backup(backup, folder)
    assert (folder / DATABASE).exists()


def test_the_commands_and_their_sentences(context: Context, tmp_path: Path) -> None:
    add_file(context, b"x")
    data, file = str(context.settings.data), str(tmp_path / "b.tar")

    def run(*arguments: str, **environment: str) -> tuple[int, str]:
        clean = {"BURNISH_DATABASE_URL": None, "BURNISH_STORAGE_URL": None, "BURNISH_DATA": data} | environment
        result = CliRunner().invoke(cli, arguments, prog_name="burnish-server", env=clean)
        return result.exit_code, result.output

    assert run("backup", file) == (0, f"{file}: 1 blobs and the database, {Path(file).stat().st_size} bytes.\n")
    assert run("backup", file) == (1, f"burnish-server: {file} exists already: name another file.\n")
    code, said = run("backup", str(tmp_path / "c.tar"), BURNISH_STORAGE_URL="s3://bucket/x")
    assert code == 1
    assert "BURNISH_STORAGE_URL is set: this command is for the embedded set-up" in said
    code, said = run("backup", str(tmp_path / "c.tar"), "--data", str(tmp_path / "nothing"))
    assert code == 1
    assert f"There is no database in {tmp_path / 'nothing'}" in said
    assert run("backup", str(tmp_path / "no" / "c.tar"))[1].startswith("burnish-server: No such file or directory")
    assert run("restore", file) == (
        1,
        f"burnish-server: {data} is not an empty folder: name an empty one, or a new one, by --data.\n",
    )
    code, said = run("restore", file, "--data", str(tmp_path / "new"))
    assert code == 0
    assert f"Start it by: burnish-server up --data {tmp_path / 'new'}" in said
    (tmp_path / "text").write_text("你好")
    code, said = run("restore", str(tmp_path / "text"), "--data", str(tmp_path / "other"))
    assert code == 1
    assert "is not a complete backup of Burnish" in said


def test_a_full_disk_leaves_nothing(context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_file(context, b"x")

    def full(_bytes: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        make_backup(context.settings, tmp_path / "b.tar", full)
    shutil.rmtree(tmp_path / "data")
    assert list(tmp_path.iterdir()) == []
