"""Traces by OpenTelemetry, if the environment names a collector. Otherwise nothing is imported and it costs nothing.

`OTEL_EXPORTER_OTLP_ENDPOINT` and the other variables are OpenTelemetry's own. A span never holds a message of an
error, a header or a body: only names, ids and numbers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Literal, ParamSpec, TypeVar

from service.kit.settings import SettingsError
from service.kit.version import VERSION

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

P = ParamSpec("P")
T = TypeVar("T")
Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attributes = Mapping[str, str | int | float | bool]

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
HEADER = "traceparent"
"""The W3C header, and the name of the column that carries a trace from process to process."""
_NANOSECONDS = 1e9

_tracer: Tracer | None = None


def set_up_tracing(role: str) -> None:
    """Send this process's spans to the collector that the environment names, if any. Raises SettingsError."""
    global _tracer
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise SettingsError(
            f"{ENDPOINTS[0]} asks for traces, and their packages are not installed. Install them with: "
            "pip install 'burnish-server[telemetry]'"
        ) from error
    service_attributes = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": f"burnish-{role}"}
    provider = TracerProvider(resource=Resource.create({"service.version": VERSION, **service_attributes}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))  # the provider sends the rest at exit
    _tracer = provider.get_tracer("burnish", VERSION)


@contextmanager
def span(
    name: str, attributes: Attributes | None = None, *, parent: str | None = None, kind: Kind = "internal"
) -> Generator[Span | None]:
    """Make the block a span: a child of `parent`, a `traceparent`, or else of the span around it. None without traces.

    What it raises marks the span as failed, by the error's class alone.
    """
    if _tracer is None:
        yield None
        return
    from opentelemetry.trace import SpanKind, StatusCode

    with _tracer.start_as_current_span(
        name,
        context=_parent_context(parent),
        kind=SpanKind[kind.upper()],
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield current
        except BaseException as error:
            current.set_status(StatusCode.ERROR, type(error).__name__)
            raise


def trace_calls(name: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make every call of a function a span."""

    def decorate_function(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def call_in_span(*args: P.args, **kwargs: P.kwargs) -> T:
            with span(name):
                return function(*args, **kwargs)

        return call_in_span

    return decorate_function


def record_span(
    name: str, begin: float, end: float, attributes: Attributes | None = None, *, parent: str | None = None
) -> None:
    """Add a span for what is over: from `begin` to `end`, in unix seconds."""
    if _tracer is not None:
        past = _tracer.start_span(
            name, context=_parent_context(parent), attributes=attributes, start_time=int(begin * _NANOSECONDS)
        )
        past.end(int(max(begin, end) * _NANOSECONDS))


def current_traceparent() -> str | None:
    """Return the span around the call as W3C's `traceparent`; None if there is none."""
    current_ids = _current_ids()
    return f"00-{current_ids[0]:032x}-{current_ids[1]:016x}-{current_ids[2]:02x}" if current_ids else None


def trace_id() -> str:
    """Return the trace that the call belongs to, in hex; empty if there is none."""
    current_ids = _current_ids()
    return f"{current_ids[0]:032x}" if current_ids else ""


def trace_environment() -> dict[str, str]:
    """Return what lets a child process continue the trace."""
    current = current_traceparent()
    return {"TRACEPARENT": current} if current else {}


def trace_headers() -> dict[str, str]:
    """Return what lets another process continue the trace, as HTTP headers."""
    current = current_traceparent()
    return {HEADER: current} if current else {}


def _current_ids() -> tuple[int, int, int] | None:
    if _tracer is None:
        return None
    from opentelemetry.trace import get_current_span

    span_context = get_current_span().get_span_context()
    return (
        (span_context.trace_id, span_context.span_id, int(span_context.trace_flags)) if span_context.is_valid else None
    )


def _parent_context(parent: str | None) -> Context | None:
    if not parent:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({HEADER: parent})
