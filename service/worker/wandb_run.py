"""Keeps one run of Weights & Biases: a program of its own, because its library may wait for its server for long.

`python -m service.worker.wandb_run` reads JSON lines: first the run's `RunOpening`, then one `RunOrder` each. It
answers on standard output, a line a stage: `{"url", "step"}` once the run is open (`step` is the first that it lacks),
`{"finished": true}` once everything has arrived, or `{"problem"}` alone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, Literal, TypedDict

import wandb


class RunOpening(TypedDict):
    """Which run: there is one for each job and project, however many attempts the job takes."""

    api_key: str
    base_url: str | None
    entity: str | None
    project: str
    run_id: str
    name: str
    tags: list[str]
    config: dict[str, Any]
    folder: str


class RunOrder(TypedDict, total=False):
    """What to do: `config` adds to the run's configuration, `row` has a step's metrics, `end` ends the program."""

    kind: Literal["config", "row", "end"]
    values: dict[str, Any]
    step: int
    exit_code: int
    preempted: bool
    """With `end`: the job resumes later, in another attempt."""


OPENING_SECONDS = 60.0
_TRANSMIT_SECONDS = 2.0


def main() -> int:
    """Open the run, carry out the orders, end. Return 1 if the run could not be opened."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # the library's own words do not belong among the answers

    def write_answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    try:
        run = _open_run(json.loads(sys.stdin.readline()))
    except Exception as error:  # noqa: BLE001 - whatever the library raises, the job's owner reads it
        write_answer(problem=str(error) or type(error).__name__)
        return 1
    write_answer(url=run.url, step=run.starting_step)
    for line in sys.stdin:
        order: RunOrder = json.loads(line)
        if _execute_order(run, order):
            write_answer(finished=True)
            return 0
    return 1


def _open_run(opening: RunOpening) -> wandb.Run:
    """Create or resume the run; send nothing of the machine, the code or the output."""
    settings = wandb.Settings(
        api_key=opening["api_key"],
        console="off",
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        host="",
        init_timeout=OPENING_SECONDS,
        program="burnish",
        quiet=True,
        root_dir=opening["folder"],
        save_code=False,
        silent=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_file_stream_transmit_interval=_TRANSMIT_SECONDS,
        x_save_requirements=False,
    )
    if opening["base_url"] is not None:
        settings.base_url = opening["base_url"]
    return wandb.init(
        entity=opening["entity"],
        project=opening["project"],
        id=opening["run_id"],
        name=opening["name"],
        tags=opening["tags"],
        config=opening["config"],
        dir=opening["folder"],
        resume="allow",
        allow_val_change=True,
        settings=settings,
    )


def _execute_order(run: wandb.Run, order: RunOrder) -> bool:
    """Do what an order says; say whether it was the last one."""
    values = order.get("values", {})
    match order.get("kind"):
        case "config":
            run.config.update(values, allow_val_change=True)  # pyright: ignore[reportUnknownMemberType]
        case "row":
            run.log(values, step=order.get("step"))
        case _:
            run.summary.update(values)  # pyright: ignore[reportUnknownMemberType]
            if order.get("preempted"):
                run.mark_preempting()
                time.sleep(1.25 * _TRANSMIT_SECONDS)  # the end would swallow a mark that has not left yet
            run.finish(exit_code=order.get("exit_code", 0))
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())
