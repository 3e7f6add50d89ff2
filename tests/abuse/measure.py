"""What the quiet tenant waited for in a span of time, and what is held against an attack."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.abuse.attacks.base import Answers, Attack
from tests.abuse.memory import LIMIT_MIB, Peaks
from tests.abuse.scale import FULL
from tests.abuse.tenant import READS_A_SECOND, WAITS, Sample, Wait
from tests.fixtures.plain_http import quantile

GOAL_P99_SECONDS = 0.5
GOAL_RATIO = 3.0
_SMALL_SECONDS = 0.5
"""A wait up to this is no wait that a tenant feels, however short it was before."""
_NOISE_RATIO, _NOISE_P99_SECONDS, _NOISE_SECONDS = 20.0, 20.0, 90.0
"""The short form runs beside other tests on a busy machine: it finds what hangs, not what is slow."""
_ANSWERS = (503, 505)
"""The 5xx that are answers: a part of the service is busy, and the same request may be sent again; no such HTTP."""


@dataclass(frozen=True)
class Span:
    """The quiet tenant's waits in a span of time, in seconds."""

    p99: float
    reads: int
    worst: dict[Wait, float]
    """The longest wait of each kind that touched the span."""
    faults: tuple[str, ...]


def read_samples(record: Path) -> list[Sample]:
    """Return what the tenant has recorded until now."""
    text = record.read_text(encoding="utf-8")
    return [Sample(**json.loads(line)) for line in text[: text.rfind("\n") + 1].splitlines()]


def span_of(samples: Sequence[Sample], begin: float, end: float) -> Span:
    """Summarize the waits that were under way at any time from `begin` to `end`."""
    inside = [sample for sample in samples if sample.at < end and sample.end > begin]
    reads = [sample.seconds for sample in inside if sample.kind == "read" and sample.at >= begin]
    worst: dict[Wait, float] = {kind: max((s.seconds for s in inside if s.kind == kind), default=0.0) for kind in WAITS}
    faults = tuple(f"{sample.kind}: {sample.fault}" for sample in inside if sample.fault)
    return Span(quantile(reads, 0.99) if reads else 0.0, len(reads), worst, faults)


def is_complete(samples: Sequence[Sample], begin: float, end: float, kinds: Sequence[Wait]) -> bool:
    """Whether no wait that began in the span is still under way."""
    reads = sum(sample.kind == "read" and begin <= sample.at < end for sample in samples)
    enough = reads >= int((end - begin) * READS_A_SECOND) - 1
    return enough and all(any(s.kind == kind and s.end >= end for s in samples) for kind in kinds)


def find_shortfalls(quiet: Span, attacked: Span, *, kinds: Sequence[Wait] = WAITS) -> list[str]:
    """Return a sentence for each promise to the quiet tenant that an attack broke."""
    found = [f"the quiet tenant: {fault}" for fault in attacked.faults[:3]]
    most = GOAL_P99_SECONDS if FULL else max(_NOISE_RATIO * quiet.p99, _NOISE_P99_SECONDS)
    if attacked.p99 > most:
        found.append(f"reads: p99 is {attacked.p99 * 1000:.0f} ms, more than {most * 1000:.0f}")
    for kind in kinds:
        most = GOAL_RATIO * quiet.worst[kind] if FULL else _NOISE_RATIO * quiet.worst[kind]
        most = max(most, _SMALL_SECONDS if FULL else _NOISE_SECONDS)
        if attacked.worst[kind] > most:
            found.append(f"{kind}: took {attacked.worst[kind]:.1f} s, more than {most:.1f}")
    return found


def find_bad_answers(attack: type[Attack], answers: Answers) -> list[str]:
    """Return a sentence for each way in which the service's answers to an attack are not as they must be."""
    found = [f"an error in no proper form: {example}" for example in answers.malformed]
    bad = {code: n for code, n in answers.statuses.items() if int(code) >= 500 and int(code) not in _ANSWERS}
    if bad:
        found.append(f"answers of 5xx: {bad}")
    if answers.hung:
        found.append(f"{answers.hung} requests had no answer; {'; '.join(answers.notes)}")
    if answers.broken and not attack.breaks:
        found.append(f"{answers.broken} connections ended without an answer")
    if not answers.requests:
        found.append("the attack sent nothing")
    return found


def find_large_processes(peaks: Peaks) -> list[str]:
    """Return a sentence for each process that took too much memory."""
    found = [f"{role} was killed before it took the machine's memory" for role in peaks.killed]
    large = {role: peak for role, peak in peaks.bound().items() if peak > LIMIT_MIB}
    return found + [f"{role}: {peak:.0f} MiB, more than {LIMIT_MIB:.0f}" for role, peak in large.items()]
