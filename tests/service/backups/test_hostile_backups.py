"""Files that claim to be a backup: each is refused before it costs room, and nothing of it stays."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from service import migrations
from service.backups.archive import ArchiveWriter, BackupManifest, new_archive
from service.backups.errors import BackupCorrupt, BackupError, BackupRefused
from service.backups.restore import restore_backup
from service.kit.settings import Settings

GIB = 2**30


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("database")
    migrations.upgrade_schema(Settings(data=folder))
    with closing(sqlite3.connect(folder / "burnish.db")) as connection:
        connection.execute("VACUUM INTO ?", (str(folder / "snapshot"),))
    return (folder / "snapshot").read_bytes()


def entry(data: bytes) -> dict[str, object]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def manifest_of(files: Mapping[str, object], **changes: object) -> bytes:
    facts = {
        "form": 1,
        "version": "0.1.0",
        "schema_revision": migrations.head_revision(),
        "created_at": 1,
        "files": files,
    }
    return json.dumps(facts | changes).encode()


def member(name: str, data: bytes = b"", **changes: object) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.size = len(data)
    for field, value in changes.items():
        setattr(made, field, value)
    return made, data


def write(path: Path, members: Iterable[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
    with path.open("wb") as file:
        for header, data in members:
            file.write(header.tobuf(format=form))
            file.write(data + b"\0" * (-len(data) % 512))
        file.write(b"\0" * 1024)
    return path


def old_sparse(name: str, size: int) -> bytes:
    """Return the header of a GNU sparse file without a byte of data that unpacks to `size` zeros."""
    buffer = bytearray(tarfile.TarInfo(name).tobuf(format=tarfile.GNU_FORMAT))
    buffer[156:157] = tarfile.GNUTYPE_SPARSE
    buffer[386:398] = buffer[398:410] = b"00000000000\0"
    buffer[483:495] = f"{size:011o}\0".encode()
    buffer[148:156] = b" " * 8
    buffer[148:156] = f"{sum(buffer):06o}\0 ".encode()
    return bytes(buffer)


def refused(path: Path, kind: type[BackupError] = BackupCorrupt) -> str:
    """Return the sentence of the refusal, after which the folder is as it was, and no disk was used."""
    before = sorted(entry.name for entry in path.parent.rglob("*"))
    passed: list[int] = []
    with pytest.raises(kind) as caught:
        restore_backup(path, path.parent / "new" / "restored", passed.append)
    assert sorted(entry.name for entry in path.parent.rglob("*")) == before
    assert sum(passed) <= path.stat().st_size
    assert str(path) in str(caught.value) or "has no room" in str(caught.value)
    return str(caught.value)


def test_a_small_file_that_unpacks_to_gibibytes_is_refused(tmp_path: Path, database: bytes) -> None:
    manifest = manifest_of({"burnish.db": entry(database), "blobs/x": {"bytes": 2 * GIB, "sha256": "0" * 64}})
    path = tmp_path / "b.tar"
    rest = b"".join(header.tobuf() + data for header, data in [member("manifest.json", manifest)])
    path.write_bytes(old_sparse("blobs/x", 2 * GIB) + rest + b"\0" * 2048)
    assert "is not a backup of Burnish: it holds 'blobs/x'" in refused(path)


@pytest.mark.parametrize(
    "extended",
    [
        {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "blobs/x",
            "GNU.sparse.realsize": "9" * 9,
        },
        {"GNU.sparse.size": str(2 * GIB), "GNU.sparse.numblocks": "1"},
        {"GNU.sparse.map": f"0,0,{2 * GIB},0", "GNU.sparse.size": str(2 * GIB)},
        {"size": str(2 * GIB)},
        {"size": "-1024"},
        {"size": "-9223372036854775808"},
        {"uname": "用户"},
        {"path": "../evil"},
        {"comment": "x" * 100_000},
    ],
)
def test_extended_headers_may_not_lie(tmp_path: Path, database: bytes, extended: dict[str, str]) -> None:
    """Some would never end: a negative size leads tarfile back to what it has read."""
    blob = b"0\n" + b"\0" * 510
    manifest = manifest_of({"burnish.db": entry(database), "blobs/x": entry(blob)})
    path = write(
        tmp_path / "b.tar",
        [
            member("burnish.db", database),
            member("blobs/x", blob, pax_headers=extended),
            member("manifest.json", manifest),
        ],
    )
    assert "backup" in refused(path) or "cut off" in refused(path)


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.LNKTYPE,
        tarfile.SYMTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.DIRTYPE,
        tarfile.CONTTYPE,
        tarfile.AREGTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        b"V",
    ],
)
def test_only_plain_files_are_taken(tmp_path: Path, database: bytes, kind: bytes) -> None:
    manifest = manifest_of({"burnish.db": entry(database), "blobs/x": entry(b"")})
    odd = member("blobs/x", type=kind, linkname="burnish.db")
    path = write(
        tmp_path / "b.tar", [member("burnish.db", database), odd, member("manifest.json", manifest)], tarfile.GNU_FORMAT
    )
    assert "is not a backup of Burnish: it holds" in refused(path)


def test_names_come_once_and_the_manifest_last(tmp_path: Path, database: bytes) -> None:
    plain = manifest_of({"burnish.db": entry(database)})
    whole = [member("burnish.db", database), member("manifest.json", plain)]
    for odd in (
        [whole[0], *whole],
        [*whole, whole[0]],
        [*whole, whole[1]],
        [whole[1], whole[0]],
    ):
        assert "is not a backup of Burnish: it holds" in refused(write(tmp_path / "b.tar", odd))


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "is damaged: "),
        ({"blobs/y": entry(b"x")}, "is damaged: blobs/"),
        ({"blobs/x": {"bytes": 2, "sha256": "0" * 64}}, "is damaged: blobs/x"),
        ({"blobs/x": {"bytes": 1, "sha256": "0" * 64}}, "is damaged: blobs/x"),
        ({"blobs/x": {"bytes": -1, "sha256": "0" * 64}}, "not a complete backup"),
        ({"blobs/x": entry(b"x"), "blobs/z": entry(b"x")}, "is damaged: blobs/z"),
    ],
)
def test_what_the_manifest_lists_is_what_is_there(
    tmp_path: Path, database: bytes, files: dict[str, object], sentence: str
) -> None:
    manifest = manifest_of({"burnish.db": entry(database)} | files)
    members = [member("burnish.db", database), member("blobs/x", b"x"), member("manifest.json", manifest)]
    assert sentence in refused(write(tmp_path / "b.tar", members))


def test_a_manifest_that_lists_more_than_the_archive_holds_is_not_read(tmp_path: Path, database: bytes) -> None:
    manifest = manifest_of({"burnish.db": entry(database)} | {f"blobs/{n}": entry(b"") for n in range(10_000)})
    path = write(tmp_path / "b.tar", [member("burnish.db", database), member("manifest.json", manifest)])
    assert "lists more than is in it" in refused(path)


def test_a_name_that_is_a_file_and_a_folder_is_refused(tmp_path: Path, database: bytes) -> None:
    names = ("blobs/a", "blobs/a/b")
    manifest = manifest_of({"burnish.db": entry(database)} | {name: entry(b"") for name in names})
    members = [member("burnish.db", database), *map(member, names), member("manifest.json", manifest)]
    assert "'blobs/a' is both a file and a folder" in refused(write(tmp_path / "b.tar", members))


def test_a_great_number_of_members_costs_no_memory_for_each(tmp_path: Path, database: bytes) -> None:
    """The headers are read one at a time; the first that the manifest could not hold ends it."""
    same = member("blobs/x")[0].tobuf()
    path = tmp_path / "b.tar"
    path.write_bytes(same * 50_000 + b"\0" * 1024)
    assert "is not a backup of Burnish: it holds 'blobs/x'" in refused(path)


def test_a_full_disk_is_reported_before_a_byte_is_written(
    tmp_path: Path, database: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = manifest_of({"burnish.db": entry(database)})
    path = write(tmp_path / "b.tar", [member("burnish.db", database), member("manifest.json", manifest)])
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=len(database)))
    sentence = refused(path, BackupRefused)
    assert f"it needs {len(database) + 4096} bytes, and the disk has {len(database)} free" in sentence
    monkeypatch.undo()
    restore_backup(path, tmp_path / "restored")
    assert (tmp_path / "restored" / "burnish.db").read_bytes() == database


def _emptied(_database: Path) -> None:
    _database.write_bytes(b"")


def _text(database: Path) -> None:
    database.write_text("你好数据库" * 1000, encoding="utf-8")


def _unlike(*statements: str) -> Callable[[Path], None]:
    def change(database: Path) -> None:
        with closing(sqlite3.connect(database)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    return change


def _torn(database: Path) -> None:
    content = bytearray(database.read_bytes())
    content[8192:12288] = b"\xff" * 4096
    database.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_emptied, "has no schema, its manifest says"),
        (_text, "is not a database: file is not a database"),
        (_torn, "The database in"),
        (_unlike("DELETE FROM alembic_version"), "has no schema, its manifest says"),
        (_unlike("INSERT INTO alembic_version VALUES ('0001')"), "has no schema, its manifest says"),
        (_unlike("UPDATE alembic_version SET version_num = '0001'"), "has the schema 0001, its manifest says"),
        (_unlike("DROP TABLE job_events"), "the table job_events is not as the schema"),
        (_unlike('CREATE TABLE "密" (x)'), "the table 密 is not as the schema"),
        (_unlike("ALTER TABLE projects ADD COLUMN x TEXT"), "the table projects is not as the schema"),
        (_unlike("CREATE VIEW v AS SELECT 1"), "the view v is not as the schema"),
        (
            _unlike("CREATE TRIGGER t AFTER INSERT ON projects BEGIN DELETE FROM projects; END"),
            "the trigger t is not as the schema",
        ),
    ],
)
def test_only_a_database_of_the_service_is_put_in_place(
    tmp_path: Path, database: bytes, change: Callable[[Path], None], sentence: str
) -> None:
    changed = tmp_path / "changed.db"
    changed.write_bytes(database)
    change(changed)
    with new_archive(tmp_path / "b.tar", lambda _bytes: None) as archive:
        archive.add_file("burnish.db", changed)
        archive.add_manifest(_manifest(archive))
    assert sentence in refused(tmp_path / "b.tar")


@pytest.mark.slow
def test_a_database_of_each_earlier_schema_is_restored(tmp_path: Path) -> None:
    for revision in ("0001", "0009", migrations.head_revision()):
        folder = tmp_path / revision
        folder.mkdir()
        migrations.upgrade_schema(Settings(data=folder), revision)
        with new_archive(folder / "b.tar", lambda _bytes: None) as archive:
            archive.add_file("burnish.db", folder / "burnish.db")
            archive.add_manifest(_manifest(archive, revision))
        assert restore_backup(folder / "b.tar", folder / "restored").schema_revision == revision
        assert [path.name for path in (folder / "restored").iterdir() if path.name.startswith("burnish")] == [
            "burnish.db"
        ]


def _manifest(archive: ArchiveWriter, revision: str | None = None) -> BackupManifest:
    return BackupManifest(
        version="0.1.0", schema_revision=revision or migrations.head_revision(), created_at=1, files=archive.files
    )


def test_a_long_name_of_our_own_comes_back(tmp_path: Path, database: bytes) -> None:
    key = "/".join(["k" * 200] * 4)
    with new_archive(tmp_path / "b.tar", lambda _bytes: None) as archive:
        archive.add_chunks(f"blobs/{key}", [b"x"], 1)
        archive.add_chunks("burnish.db", [database], len(database))
        archive.add_manifest(_manifest(archive))
    restore_backup(tmp_path / "b.tar", tmp_path / "restored")
    assert (tmp_path / "restored" / "blobs" / key).read_bytes() == b"x"


def test_anything_but_a_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(BackupRefused, match="is not a file on a disk"):
            restore_backup(path, tmp_path / "restored")


def test_a_backup_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with new_archive(tmp_path / "b.tar", lambda _bytes: None) as archive:
            part = next(tmp_path.glob(".b.tar.*"))
            assert part.stat().st_mode & 0o777 == 0o600
            archive.add_manifest(_manifest(archive))
    finally:
        os.umask(before)
    assert (tmp_path / "b.tar").stat().st_mode & 0o777 == 0o600
