"""The controller process: its steps, how often each runs, and its end by SIGTERM."""

from __future__ import annotations

import logging
import signal
import threading
from functools import partial
from types import FrameType

from service import migrations
from service.context import Context, open_context
from service.controller import (
    dispatch,
    erasure,
    exports,
    fitting,
    garbage,
    holding,
    leases,
    measure,
    retention,
    timeouts,
    validation,
    waiting,
)
from service.controller.loop import ControllerStep, Outages, run_steps, run_until_it_works
from service.controller.webhooks import WebhookStep
from service.kit import telemetry
from service.kit.settings import Settings
from service.queue.base import JobIdQueue
from service.queue.rq import RqJobQueue
from service.webhooks.target import configured_target

_log = logging.getLogger(__name__)
_REFILL_SECONDS = 5.0
_MEASURE_SECONDS = 5.0
_SWEEP_SECONDS = 10.0
_HOUR = 3600.0


def run_controller(settings: Settings) -> int:
    """Work until SIGTERM or SIGINT. Raises SettingsError if a setting or the database's schema is wrong."""
    telemetry.set_up_telemetry(settings, "controller")
    stop = threading.Event()

    def stop_on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop_on_signal)
    receiver = configured_target(settings)
    context = open_context(settings)
    queue = RqJobQueue(settings.redis)
    outages = Outages()
    run_until_it_works(ControllerStep("schema", 0, partial(migrations.check_schema, settings)), stop, outages)
    if not stop.is_set():
        _log.info(
            "working; %s", "the settings name a receiver of webhooks" if receiver else "BURNISH_WEBHOOK_URL is not set"
        )
        sender = WebhookStep(context, receiver, seconds=settings.poll_seconds)
        check = validation.Validation(context)
        steps = [
            *steps_of(context, queue),
            ControllerStep("validation", 0, check, check.close),
            ControllerStep("webhooks", 0, sender, sender.close),
        ]
        run_steps(steps, stop, outages)
    context.db.close()
    return 0


def steps_of(context: Context, queue: JobIdQueue) -> list[ControllerStep]:
    """Return the steps but for the validation and the webhooks'."""
    poll = context.settings.poll_seconds
    periodic_steps = (
        ("waiting jobs", poll, waiting.release_waiting),
        ("limits", poll, holding.hold_jobs),
        ("dispatch", poll, dispatch.dispatch_jobs),
        ("refill", _REFILL_SECONDS, dispatch.refill_queue),
        ("leases", poll, leases.end_expired_leases),
        ("timeouts", poll, timeouts.end_overdue),
        ("unfit jobs", _SWEEP_SECONDS, fitting.report_unfit_jobs),
        ("leases of exports", poll, exports.end_expired_leases),
        ("superfluous exports", poll, exports.remove_superfluous),
        ("blobs", poll, garbage.delete_blobs),
        ("expired files", _SWEEP_SECONDS, garbage.delete_expired_files),
        ("retention", _SWEEP_SECONDS, retention.Retention()),
        ("expired uploads", _SWEEP_SECONDS, garbage.end_expired_uploads),
        ("erasure", poll, erasure.erase_projects),
        ("attempts", _SWEEP_SECONDS, garbage.AttemptSweeper()),
        ("metrics", _MEASURE_SECONDS, measure.set_gauges),
        ("abandoned uploads", _HOUR, garbage.remove_abandoned),
    )
    return [ControllerStep(name, seconds, partial(run, context, queue)) for name, seconds, run in periodic_steps]
