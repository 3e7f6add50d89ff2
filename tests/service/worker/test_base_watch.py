"""What a worker sees of base models: broken ones, changed ones, repaired ones, and those that are added meanwhile."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.bases import repository
from service.catalog import BaseModelEntry, CatalogFolderSource
from service.kit.db import Database
from service.tables.base_models import BaseModelRow
from service.worker.base_watch import BaseWatch
from tests.fixtures.preloaded import start_preloaded
from tests.service.worker.world import World, eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def world(tmp_path: Path, tiny_base: Path) -> Iterator[World]:
    made = World(tmp_path, base=shutil.copytree(tiny_base, tmp_path / "模型"))
    yield made
    made.close()


def watch(world: World) -> BaseWatch:
    return BaseWatch(world.context, command=start_preloaded().command("trainer.programs.inspect_base"))


def row(db: Database, base: str = "tiny") -> BaseModelRow:
    with db.read() as session:
        found = repository.find_base_row(session, base)
    assert found is not None
    return found


def test_a_worker_makes_cards_and_says_what_is_missing(world: World) -> None:
    with watch(world):
        eventually(lambda: world.context.catalog.find_base("tiny") is not None and has_card(world))
    assert row(world.db).card["parameters"] == 90624  # type: ignore[index]
    assert "absent does not exist on this machine" in (row(world.db, "absent").problem or "")


def has_card(world: World) -> bool:
    with world.db.read() as session:
        found = repository.find_base_row(session, "tiny")
    return found is not None and found.card is not None


def test_a_base_that_is_broken_and_repaired(world: World, tmp_path: Path) -> None:
    looks, config = watch(world), tmp_path / "模型" / "config.json"
    content = config.read_bytes()
    config.write_bytes(content[:50])
    looks.look_at_all()
    assert "config.json is not valid JSON" in (row(world.db).problem or "")
    assert row(world.db).card is None
    config.write_bytes(content)
    looks.look_at_all()
    assert (row(world.db).problem, row(world.db).card is None) == (None, False)


def test_a_changed_folder_is_noticed_and_what_was_trained_on_it_is_protected(world: World, tmp_path: Path) -> None:
    looks, folder = watch(world), tmp_path / "模型"
    looks.look_at_all()
    first, config = world.job(), (folder / "config.json").read_bytes()
    world.run(first)
    assert world.row(first).state == "succeeded"
    (folder / "config.json").write_bytes(config + b" ")
    looks.look_at_all()
    problem = row(world.db).problem or ""
    assert problem.startswith(f"The base model tiny in {folder} has changed since it was added (config.json), and what")
    assert f"burnish-server models add {folder} --id NEW" in problem
    # This machine has a copy of the files as they were: a job that was ordered before goes on with that.
    second = world.job()
    world.run(second)
    assert world.row(second).state == "succeeded"
    # Another machine has none, and must not make one of other weights.
    shutil.rmtree(world.settings.bases)
    third = world.job()
    world.run(third)
    error = world.row(third).error or {}
    assert (world.row(third).state, error["code"]) == ("failed", "base_model_unavailable")
    assert "has changed since it was added (config.json)" in error["message"]
    (folder / "config.json").write_bytes(config)
    looks.look_at_all()
    assert row(world.db).problem is None


def test_a_base_that_was_added_meanwhile_is_looked_at(world: World, tiny_base: Path) -> None:
    looks = watch(world)
    looks.look_at_all()
    source = CatalogFolderSource(kind="folder", path=tiny_base)
    entry = BaseModelEntry(id="later", source=source)
    with world.db.write() as session:
        repository.store_findings(session, entry, files={"config.json": "0" * 64}, card=None, problem=None, add=True)
    world.context.catalog.find_base("later")
    looks.look_at_all()
    assert "has changed since it was added" in (row(world.db, "later").problem or "")


def test_a_missing_folder_of_one_machine_of_a_cluster_is_not_everyones(world: World, tmp_path: Path) -> None:
    looks = watch(world)
    looks.look_at_all()
    settings = world.settings.model_copy(update={"database_url": "postgresql://elsewhere/x"})
    object.__setattr__(world.context, "settings", settings)
    shutil.rmtree(tmp_path / "模型")
    looks.look_at_all()
    assert row(world.db).problem is None
