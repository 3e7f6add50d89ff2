"""A process of the service as a test wants it: the real one, with a trainer of the test's and perhaps with errors.

`process.py ROLE [ARGUMENT…]`; FAULTS_OPTIONS in the environment has the rest as JSON (`Options`).
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from service.kit.settings import load_settings
from tests.faults import errors

VARIABLE = "FAULTS_OPTIONS"


class Options(BaseModel):
    """What differs from the plain process."""

    trainer: tuple[str, ...] | None = None
    prepare: tuple[str, ...] | None = None
    inspect: tuple[str, ...] | None = None
    error_rate: float = 0.0
    seed: int = 0
    error_record: Path | None = None
    webhook_delays: tuple[float, ...] | None = None
    webhook_timeout: float = 15.0


def main(role: str, *arguments: str) -> int:
    """Run one role until it ends."""
    options = Options.model_validate_json(os.environ.get(VARIABLE, "{}"))
    if options.error_rate and options.error_record:
        errors.inject(options.error_rate, options.seed, options.error_record)
    settings = load_settings()
    if role == "api":
        from service.api.main import run_api

        return run_api(settings, "127.0.0.1", int(arguments[0]))
    if role == "controller":
        return _controller(settings, options)
    from service.worker.main import run_worker

    commands = {
        "trainer_command": options.trainer,
        "prepare_command": options.prepare,
        "inspect_command": options.inspect,
    }
    return run_worker(settings, name=role, **{name: command for name, command in commands.items() if command})


def _controller(settings: Any, options: Options) -> int:
    from service.controller import main as controller
    from service.webhooks.lanes import DeliveryPace

    if options.webhook_delays is not None:
        pace = DeliveryPace(timeout=options.webhook_timeout, delays=options.webhook_delays)
        controller.WebhookStep = partial(controller.WebhookStep, pace=pace)  # type: ignore[misc]
    return controller.run_controller(settings)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
