"""`python -m tests.abuse.attacker NAME`: runs one attack in a process of its own.

The target comes as a line of JSON on the standard input. The process prepares the attack, prints `ready`, waits for
a line, attacks, prints what was answered as a line of JSON, and takes back what would go on.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from tests.abuse.attacks import ATTACKS
from tests.abuse.attacks.base import Answers, Attack, Target
from tests.abuse.scale import PATIENCE
from tests.fixtures.plain_pipes import read_line, write_line
from tests.fixtures.supervised import REPOSITORY

_FILES = 4096
_PREPARE_SECONDS = 180.0
_MARGIN = 15.0


class Attacker:
    """The attacker's process, from the side of the test."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float, log: Path) -> None:
        self._process = process
        self._seconds = seconds
        self._log = log

    def start(self) -> None:
        """Start the prepared attack."""
        write_line(self._process, "go")

    def await_answers(self) -> Answers:
        """Wait for the attack's end and return what was answered to it. Raises AssertionError."""
        return Answers(**json.loads(read_line(self._process, self._seconds + PATIENCE + 2 * _MARGIN)))

    def await_end(self) -> list[str]:
        """Wait until what the attack left is taken back. Return a sentence if it could not be."""
        try:
            status = self._process.wait(_PREPARE_SECONDS)
        except subprocess.TimeoutExpired:
            status = None
        return [] if status == 0 else [f"what the attack left could not be taken back: {_last_words(self._log)}"]


@contextmanager
def running_attacker(name: str, target: Target, log: Path) -> Generator[Attacker]:
    """Start the process and wait until it has prepared its attack; kill it at the end."""
    command = [sys.executable, "-m", "tests.abuse.attacker", name]
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, bufsize=0
        )
    with process:
        try:
            write_line(process, json.dumps(asdict(target)))
            assert read_line(process, _PREPARE_SECONDS) == "ready"
            yield Attacker(process, target.seconds, log)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}\n{log.read_text(errors='replace')[-3000:]}") from error
        finally:
            process.kill()


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "no answer"


async def _run(attack: Attack, seconds: float) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, stop.set)
    began = time.monotonic()
    try:
        async with asyncio.timeout(seconds + PATIENCE + _MARGIN):
            await attack.run(stop)
    except TimeoutError:
        attack.answers.hung += 1
        attack.answers.notes.append(f"the attack did not end within {time.monotonic() - began:.0f} s")


async def _main(attack: Attack) -> None:
    try:
        try:
            await attack.prepare()
            print("ready", flush=True)
            if not await asyncio.to_thread(sys.stdin.readline):
                return
            await _run(attack, attack.target.seconds)
            print(json.dumps(asdict(attack.answers)), flush=True)
            await attack.clean()
        except BaseException:
            await Attack.clean(attack)
            raise
    finally:
        attack.connections.close()


def main() -> None:
    """Run the attack that the command line names."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_FILES, hard), hard))
    # An attacker has a machine of its own: here it leaves the processors to the service as far as it can.
    os.nice(10)
    target = Target(**json.loads(sys.stdin.readline()))
    asyncio.run(_main(ATTACKS[sys.argv[1]](target)))


if __name__ == "__main__":
    main()
