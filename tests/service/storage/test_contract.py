"""What every store promises (`service.storage.base.Storage`), asked of each of them."""

from __future__ import annotations

import hashlib
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta

import pytest

from service.storage import BlobNotFound, BlobStat, InvalidKey, Storage, StoredBlob

TEXT = "一行数据 and one more".encode()
BAD_KEYS = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/../b",
    "a/./b",
    "../../etc/passwd",
    "a b",
    "a\\b",
    "数据",
    "a\0b",
    "a\n",
    "a%2e",
    ".tmp",
    ".tmp/x",
    "x" * 256,
    "/".join(["x" * 100] * 10),
]


def content(storage: Storage, key: str) -> bytes:
    return b"".join(storage.read(key))


def keys(storage: Storage, prefix: str) -> list[str]:
    return sorted(blob.key for blob in storage.list(prefix))


def test_what_is_put_is_read_back_with_its_hash(storage: Storage) -> None:
    stored = storage.put("files/file-1/rows.jsonl", [TEXT, b"", b"!"])
    whole = TEXT + b"!"
    assert stored == StoredBlob("files/file-1/rows.jsonl", len(whole), hashlib.sha256(whole).hexdigest())
    assert content(storage, stored.key) == whole
    assert storage.stat(stored.key) == BlobStat(stored.key, len(whole))


def test_an_empty_blob_is_a_blob(storage: Storage) -> None:
    assert storage.put("empty", []).bytes == 0
    assert storage.stat("empty") == BlobStat("empty", 0)
    assert content(storage, "empty") == b""
    assert list(storage.read("empty", start=0, end=10)) == []


def test_put_replaces_what_was_there(storage: Storage) -> None:
    storage.put("a", [b"a long first version"])
    storage.put("a", [b"second"])
    assert content(storage, "a") == b"second"


def test_nothing_is_visible_before_the_commit(storage: Storage) -> None:
    with storage.writer("a/b") as writer:
        writer.write(TEXT)
        assert storage.stat("a/b") is None
        assert keys(storage, "") == []
        stored = writer.commit()
    assert stored.bytes == len(TEXT)
    assert keys(storage, "") == ["a/b"]


def test_leaving_without_commit_leaves_nothing(storage: Storage) -> None:
    with storage.writer("a") as writer:
        writer.write(TEXT)
    assert storage.stat("a") is None
    with suppress(KeyError), storage.writer("a") as writer:
        writer.write(TEXT)
        raise KeyError
    assert storage.stat("a") is None
    assert storage.remove_abandoned(timedelta(0)) == 0


def test_an_aborted_write_keeps_the_old_blob(storage: Storage) -> None:
    storage.put("a", [b"old"])
    with storage.writer("a") as writer:
        writer.write(b"new")
        writer.abort()
        writer.abort()
    assert content(storage, "a") == b"old"


def test_a_failing_source_stores_nothing(storage: Storage) -> None:
    def source() -> Iterator[bytes]:
        yield b"x" * (9 << 20)
        raise ConnectionResetError("the client went away")

    with pytest.raises(ConnectionResetError):
        storage.put("a", source())
    assert storage.stat("a") is None
    assert storage.remove_abandoned(timedelta(0)) == 0


@pytest.mark.parametrize("end", ["commit", "abort"])
def test_an_ended_write_takes_no_more(storage: Storage, end: str) -> None:
    with storage.writer("a") as writer:
        writer.write(b"x")
        getattr(writer, end)()
        with pytest.raises(ValueError, match="has ended"):
            writer.write(b"y")
        with pytest.raises(ValueError, match="has ended"):
            writer.commit()


def test_a_big_blob_in_uneven_chunks_keeps_memory_flat(storage: Storage) -> None:
    size, chunk = 40 << 20, bytes(range(256)) * 1213
    whole = (chunk * (size // len(chunk) + 1))[:size]
    expected = hashlib.sha256(whole).hexdigest()
    del whole

    def source() -> Iterator[bytes]:
        for offset in range(0, size, len(chunk)):
            yield chunk[: size - offset]

    tracemalloc.start()
    stored = storage.put("big", source())
    read = hashlib.sha256()
    for part in storage.read("big"):
        read.update(part)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (stored.bytes, stored.sha256) == (size, expected)
    assert read.hexdigest() == expected
    assert peak < 34 << 20


def test_one_chunk_larger_than_a_part_and_exact_parts(storage: Storage) -> None:
    for size in (8 << 20, (16 << 20) + 1):
        data = b"ab" * (size // 2) + b"c" * (size % 2)
        assert storage.put("big", [data]).sha256 == hashlib.sha256(data).hexdigest()
        assert content(storage, "big") == data


@pytest.mark.parametrize(
    ("start", "end"), [(0, None), (0, 4), (3, 7), (9, 10), (9, 100), (10, None), (50, 60), (4, 4), (0, 0)]
)
def test_a_range_is_cut_as_a_slice_is(storage: Storage, start: int, end: int | None) -> None:
    storage.put("a", [b"0123456789"])
    chunks = list(storage.read("a", start=start, end=end, chunk_size=3))
    assert b"".join(chunks) == b"0123456789"[start:end]
    assert all(0 < len(chunk) <= 3 for chunk in chunks)


@pytest.mark.parametrize(("start", "end"), [(-1, None), (5, 4), (0, -1)])
def test_an_impossible_range_is_refused_at_the_call(storage: Storage, start: int, end: int | None) -> None:
    storage.put("a", [b"0123456789"])
    with pytest.raises(ValueError, match="0 <= start <= end"):
        storage.read("a", start=start, end=end)


@pytest.mark.parametrize("end", [None, 0])
def test_a_missing_blob_is_reported_at_the_call(storage: Storage, end: int | None) -> None:
    storage.put("a/b", [b"x"])
    for key in ("no", "a", "a/b/c", "a/no"):
        with pytest.raises(BlobNotFound, match=key):
            storage.read(key, end=end)
        assert storage.stat(key) is None


def test_a_read_may_be_left_early(storage: Storage) -> None:
    storage.put("a", [b"x" * 100_000])
    never_started = storage.read("a")
    del never_started
    chunks = storage.read("a", chunk_size=10)
    assert next(chunks) == b"x" * 10
    chunks.close()
    assert list(chunks) == []


def test_put_if_absent_creates_once(storage: Storage) -> None:
    assert storage.put_if_absent("jobs/1/manifest.json", TEXT) is True
    assert storage.put_if_absent("jobs/1/manifest.json", b"other") is False
    assert content(storage, "jobs/1/manifest.json") == TEXT
    storage.delete("jobs/1/manifest.json")
    assert storage.put_if_absent("jobs/1/manifest.json", b"other") is True
    assert keys(storage, "") == ["jobs/1/manifest.json"]


def test_of_several_creators_one_wins(storage: Storage) -> None:
    start, won = threading.Barrier(6), list[bytes]()

    def create(data: bytes) -> None:
        start.wait()
        if storage.put_if_absent("a/b", data):
            won.append(data)

    threads = [threading.Thread(target=create, args=(str(n).encode(),)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert content(storage, "a/b") == won[0]


def test_delete_takes_one_blob_and_minds_no_absence(storage: Storage) -> None:
    storage.put("a/b", [b"x"])
    storage.put("a/c", [b"x"])
    storage.delete("a/b")
    storage.delete("a/b")
    storage.delete("never/was")
    assert keys(storage, "") == ["a/c"]


def test_a_prefix_covers_whole_segments(storage: Storage) -> None:
    for key in ("files/file-1/rows", "files/file-1/x/y", "files/file-10/rows", "files/file-1.b", "zzz"):
        storage.put(key, [b"x"])
    assert keys(storage, "files/file-1") == keys(storage, "files/file-1/")
    assert keys(storage, "files/file-1") == ["files/file-1/rows", "files/file-1/x/y"]
    assert keys(storage, "files/file") == keys(storage, "zzz") == keys(storage, "no/such") == []
    assert storage.delete_prefix("files/file-1") == 2
    assert keys(storage, "") == ["files/file-1.b", "files/file-10/rows", "zzz"]
    assert storage.delete_prefix("files/file-1") == 0


def test_the_list_is_whole_and_sized(storage: Storage) -> None:
    wanted = ["A", "a-b/x", "a.b", "a/x", "a/x.y", "a0", "a=b/c", "b"]
    for number, key in enumerate(reversed(wanted)):
        storage.put(key, [b"x" * number])
    listed = list(storage.list(""))
    assert sorted(blob.key for blob in listed) == sorted(wanted)
    assert {blob.key: blob.bytes for blob in listed}["A"] == len(wanted) - 1


@pytest.mark.slow
def test_many_blobs_are_listed_and_deleted(storage: Storage) -> None:
    wanted = [f"many/{number:05}" for number in range(1030)]
    for key in wanted:
        storage.put(key, [b"x"])
    assert keys(storage, "many") == wanted
    assert storage.delete_prefix("many") == len(wanted)
    assert keys(storage, "") == []


def test_the_empty_prefix_is_not_deleted(storage: Storage) -> None:
    storage.put("a", [b"x"])
    with pytest.raises(InvalidKey, match="delete everything"):
        storage.delete_prefix("")
    assert keys(storage, "") == ["a"]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_bad_key_is_refused_by_every_method(storage: Storage, key: str) -> None:
    for call in (storage.writer, storage.read, storage.stat, storage.delete):
        with pytest.raises(InvalidKey):
            call(key)
    with pytest.raises(InvalidKey):
        storage.put(key, [b"x"])
    with pytest.raises(InvalidKey):
        storage.put_if_absent(key, b"x")
    assert keys(storage, "") == []


@pytest.mark.parametrize("prefix", ["..", "a/../b", "/", "//", "a b", ".tmp"])
def test_a_bad_prefix_is_refused(storage: Storage, prefix: str) -> None:
    with pytest.raises(InvalidKey):
        storage.list(prefix)
    with pytest.raises(InvalidKey):
        storage.delete_prefix(prefix)


def test_threads_write_and_delete_concurrently(storage: Storage) -> None:
    failures: list[BaseException] = []

    def work(name: int) -> None:
        try:
            for turn in range(15):
                key = f"deep/er/{name % 2}/{name}"
                storage.put(key, [str(turn).encode()])
                assert content(storage, key) == str(turn).encode()
                storage.delete(key)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test's own thread reports it
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert keys(storage, "") == []


def test_a_working_store_passes_its_check(storage: Storage) -> None:
    storage.check()
    assert keys(storage, "") == []
    assert storage.remove_abandoned(timedelta(0)) == 0
