"""A base's card over HTTP, and orders that are held against it and against the workers when they are placed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.bases import repository
from service.catalog import BaseModelEntry, CatalogFolderSource
from service.context import Context
from service.workers import repository as workers
from service.workers.capacity import GB, Capacity
from tests.fixtures.service import RunningApi, make_context, run_api, upload
from trainer.contract.base_model import BaseModelCard, MethodMemory
from trainer.contract.family import AdapterTargets, MethodFit
from trainer.contract.memory import ModelShape
from trainer.contract.methods import METHODS_BY_TYPE

LARGE = ModelShape(
    parameters=14_000_000_000,
    width=5120,
    layers=40,
    vocabulary=150_000,
    adapter_features=4_000_000,
    adapter_inputs=2_000_000,
)


def make_card(**more: Any) -> BaseModelCard:
    fields: dict[str, Any] = {
        "family": "qwen3",
        "family_known": True,
        "model_class": "Qwen3ForCausalLM",
        "parameters": LARGE.parameters,
        "context_length": 4096,
        "end_of_turn_ids": (2,),
        "end_of_turn_tokens": ("<|im_end|>",),
        "thinking_switch": "enable_thinking",
        "methods": {name: MethodFit(works=True) for name in METHODS_BY_TYPE},
        "adapter_targets": ("q_proj", "v_proj"),
        "targets": AdapterTargets(adapted=(), left_out=()),
        "memory": {name: MethodMemory(bf16=46 * GB, four_bit=20 * GB) for name in METHODS_BY_TYPE},
        "memory_assumptions": "Assumed.",
        "gguf": MethodFit(works=True),
        "shape": LARGE,
        **more,
    }
    return BaseModelCard(**fields)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with run_api(make_context(tmp_path_factory.mktemp("cards"))) as running:
        yield running


@pytest.fixture
def client(live: RunningApi) -> Iterator[httpx.Client]:
    with live.client() as opened:
        yield opened


def add_base(context: Context, base_id: str, *, problem: str | None = None, card: BaseModelCard | None = None) -> None:
    """Add a base as `models add` of another process does."""
    source = CatalogFolderSource(kind="folder", path=Path("/models") / base_id)
    entry = BaseModelEntry(id=base_id, source=source, created=7)
    with context.db.write() as session:
        repository.store_findings(session, entry, files={}, card=card, problem=problem, add=True)


@contextmanager
def living(context: Context, *capacities: Capacity) -> Iterator[None]:
    names = [f"w{number}" for number, _ in enumerate(capacities)]
    with context.db.write() as session:
        for name, capacity in zip(names, capacities, strict=True):
            workers.report_worker(session, name, name=name, capacity=capacity)
    try:
        yield
    finally:
        with context.db.write() as session:
            for name in names:
                workers.remove_worker(session, name)


def order(client: httpx.Client, model: str, kind: str = "supervised", **more: Any) -> httpx.Response:
    options = {name: more.pop(name) for name in ("resources",) if name in more}
    method = {"type": kind, kind: {"hyperparameters": more}}
    body = {"model": model, "training_file": upload(client).json()["id"], "method": method, **options}
    return client.post("/fine_tuning/jobs", json=body)


def error_of(answer: httpx.Response) -> tuple[str, str | None, str | None]:
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    return error["message"], error["param"], error["code"]


def warnings_of(client: httpx.Client, answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    events = client.get(f"/fine_tuning/jobs/{answer.json()['id']}/events").json()["data"]
    return [event["message"] for event in events if event["level"] == "warn"]


def gpu(gigabytes: float | None, *, four_bit: bool = True) -> Capacity:
    memory = None if gigabytes is None else int(gigabytes * GB)
    return Capacity(gpus=1, gpu_memory=memory, trains_in_4bit=four_bit)


def test_the_card_of_a_new_base_is_shown_without_a_restart(live: RunningApi, client: httpx.Client) -> None:
    assert client.get("/models/qwen3-14b").status_code == 404
    card = make_card()
    add_base(live.context, "qwen3-14b", card=card)
    shown = client.get("/models/qwen3-14b").json()
    assert shown["card"] == card.model_dump(mode="json")
    assert (shown["id"], shown["object"], shown["created"], shown["problem"]) == ("qwen3-14b", "model", 7, None)
    assert "qwen3-14b" in [model["id"] for model in client.get("/models").json()["data"]]
    tiny = client.get("/models/tiny").json()
    assert (tiny["card"], tiny["problem"]) == (None, None)
    with live.context.db.write() as session:
        repository.delete_base_row(session, "qwen3-14b")


def test_an_order_on_a_broken_base_is_refused_with_its_sentence(live: RunningApi, client: httpx.Client) -> None:
    sentence = "The base model in /models/坏 cannot be used: config.json is missing. Copy it there."
    add_base(live.context, "broken", problem=sentence)
    assert client.get("/models/broken").json()["problem"] == sentence
    assert error_of(order(client, "broken")) == (sentence, "model", "base_model_unavailable")


def test_an_order_is_held_against_the_card(live: RunningApi, client: httpx.Client) -> None:
    methods = {name: MethodFit(works=True) for name in METHODS_BY_TYPE}
    methods["dpo"] = MethodFit(works=False, reason="It has no cache.")
    add_base(live.context, "partial", card=make_card(methods=methods))
    assert error_of(order(client, "partial", "dpo"))[:2] == (
        "The base model partial cannot be trained by dpo: It has no cache.",
        "model",
    )
    message, param, _ = error_of(order(client, "partial", lora={"target_modules": ["self_attn.q_proj", "c_attn"]}))
    assert message.startswith("The base model partial has no target modules named c_attn; those it has are: q_proj, v")
    assert param == "method.supervised.hyperparameters.lora.target_modules"
    assert order(client, "partial", lora={"target_modules": ["self_attn.q_proj"]}).status_code == 200


def test_4bit_without_a_gpu_is_refused(live: RunningApi, client: httpx.Client) -> None:
    param = "method.dpo.hyperparameters.quantization"
    with living(live.context, Capacity(), Capacity()):
        message, named, _ = error_of(order(client, "tiny", "dpo", quantization="4bit"))
        assert message.startswith("quantization 4bit needs a GPU, which none of the 2 running worker(s) has: use none")
        assert named == param
    with living(live.context, gpu(80, four_bit=False)):
        assert "needs the Python package bitsandbytes" in error_of(order(client, "tiny", "dpo", quantization="4bit"))[0]
    message, named, _ = error_of(order(client, "tiny", "dpo", quantization="4bit", resources={"gpus": 0}))
    assert (message.startswith("quantization 4bit needs a GPU, and resources.gpus is 0"), named) == (True, param)
    with living(live.context, Capacity(), gpu(80)):
        accepted = order(client, "tiny", "dpo", quantization="4bit")
        assert warnings_of(client, accepted) == []
        # No worker without a GPU may take it.
        assert accepted.json()["resources"]["gpus"] == 1


def test_without_any_worker_4bit_is_accepted_with_a_warning(client: httpx.Client) -> None:
    (warning,) = warnings_of(client, order(client, "tiny", quantization="4bit"))
    assert warning.startswith("No worker is running, so whether one has the GPU that this job needs is not known")
    assert warnings_of(client, order(client, "tiny")) == []


def test_memory_is_held_against_the_largest_gpu(live: RunningApi, client: httpx.Client) -> None:
    add_base(live.context, "large", card=make_card())
    with living(live.context, gpu(24), gpu(16)):
        message, param, _ = error_of(order(client, "large"))
        assert message == (
            "supervised on large needs about 58 GB of GPU memory, the largest worker has 24: choose a smaller base, or "
            "start a worker with more memory."
        )
        assert param == "model"
    with living(live.context, gpu(40)):
        assert error_of(order(client, "large"))[0].endswith("the largest worker has 40: use quantization 4bit.")
        assert warnings_of(client, order(client, "large", quantization="4bit")) == []
        assert "a smaller base" in error_of(order(client, "large", "pretraining", weights="full"))[0]
    with living(live.context, gpu(40), gpu(80)):
        (warning,) = warnings_of(client, order(client, "large"))
        assert warning.startswith("supervised on large needs about 58 GB of GPU memory, which 1 of 2 running workers")
        assert "resources.gpu_memory_gb 58" in warning
    with living(live.context, gpu(None)):
        assert warnings_of(client, order(client, "large")) == []
    with living(live.context, gpu(40)):
        assert warnings_of(client, order(client, "large", resources={"gpus": 0})) == []


def test_what_an_order_refuses_a_preview_refuses(live: RunningApi, client: httpx.Client) -> None:
    add_base(live.context, "large", card=make_card())
    with living(live.context, gpu(24)):
        made = order(client, "large")
        body = {"model": "large", "training_file": upload(client).json()["id"]}
        seen = client.post("/fine_tuning/jobs/preview", json=body)
    assert (seen.status_code, seen.json()) == (made.status_code, made.json())
