"""`make demo`: a real chat model learns to triage tickets, through the real API, queue, worker and trainer.

Run it with `python -m examples.ticket_triage.demo`. It ends with 0 only if every step happened.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from burnish import Burnish, BurnishError, Job
from burnish.job_arguments import Hyperparameters
from burnish.progress import JobProgress
from examples.ticket_triage.behaviour import same_topic, shows_behaviour
from examples.ticket_triage.compare import Messages, answer_both_ways
from examples.ticket_triage.receiver import WebhookReceiver

_HERE = Path(__file__).parent
_MODEL = "smollm2-135m-instruct"
_HYPERPARAMETERS: Hyperparameters = {"n_epochs": 1, "batch_size": 4, "lora": {"rank": 16, "alpha": 32}}
_HELD_OUT = 24
_SHOWN = 8
_ANSWER_SHOWN = 120
_LEAST_SHARE = 0.75
_FIRST_TIME = "; half a minute prepares the base model, which a second run reuses"
_PORT = 8000

_console = Console()


class DemoFailed(Exception):
    """The demo cannot continue; the message is a sentence."""


def main() -> int:
    """Run the demo and return its exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(".burnish"), help="the service's data folder")
    arguments = parser.parse_args()
    # So that a plain `kill` stops the service too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = time.monotonic()
    try:
        _run(arguments.data.resolve())
    except (DemoFailed, BurnishError, TimeoutError, OSError) as error:
        _console.print(Text(f"The demo failed: {error}", style="bold red"))
        return 1
    except KeyboardInterrupt:
        _console.print(Text("Interrupted; everything that was started is stopped.", style="yellow"))
        return 130
    _say(f"Done in {_duration(time.monotonic() - started)}; everything that was started is stopped.")
    return 0


def _run(data: Path) -> None:
    cached = any((data / "bases").glob("*/base.json"))
    _console.rule("[bold]Burnish demo: a chat model learns to triage support tickets")
    _say(f"This takes 2 to 4 minutes on two cores, most of it training{'' if cached else _FIRST_TIME}.")
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    port = _free_port()
    with (
        Burnish(base_url=f"http://127.0.0.1:{port}/v1", api_key="for-verifying-only") as verifier,
        WebhookReceiver(client=verifier, secret=secret) as receiver,
        _service(data, port, receiver.url, secret),
        Burnish(**json.loads((data / "client.json").read_text())) as client,
    ):
        job = _train(client)
        notice = receiver.wait_for(job.id, seconds=60)
        if notice.type != "fine_tuning.job.succeeded":
            raise DemoFailed(f"The webhook said {notice.type}.")
        _say(f"Webhook received, its signature is valid: {notice.type} for {job.id}")
        results = _fresh_folder(data / "demo")
        adapter = client.jobs.download_adapter(job.id, results / "adapter", extract=True)
        report = results / "report.html"
        report.write_text(client.jobs.report_html(job.id), encoding="utf-8")
        _say(f"Adapter downloaded, its hashes are right: {adapter}")
    _compare(_base_folder(data), adapter)
    _say(f"The report: {report}", style="bold")


def _train(client: Burnish) -> Job:
    files: dict[str, str] = {}
    for name in ("train", "validation"):
        with _transfer_bar(f"Uploading {name}.jsonl") as advance:
            file = client.files.create(file=_HERE / f"{name}.jsonl", purpose="fine-tune", on_progress=advance)
        files[name] = file.id
    job = client.jobs.create(
        model=_MODEL,
        training_file=files["train"],
        validation_file=files["validation"],
        method="supervised",
        hyperparameters=_HYPERPARAMETERS,
        suffix="ticket-triage",
        seed=7,
    )
    _say(f"Job {job.id}: supervised fine-tuning with LoRA on {_MODEL}")
    with JobProgress(console=_console) as progress:
        job = client.jobs.wait(job.id, on_event=progress)
    _say(f"The job succeeded: {job.fine_tuned_model}, {job.trained_tokens:,} tokens trained")
    return job


def _compare(base: Path, adapter: Path) -> None:
    rows = [json.loads(line) for line in (_HERE / "validation.jsonl").read_text(encoding="utf-8").splitlines()]
    # Every second row, so that the Chinese ones, wherever they stand, are among them.
    rows = rows[:: len(rows) // _HELD_OUT][:_HELD_OUT]
    prompts: list[Messages] = [row["messages"][:-1] for row in rows]
    expected = [row["messages"][-1]["content"] for row in rows]
    with _transfer_bar("Answering held-out questions with plain transformers + PEFT") as advance:
        before, after = answer_both_ways(base, adapter, prompts, advance)
    table = Table(show_lines=True, title=f"{_SHOWN} of {len(rows)} held-out questions", expand=True)
    for heading in ("customer", "base model", "tuned model"):
        table.add_column(heading, ratio=1, overflow="fold")
    chinese = [index for index, prompt in enumerate(prompts) if not prompt[-1]["content"].isascii()]
    shown = sorted({*range(_SHOWN - len(chinese[:2])), *chinese[:2]})
    for index in shown:
        mark = "green" if shows_behaviour(after[index]) else "red"
        table.add_row(
            Text(prompts[index][-1]["content"]), Text(_cut(before[index]), style="dim"), Text(after[index], style=mark)
        )
    _console.print(table)
    count = len(rows)
    base_share = sum(map(shows_behaviour, before)) / count
    tuned_share = sum(map(shows_behaviour, after)) / count
    topic = sum(map(same_topic, after, expected)) / count
    _say(
        f"Answers in the desk's JSON form: base {base_share:.0%}, tuned {tuned_share:.0%} (of {count} questions)",
        "bold",
    )
    _say(f"With the right topic too: tuned {topic:.0%}")
    if tuned_share < _LEAST_SHARE or tuned_share <= base_share:
        raise DemoFailed(f"the tuned model shows the behaviour in only {tuned_share:.0%} of the answers.")


@contextmanager
def _service(data: Path, port: int, webhook_url: str, secret: str) -> Generator[None, None, None]:
    """Run `burnish-server up` for the length of the block, and stop it with all that it started."""
    environment = os.environ | {"BURNISH_WEBHOOK_URL": webhook_url, "BURNISH_WEBHOOK_SECRET": secret}
    command = [sys.executable, "-m", "service", "up", "--data", str(data), "--port", str(port), "--workers", "1"]
    # A first start prints the API key: its output goes into a file without a name, which is gone with the demo.
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait_until_ready(process, output.fileno())
            _say(f"The service runs at http://127.0.0.1:{port} (its logs: {data / 'logs'})")
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=90)


def _wait_until_ready(process: subprocess.Popen[bytes], output: int) -> None:
    deadline, said = time.monotonic() + 90, ""
    with _console.status("Starting Valkey, the API, the controller and a worker …"):
        while time.monotonic() < deadline:
            # Not by seek and read: the child writes at the position that it shares with this file.
            said = os.pread(output, 1 << 16, 0).decode(errors="replace")
            if "Burnish is ready at" in said:
                return
            if process.poll() is not None:
                raise DemoFailed(f"the service did not start: {said.strip()[-2000:]}")
            time.sleep(0.3)  # waiting for the child's HTTP server
    raise DemoFailed(f"the service was not ready within 90 seconds: {said.strip()[-500:]}")


def _free_port() -> int:
    """Return the usual port, or another one if that is in use."""
    for port in (_PORT, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise DemoFailed("No port of 127.0.0.1 is free.")


def _base_folder(data: Path) -> Path:
    return next((data / "bases").glob(f"{_MODEL}-*/config.json")).parent


def _fresh_folder(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


@contextmanager
def _transfer_bar(label: str) -> Generator[Bar, None, None]:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(*columns, console=_console) as progress:
        yield Bar(progress, label)


class Bar:
    """A progress bar that is moved by calls with (done, total)."""

    def __init__(self, progress: Progress, label: str) -> None:
        self._progress = progress
        self._task = progress.add_task(label, total=None)

    def __call__(self, done: int, total: int | None) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=done, total=total)


def _cut(text: str) -> str:
    return text if len(text) <= _ANSWER_SHOWN else text[:_ANSWER_SHOWN] + " …"


def _say(text: str, style: str = "") -> None:
    _console.print(Text(text, style=style), soft_wrap=True)


def _duration(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


if __name__ == "__main__":
    sys.exit(main())
