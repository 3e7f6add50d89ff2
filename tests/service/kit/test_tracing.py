from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Generator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.kit import tracing
from service.kit.log import carry_context
from service.kit.settings import SettingsError


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Generator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"))
    yield exporter
    provider.shutdown()


def parents(spans: tuple[ReadableSpan, ...]) -> dict[str, str | None]:
    names = {span.context.span_id: span.name for span in spans if span.context}
    return {span.name: names.get(span.parent.span_id) if span.parent else None for span in spans}


def test_without_a_collector_nothing_is_imported_or_recorded() -> None:
    code = (
        "import sys; from service.kit import tracing; tracing.set_up_tracing('api')\n"
        "with tracing.span('x', {'a': 1}) as span: assert span is None\n"
        "tracing.record_span('y', 0, 1)\n"
        "assert (tracing.current_traceparent(), tracing.trace_id(), tracing.trace_environment()) == (None, '', {})\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    environment = {"PATH": "/usr/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_missing_packages_are_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingsError, match=r"pip install 'burnish-server\[telemetry\]'"):
        tracing.set_up_tracing("api")


def test_spans_nest_and_a_traceparent_goes_to_another_process(kept: InMemorySpanExporter) -> None:
    with tracing.span("request", kind="server"):
        carried_over = tracing.current_traceparent()
        trace = tracing.trace_id()
    assert carried_over is not None
    assert carried_over.split("-")[1] == trace
    assert len(carried_over) == 55

    @tracing.trace_calls("inner")
    def inner() -> str | None:
        return tracing.trace_environment()["TRACEPARENT"]

    with tracing.span("attempt", parent=carried_over):
        assert inner() != carried_over
        tracing.record_span("phase", 10.0, 12.5, {"n": 1})
    spans = kept.get_finished_spans()
    assert parents(spans) == {"request": None, "attempt": "request", "inner": "attempt", "phase": "attempt"}
    assert {span.context.trace_id for span in spans if span.context} == {int(trace, 16)}
    phase = next(span for span in spans if span.name == "phase")
    assert (phase.start_time, phase.end_time) == (10 * 10**9, 12_500_000_000)


def test_a_thread_keeps_the_trace(kept: InMemorySpanExporter) -> None:
    with tracing.span("outer"):
        thread = threading.Thread(target=carry_context(lambda: tracing.record_span("beside", 1, 2)))
        thread.start()
        thread.join()
    assert parents(kept.get_finished_spans()) == {"outer": None, "beside": "outer"}


def test_an_error_is_recorded_by_its_class_alone(kept: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="hunter2"), tracing.span("broken"):
        raise ValueError("the password is hunter2")
    (span,) = kept.get_finished_spans()
    assert span.status.description == "ValueError"
    assert "hunter2" not in span.to_json()


def test_a_foreign_traceparent_that_is_none_begins_a_trace(kept: InMemorySpanExporter) -> None:
    with tracing.span("request", parent="00-nonsense"):
        assert tracing.current_traceparent()
    (span,) = kept.get_finished_spans()
    assert span.parent is None
