"""Trainers as forks of a process that has imported torch already: a start takes a moment instead of five seconds.

`run_preloaded()` starts that process; `preloaded.py SOCKET MOMENT WORKDIR` stands for a trainer towards its worker: it
ends as the fork does, by the same signal, and hands SIGTERM on.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

REPOSITORY = Path(__file__).parents[3]
Command = tuple[str, ...]


@contextmanager
def run_preloaded() -> Generator[Command, None, None]:
    """Run the server; the value is the command to put in front of a moment and a work folder."""
    from trainer.programs.shell import ENVIRONMENT

    with tempfile.TemporaryDirectory(prefix="burnish-fork-") as folder:
        address = f"{folder}/socket"
        environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.trainer.killing.preloaded", "serve", address]
        with subprocess.Popen(command, env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            try:
                assert server.stdout.readline() == b"ready\n"
                yield sys.executable, "-S", str(Path(__file__)), address
            finally:
                server.kill()


def _serve(address: str) -> None:
    import matplotlib.pyplot  # noqa: F401 - what a run imports late
    import transformers.trainer  # noqa: F401

    import tests.trainer.killing.moments
    import trainer.engine
    import trainer.recipes
    import trainer.run

    for package in (trainer.engine, trainer.recipes):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "exporting" not in module.name:
                importlib.import_module(module.name)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                data, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 2)
                child = os.fork()
                if child == 0:
                    _become(json.loads(data), descriptors, tests.trainer.killing.moments.main)
                for descriptor in descriptors:
                    os.close(descriptor)
                connection.send(str(child).encode())
                _attend(connection, child)


def _become(call: dict[str, Any], descriptors: list[int], main: Callable[[list[str]], int]) -> None:
    """Turn this fork into the trainer that was asked for; never returns."""
    status = 1
    try:
        for target, descriptor in enumerate(descriptors, start=1):
            os.dup2(descriptor, target)
        os.chdir(call["folder"])
        os.environ.clear()
        os.environ.update(call["environment"])
        tempfile.tempdir = None
        status = main(call["arguments"])
    except Exception:  # noqa: BLE001 - as an interpreter would
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _attend(connection: socket.socket, child: int) -> None:
    """Tell the client how the fork ended; end it where the client is gone."""
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            try:
                connection.send(str(os.waitstatus_to_exitcode(status)).encode())
            except OSError:
                return
            return
        readable, _, _ = select.select([connection], [], [], 0.005)
        if readable and not connection.recv(1):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return


def _ask(address: str, arguments: list[str]) -> None:
    """Be the trainer: start a fork and end as it does."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        call = {"folder": os.getcwd(), "environment": dict(os.environ), "arguments": arguments}
        socket.send_fds(connection, [json.dumps(call).encode()], [1, 2])
        child = int(connection.recv(32))

        def hand_on(_number: int, _frame: FrameType | None) -> None:
            os.kill(child, signal.SIGTERM)

        signal.signal(signal.SIGTERM, hand_on)
        status = int(connection.recv(32))
    if status < 0:
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve(sys.argv[2])
    else:
        _ask(sys.argv[1], sys.argv[2:])
