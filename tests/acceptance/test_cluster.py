"""The processes of the compose file, with its very commands, on real PostgreSQL, Valkey and S3 by URL."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from burnish import Burnish
from tests.fixtures.compose import compose_commands
from tests.fixtures.postgres import run_postgres
from tests.fixtures.preloaded import start_preloaded
from tests.fixtures.processes import QUICK, clean_environment, free_port, jsonl, rows, wait_until
from tests.fixtures.scale import FULL
from tests.fixtures.seaweedfs import run_seaweedfs
from tests.fixtures.service import write_catalog
from tests.fixtures.valkey import run_valkey

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Generator[tuple[Burnish, OpenAI], None, None]:
    folder = tmp_path_factory.mktemp("cluster")
    port = free_port()
    with ExitStack() as stack:
        postgres = stack.enter_context(run_postgres())
        valkey = stack.enter_context(run_valkey())
        s3 = stack.enter_context(run_seaweedfs())
        environment = clean_environment(
            **QUICK,
            **s3.environment(),
            BURNISH_DATABASE_URL=postgres.url,
            BURNISH_REDIS_URL=valkey.url,
            BURNISH_STORAGE_URL=s3.url,
            BURNISH_SECRET_KEY="a secret of at least 32 characters, for tests",
            BURNISH_CATALOG=str(write_catalog(folder, tiny_base)),
        )

        def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "service", *arguments]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)
            assert done.returncode == 0, f"{name}: {done.stderr}"
            return done

        commands = {name: words[1:] for name, words in compose_commands().items()}
        engine_port = free_port()
        here = {"8000": str(port), "8100": str(engine_port), "0.0.0.0": "127.0.0.1"}
        for name in ("api", "engine"):
            commands[name] = [here.get(word, word) for word in commands[name]]
        environment["BURNISH_ENGINE_URL"] = f"http://127.0.0.1:{engine_port}"
        run("migrate", *commands["migrate"])
        made = run("keys", "keys", "create", "--project", "default", "--name", "test")
        key = next(word for word in made.stdout.split() if word.startswith("burnish-"))
        python = sys.executable if FULL else start_preloaded().python
        for name in ("api", "controller", "worker", "engine"):
            data = folder / name
            data.mkdir()
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            process = subprocess.Popen(
                [python if name in ("worker", "engine") else sys.executable, "-m", "service", *commands[name]],
                env=environment | {"BURNISH_DATA": str(data)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            stack.callback(process.wait, timeout=120)
            stack.callback(process.send_signal, signal.SIGTERM)

        def ready() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
            except httpx.HTTPError:
                return False

        wait_until(ready, what=f"the API: {(folder / 'api.log').read_text()}")
        url = f"http://127.0.0.1:{port}/v1"
        client = stack.enter_context(Burnish(base_url=url, api_key=key))
        yield client, stack.enter_context(OpenAI(base_url=url, api_key=key, _strict_response_validation=True))


def test_a_job_goes_through_the_cluster(cluster: tuple[Burnish, OpenAI], tmp_path: Path) -> None:
    client, official = cluster
    file = client.files.create(file=jsonl(rows(12)), filename="训练.jsonl")
    job = client.jobs.create(
        model="tiny",
        training_file=file.id,
        hyperparameters={"n_epochs": 1, "batch_size": 4, "lora": {"rank": 2, "alpha": 4}},
        metadata={"团队": "客服"},
    )
    ended = client.jobs.wait(job.id, timeout=300)
    assert ended.status == "succeeded"
    adapter = client.jobs.download_adapter(job.id, tmp_path / "adapter", extract=True)
    assert json.loads((adapter / "adapter_config.json").read_text())["r"] == 2
    _chats(official, ended.fine_tuned_model)
    assert [listed.id for listed in client.jobs.list(metadata={"团队": "客服"})] == [job.id]
    client.files.delete(file.id)
    assert file.id not in {listed.id for listed in client.files.list()}


def _chats(official: OpenAI, model: str | None) -> None:
    """The engine, in a process of its own, fetches the adapter from S3."""
    said = [
        official.chat.completions.create(
            model=name or "", messages=[{"role": "user", "content": "你好"}], max_tokens=4, temperature=0
        )
        for name in ("tiny", model)
    ]
    assert [answer.model for answer in said] == ["tiny", model]
    assert all(answer.usage and answer.usage.completion_tokens >= 1 for answer in said)
