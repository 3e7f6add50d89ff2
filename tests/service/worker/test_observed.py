"""What a worker's attempts leave in its metrics, its log and the trainer's environment."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.kit import metrics, tracing
from service.worker.observed import AttemptProgress
from service.worker.usage import MachineUsage
from tests.service.worker.world import World
from trainer.contract import events


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Generator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"))
    yield exporter
    provider.shutdown()


def value(metric: Any, end: str = "_total") -> float:
    (family,) = metric.collect()
    return sum(sample.value for sample in family.samples if sample.name.endswith(end))


def step(number: int, tokens: int) -> events.StepEvent:
    more = {"epoch": 0.1, "train_loss": 1.0, "learning_rate": 1e-4, "tokens_per_second": 1.0, "seconds_left": 1.0}
    return events.StepEvent.model_validate({"step": number, "total_steps": 9, "tokens_seen": tokens, **more})


@pytest.mark.slow
def test_an_attempt_is_one_span_with_its_parts_and_its_numbers(world: World, kept: InMemorySpanExporter) -> None:
    steps, tokens = value(metrics.TRAINING_STEPS), value(metrics.TRAINING_TOKENS)
    waited = value(metrics.QUEUE_SECONDS, "_count")
    with tracing.span("request"):
        job_id = world.job(traceparent=tracing.current_traceparent())
    world.run(job_id)
    assert world.row(job_id).state == "succeeded"
    spans = {span.name: span for span in kept.get_finished_spans()}
    names = {span.context.span_id: name for name, span in spans.items() if span.context}
    parents = {name: names[span.parent.span_id] for name, span in spans.items() if span.parent}
    assert parents == {
        **dict.fromkeys(("wait in queue", "claim", "attempt"), "request"),
        **dict.fromkeys(("stage", "train", "publish"), "attempt"),
        "training": "train",
    }
    assert spans["attempt"].attributes == {"burnish.job.id": job_id, "burnish.job.attempt": 1}
    assert value(metrics.TRAINING_STEPS) - steps == 4
    assert value(metrics.TRAINING_TOKENS) - tokens == 40
    assert value(metrics.QUEUE_SECONDS, "_count") - waited == 1
    assert value(metrics.BUSY, "") == 0


@pytest.mark.slow
def test_the_trainers_last_words_are_logged_with_its_job(world: World, caplog: pytest.LogCaptureFixture) -> None:
    from service.kit.log import _name_subject

    caplog.handler.addFilter(_name_subject)
    job_id = world.job()
    world.run(job_id, "silent_fault")
    (record,) = [record for record in caplog.records if "the last words on standard error" in record.getMessage()]
    assert (record.levelno, vars(record)["job_id"], vars(record)["attempt"]) == (logging.ERROR, job_id, 1)


def test_tokens_before_a_resumed_attempt_are_not_counted_again() -> None:
    before = value(metrics.TRAINING_TOKENS)
    AttemptProgress().add_events([step(1, 100), step(2, 250)])
    assert value(metrics.TRAINING_TOKENS) - before == 250
    AttemptProgress().add_events([step(3, 400), step(4, 480)])
    assert value(metrics.TRAINING_TOKENS) - before == 330


def test_what_a_trainer_uses_is_counted_while_it_runs() -> None:
    gpus, cpus = value(metrics.GPU_SECONDS), value(metrics.CPU_SECONDS)
    usage = MachineUsage(os.getpid(), gpus=2)
    began = time.monotonic()
    while time.monotonic() - began < 0.05:
        pass
    usage.count_usage()
    first = value(metrics.CPU_SECONDS)
    assert value(metrics.GPU_SECONDS) - gpus >= 0.1
    assert first > cpus
    MachineUsage(2**30, gpus=0).count_usage()  # it has gone
    assert value(metrics.CPU_SECONDS) == first
