"""Turns of projects at the checks of uploads that need a process."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from service.kit.fair_turns import FairTurns, TurnsExhausted
from service.kit.settings import Settings

_WHAT = "uploads"
_WAITING = 64
SAMPLE_TOO_MANY = TurnsExhausted(_WHAT, _WAITING, retry_after=5)


def open_upload_turns(settings: Settings) -> FairTurns:
    """Return the turns of one API process: no project holds more than a quarter of the places."""
    places = settings.upload_checks
    return FairTurns(places, noun=_WHAT, per_project=max(1, places // 4), waiting_per_project=_WAITING, retry_after=5)


def get_upload_turns(request: Request) -> FairTurns:
    """Return the process's turns."""
    turns: FairTurns = request.app.state.upload_turns
    return turns


UploadTurnsDep = Annotated[FairTurns, Depends(get_upload_turns)]
