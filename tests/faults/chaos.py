"""Kills processes at random, as often of each role, in an order and at times that a seed decides."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Self

import psutil

from tests.faults import ledger
from tests.faults.world import World

ROLES = ("api", "controller", "worker", "trainer")
EARLY = 0.2
"""The share of kills that may come before a trainer's first step."""


class Killer:
    """A context manager: beside its block it sends SIGKILL `times` times; its end waits for the last one."""

    def __init__(self, world: World, *, seed: int, times: int, shortest: float = 0.2, longest: float = 1.2) -> None:
        self.killed: Counter[str] = Counter()
        self.last = 0.0
        self._world = world
        self._random = random.Random(seed)
        self._times = times
        self._pause = (shortest, longest)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._kill_all, name="killer")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._ended.set()
        self._thread.join()

    def _kill_all(self) -> None:
        roles = [ROLES[number % len(ROLES)] for number in range(self._times)]
        self._random.shuffle(roles)
        for role in roles:
            time.sleep(self._random.uniform(*self._pause))
            early = self._random.random() < EARLY
            while not self._ended.is_set() and not self._kill(role, early=early):
                time.sleep(0.01)
            if self._ended.is_set():
                return
            self.killed[role] += 1
            self.last = time.monotonic()

    def _kill(self, role: str, *, early: bool) -> bool:
        """Kill one of a role, workers and trainers in the middle of a job. False where there is none now.

        `early` allows for those that have not made a step yet.
        """
        if role in ("api", "controller"):
            return self._world.processes[role].send(signal.SIGKILL)
        at_work = {entry.pid for entry in ledger.read(self._world.record) if entry.step}
        trainers = [process for process in self._world.trainers() if early or process.pid in at_work]
        running = sorted(trainers, key=lambda process: process.pid)
        with contextlib.suppress(psutil.Error):
            if running:
                trainer = self._random.choice(running)
                victim = trainer if role == "trainer" else trainer.parent()
                if victim is not None and victim.pid != os.getpid():
                    victim.kill()
                    return True
        return False
