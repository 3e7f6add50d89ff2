"""The cluster that is attacked: every role of the service on one database, with its quiet tenant at work."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import func, select

from service.keys.service import Scope, create_key
from service.tables.audit import AuditRow
from tests.abuse import measure
from tests.abuse.attacker import running_attacker
from tests.abuse.attacks.base import Attack, Target
from tests.abuse.memory import LIMIT_MIB, WITH_TORCH, resident_mib, watched
from tests.abuse.report import Finding
from tests.abuse.scale import ATTACK_SECONDS, FULL, JOB_PAUSE_SECONDS, PATIENCE, QUIET_SECONDS, REST_SECONDS
from tests.abuse.tenant import WAITS, Place, Wait
from tests.fixtures.plain_pipes import read_line, write_line
from tests.fixtures.preloaded import start_preloaded
from tests.fixtures.processes import wait_until
from tests.fixtures.roles import Kind, Roles, running_roles
from tests.fixtures.supervised import REPOSITORY

_OPEN_FILES = 160
_AUDIT_BURST = 100
_SHOWN_LOG = 4000
_LARGE_MIB = LIMIT_MIB / 2
_START_SECONDS, _SETTLE_SECONDS = 500.0, 420.0
_WAITS_OF_SHORT: Sequence[Wait] = tuple(wait for wait in WAITS if wait != "job")
"""The short form looks at jobs once, after all attacks: each takes longer than several of those."""


@dataclass
class Cluster:
    """Roles, the quiet tenant's record, and what that tenant waits when nobody attacks."""

    database: Kind
    roles: Roles
    record: Path
    quiet: measure.Span
    first_attack: float | None = None
    """When it began, by the monotonic clock."""

    def attack(self, kinds: Sequence[type[Attack]]) -> list[Finding]:
        """Run attacks at the same time and say what came of each. Raises AssertionError if one could not be run.

        What the quiet tenant waits, and what the processes take, they do together.
        """
        self._start_fresh()
        targets = {kind: self._new_target(kind) for kind in kinds}
        waits = WAITS if FULL else _WAITS_OF_SHORT
        with ExitStack() as stack:
            attackers = {
                kind: stack.enter_context(running_attacker(kind.name, target, self.roles.folder / "attacker.txt"))
                for kind, (target, _) in targets.items()
            }
            audited = {kind: self._audit_rows(project_id) for kind, (_, project_id) in targets.items()}
            with watched(self._pids) as peaks:
                begin = time.monotonic()
                self.first_attack = self.first_attack or begin
                for attacker in attackers.values():
                    attacker.start()
                answers = {kind: attacker.await_answers() for kind, attacker in attackers.items()}
                end = time.monotonic()
            audited = {kind: self._audit_rows(targets[kind][1]) - before for kind, before in audited.items()}
            left = {kind: attacker.await_end() for kind, attacker in attackers.items()}
        together = measure.find_large_processes(peaks)
        together += [f"{role} ended" for role, pid in self._pids().items() if pid is None]
        attacked, late = self._waits(begin, end, waits)
        together += late + measure.find_shortfalls(self.quiet, attacked, kinds=waits)
        time.sleep(REST_SECONDS)
        findings: list[Finding] = []
        for kind in kinds:
            alone = left[kind] + measure.find_bad_answers(kind, answers[kind])
            if kind.most_audit_rows is not None and audited[kind] > _AUDIT_BURST + kind.most_audit_rows * (end - begin):
                alone.append(f"{audited[kind]} rows of the audit log in {end - begin:.0f} s")
            findings.append(
                Finding(
                    kind,
                    self.database,
                    self.quiet,
                    attacked,
                    peaks,
                    answers[kind],
                    audited[kind],
                    waits,
                    alone + together,
                )
            )
        return findings

    def errors_logged(self) -> list[str]:
        """Return the ends of the logs of processes that have logged errors, for the message of a failed test."""
        logs = {role: process.log.read_text(errors="replace") for role, process in self.roles.processes.items()}
        return [
            f"--- {role}\n{log[log.rindex('ERROR') :][:_SHOWN_LOG]}" for role, log in logs.items() if "ERROR" in log
        ]

    def find_late_jobs(self) -> list[str]:
        """Return a sentence for each promise about jobs that the attacks, all together, broke.

        It waits for one job that the attacks met, not for the one that is under way: the full form does.
        """
        begin, end = self.first_attack or time.monotonic(), time.monotonic()
        _, late = self._waits(begin, begin, ("job",))
        jobs = [sample for sample in measure.read_samples(self.record) if sample.kind == "job"]
        attacked = measure.span_of(jobs, begin, end)
        return late + measure.find_shortfalls(self.quiet, attacked, kinds=("job",))

    def _waits(self, begin: float, end: float, kinds: Sequence[Wait]) -> tuple[measure.Span, list[str]]:
        """Wait until what was under way in the span is over, and summarize it."""
        late: list[str] = []
        try:
            await_span(self.record, begin, end, kinds, seconds=_SETTLE_SECONDS)
        except AssertionError as error:
            late.append(str(error))
        return measure.span_of(measure.read_samples(self.record), begin, end), late

    def _pids(self) -> dict[str, int | None]:
        return {role: process.pid for role, process in self.roles.processes.items()}

    def _start_fresh(self) -> None:
        """Start again what has ended, and what is still large from the last attack: this one is judged by itself."""
        for role, process in self.roles.processes.items():
            if role not in WITH_TORCH and process.pid and resident_mib(process.pid) > _LARGE_MIB:
                process.stop()
                process.held_back = False
            process.tend()
        try:
            self.roles.wait_until_ready(PATIENCE)
        except AssertionError:  # they still work at the last attack
            for role, process in self.roles.processes.items():
                if role.startswith("api-"):
                    process.kill()
                    process.tend()
            self.roles.wait_until_ready()

    def _new_target(self, kind: type[Attack]) -> tuple[Target, str]:
        """Make a project and keys for an attack, so that none pays for what another has used up."""
        project = f"hostile: {kind.name}"

        def key(name: str, *scopes: Scope) -> tuple[str, str]:
            with self.roles.context.db.write() as session:
                row, token = create_key(session, self.roles.context.hmac_key, project=project, name=name, scopes=scopes)
                return row.project_id, token

        project_id, token = key("all", "read", "write")
        return Target(self.roles.url, token, key("reader", "read")[1], ATTACK_SECONDS), project_id

    def _audit_rows(self, project_id: str) -> int:
        with self.roles.context.db.read() as session:
            query = select(func.count()).select_from(AuditRow).where(AuditRow.project_id == project_id)
            return session.scalar(query) or 0


@contextmanager
def running_cluster(kind: Kind, base: Path) -> Generator[Cluster]:
    """Run the roles and the quiet tenant, and measure that one alone first."""
    with running_roles(
        kind,
        controller=True,
        base=base,
        api_files=_OPEN_FILES,
        trainer_python=sys.executable if FULL else start_preloaded().python,
        python_graders="on",
        webhook_allowed_networks="127.0.0.0/8",
        trainer_threads="1",
        log_format="text",
    ) as roles:
        record = roles.folder / "quiet.jsonl"
        with _running_tenant(Place(roles.url, roles.key, str(record), JOB_PAUSE_SECONDS), roles):
            begin = time.monotonic()
            time.sleep(QUIET_SECONDS)
            end = time.monotonic()
            await_span(record, begin, end, WAITS if FULL else _WAITS_OF_SHORT, seconds=_SETTLE_SECONDS)
            quiet = measure.span_of(measure.read_samples(record), begin, end)
            if not FULL:  # the first job has to do: it made the base ready too
                first = next(sample for sample in measure.read_samples(record) if sample.kind == "job")
                quiet.worst["job"] = first.seconds
            assert not quiet.faults, quiet.faults
            yield Cluster(kind, roles, record, quiet)


def await_span(record: Path, begin: float, end: float, kinds: Sequence[Wait], *, seconds: float) -> None:
    """Wait until all waits that touched a span are over. Raises AssertionError."""
    wait_until(
        lambda: measure.is_complete(measure.read_samples(record), begin, end, kinds),
        what=f"the quiet tenant's reads, {', '.join(kinds)}",
        seconds=seconds,
    )


@contextmanager
def _running_tenant(place: Place, roles: Roles) -> Generator[None]:
    log = roles.folder / "tenant.txt"
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.abuse.tenant"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            bufsize=0,
        )
    with process:
        try:
            write_line(process, json.dumps(asdict(place)))
            try:
                assert read_line(process, _START_SECONDS) == "ready"
            except AssertionError as error:
                raise AssertionError(f"{error}\n{log.read_text()[-3000:]}\n{roles.logs()[-5000:]}") from error
            yield
        finally:
            process.kill()
