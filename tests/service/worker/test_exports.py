"""The worker makes exports: laid out, converted by a process of its own, packed, stored and published once."""

from __future__ import annotations

import io
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from burnish._download import extract_archive
from service.exports import lifecycle, repository
from service.kit import ids
from service.kit.outbox import Topic
from service.storage.errors import StorageUnavailable
from service.tables.exports import AS_STORED, ModelExportRow
from service.tables.models import FineTunedModelRow
from service.worker.exporter import Exporter
from tests.fixtures.preloaded import preloaded_commands, start_preloaded
from tests.service.worker.world import HERE, PROJECT, World, eventually, prepare_command
from trainer.contract.export import ExportCheck

pytestmark = pytest.mark.integration


def exporter(world: World, mode: str = "succeed") -> Exporter:
    command = (sys.executable, str(HERE / "scripted_export.py"), mode)
    return Exporter(world.context, owner="worker-1", command=command, prepare_command=prepare_command())


def trained(world: World, **columns: Any) -> str:
    job_id = world.job(**columns)
    world.run(job_id, "checkpoint")
    return job_id


def ask(world: World, job_id: str, kind: str, *, step: int | None = None, precision: str | None = None) -> str:
    export_id = ids.new_id(ids.EXPORT)
    name = world.row(job_id).fine_tuned_model or "ft:tiny:burnish:demo:x"
    given = precision or (AS_STORED if kind == "adapter" else "f16")
    with world.db.write() as session:
        repository.add_export(
            session,
            expires_in=3600,
            id=export_id,
            project_id=PROJECT,
            model=name if step is None else f"{name}:ckpt-step-{step}",
            job_id=job_id,
            step=step,
            format=kind,
            precision=given,
            filename=f"ft-tiny-{given}.{'gguf' if kind == 'gguf' else 'zip'}",
        )
    return export_id


def row(world: World, export_id: str) -> ModelExportRow:
    with world.db.read() as session:
        found = repository.by_id(session, export_id)
        assert found is not None
        return found


def blobs(world: World, export_id: str) -> list[str]:
    folder = lifecycle.folder_of(row(world, export_id))
    return world.blobs(folder)


def test_a_gguf_is_made_without_the_gpu_and_published(world: World) -> None:
    export_id = ask(world, trained(world), "gguf")
    assert exporter(world).make_next() is True
    export = row(world, export_id)
    assert (export.status, export.error) == ("ready", None)
    assert export.blob_key is not None
    assert world.read(export.blob_key) == b"GGUF"
    assert export.bytes == 4
    assert export.verification is not None
    assert blobs(world, export_id) == [export.blob_key]
    assert list(world.settings.work.iterdir()) == []
    assert exporter(world).make_next() is False


def test_merged_weights_come_as_a_zip_that_the_client_unpacks(world: World, tmp_path: Path) -> None:
    export_id = ask(world, trained(world), "merged")
    exporter(world).make_next()
    export = row(world, export_id)
    assert export.blob_key is not None
    archive = tmp_path / "merged.zip"
    archive.write_bytes(world.read(export.blob_key))
    extract_archive(archive, tmp_path / "merged")
    assert {path.name for path in (tmp_path / "merged").iterdir()} == {
        "config.json",
        "model.safetensors",
        "manifest.json",
    }


@pytest.mark.parametrize("step", [None, 2])
def test_an_adapter_is_packed_without_what_only_training_needs(world: World, step: int | None) -> None:
    job_id = trained(world)
    export_id = ask(world, job_id, "adapter", step=step)
    exporter(world, "killed").make_next()  # no program is needed
    export = row(world, export_id)
    assert (export.status, export.verification) == ("ready", None)
    assert export.blob_key is not None
    with zipfile.ZipFile(io.BytesIO(world.read(export.blob_key))) as archive:
        names = set(archive.namelist())
        weights = archive.read("adapter_model.safetensors")
    assert {"adapter_config.json", "adapter_model.safetensors", "manifest.json"} <= names
    assert "optimizer.pt" not in names
    assert (weights == f"{job_id} at step 2".encode()) is (step == 2)


def test_what_cannot_be_exported_fails_at_once_with_its_reason(world: World) -> None:
    export_id = ask(world, trained(world), "gguf")
    exporter(world, "refuse").make_next()
    export = row(world, export_id)
    assert export.status == "failed"
    assert export.error == {"code": "unsupported_export", "message": "这个模型不能写成 GGUF。", "param": None}


@pytest.mark.parametrize(
    ("mode", "code"), [("fault", "export_mismatch"), ("killed", "out_of_memory"), ("mute", "trainer_crashed")]
)
def test_a_fault_is_tried_again_and_nothing_is_published(world: World, mode: str, code: str) -> None:
    export_id = ask(world, trained(world), "gguf")
    made = exporter(world, mode)
    for attempt in range(1, world.settings.max_failures + 1):
        assert row(world, export_id).status == "queued"
        made.make_next()
        assert row(world, export_id).lease_token == attempt
    export = row(world, export_id)
    assert export.status == "failed"
    assert export.error is not None
    assert export.error["code"] == code
    assert blobs(world, export_id) == []


def test_a_deleted_export_ends_its_program(world: World) -> None:
    export_id = ask(world, trained(world), "gguf")
    made = exporter(world, "wait")

    def delete() -> None:
        with world.db.write() as session:
            lifecycle.remove_export(session, row(world, export_id), world.settings)

    watcher = world.meanwhile(lambda: row(world, export_id).status == "running", delete)
    made.make_next()
    watcher.join()
    with world.db.read() as session:
        assert repository.by_id(session, export_id) is None
    assert f"exports/{export_id}" in str(world.outbox(Topic.DELETE_BLOBS))


def test_a_worker_that_stops_gives_the_export_back(world: World) -> None:
    export_id = ask(world, trained(world), "gguf")
    with exporter(world, "wait"):
        eventually(lambda: row(world, export_id).status == "running")
    export = row(world, export_id)
    assert (export.status, export.failures) == ("queued", 0)
    exporter(world).make_next()
    assert row(world, export_id).status == "ready"


def test_a_worker_that_was_replaced_publishes_nothing(world: World) -> None:
    export_id = ask(world, trained(world), "gguf")
    slow = exporter(world, "wait")

    def take_over() -> None:
        with world.db.write() as session:
            lifecycle.requeue_export(session, row(world, export_id), world.settings, token=1)
        exporter(world).make_next()

    watcher = world.meanwhile(lambda: row(world, export_id).status == "running", take_over)
    slow.make_next()
    watcher.join()
    export = row(world, export_id)
    assert (export.status, export.lease_token) == ("ready", 2)
    assert [key.split("/")[4] for key in blobs(world, export_id)] == ["2"]


def test_a_model_that_is_gone_cannot_be_exported(world: World) -> None:
    job_id = trained(world)
    export_id = ask(world, job_id, "gguf")
    with world.db.write() as session:
        session.delete(session.scalars(select(FineTunedModelRow).where(FineTunedModelRow.job_id == job_id)).one())
    exporter(world).make_next()
    export = row(world, export_id)
    assert export.error is not None
    assert (export.status, export.error["code"]) == ("failed", "model_deleted")


def test_a_store_that_is_away_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    export_id = ask(world, trained(world), "gguf")
    put, calls = type(world.storage).put, threading.Semaphore(1)

    def flaky(storage: Any, key: str, chunks: Any) -> Any:
        if calls.acquire(blocking=False):
            raise StorageUnavailable("The blob store is away.")
        return put(storage, key, chunks)

    monkeypatch.setattr(type(world.storage), "put", flaky)
    exporter(world).make_next()
    assert row(world, export_id).status == "ready"


def test_the_real_program_exports_a_really_trained_model(tmp_path: Path, tiny_base: Path) -> None:
    from transformers import AutoTokenizer

    world = World(tmp_path, base=tiny_base, lease_seconds=120)
    job_id = world.job(n_epochs=1)
    from service.worker.run import WorkerRuntime, run_job

    commands = preloaded_commands()
    run_job(WorkerRuntime(context=world.context, owner="worker-1", stop=world.stop, **commands), job_id)
    export_id = ask(world, job_id, "gguf", precision="q8_0")
    Exporter(
        world.context,
        owner="worker-1",
        command=start_preloaded().command("trainer.programs.export"),
        prepare_command=commands["prepare_command"],
    ).make_next()
    export = row(world, export_id)
    assert export.status == "ready", export.error
    assert ExportCheck.model_validate(export.verification).rounding_error < 0.1
    assert export.blob_key is not None
    (tmp_path / "m.gguf").write_bytes(world.read(export.blob_key))
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path), gguf_file="m.gguf")
    assert tokenizer.decode(tokenizer("你好")["input_ids"]) == "你好"
    world.close()
