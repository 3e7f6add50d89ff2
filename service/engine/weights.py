"""Weights for answering: bases prepared as for training, adapters fetched once and kept while they are used."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from service.chat.errors import AnswerFailed
from service.chat.protocol import ModelSource
from service.context import Context
from service.kit.errors import InvalidRequest
from service.staging import inputs
from service.staging.bases import PREPARE_COMMAND, prepared_base
from service.staging.errors import AttemptFailed, JobFailedForGood, WorkerStopping
from service.staging.hold import UnleasedHold
from trainer.contract.chat import AdapterRef

MAX_ADAPTERS = 64
"""How many adapters stay on disk; those unused for the longest go first."""


class EngineWeights:
    """This machine's weights. Call `prepare_weights` from one thread, which lives as long as the process."""

    def __init__(
        self, context: Context, stop: threading.Event, *, prepare_command: Sequence[str] = PREPARE_COMMAND
    ) -> None:
        self._context = context
        self._hold = UnleasedHold("chat", stop=stop, poll_seconds=context.settings.poll_seconds)
        self._folder = context.settings.data / "engine"
        self._adapters = context.settings.inference_adapters or self._folder / "adapters"
        self._shared = context.settings.inference_adapters is not None
        self._prepare_command = prepare_command

    def prepare_weights(self, source: ModelSource) -> tuple[Path, AdapterRef | None]:
        """Return the folders of base and adapter.

        Raises InvalidRequest if they can never be had, AnswerFailed if another try may help, Unavailable, or
        OSError if the disk is full.
        """
        with _as_answers():
            return self._prepare_base(source), self._fetch_adapter(source)

    def fetch_adapter(self, source: ModelSource) -> AdapterRef | None:
        """Return the adapter's folder alone, None if the base answers. Raises as `prepare_weights` does."""
        with _as_answers():
            return self._fetch_adapter(source)

    def _prepare_base(self, source: ModelSource) -> Path:
        workdir = self._folder / "prepare"
        # What an engine that was killed while it prepared a base has left.
        shutil.rmtree(workdir, ignore_errors=True)
        workdir.mkdir(mode=0o700, parents=True)
        _, folder = prepared_base(
            self._context,
            source.project_id,
            self._hold,
            source.base,
            workdir=workdir,
            command=self._prepare_command,
        )
        assert folder is not None, "chat with nothing is refused by the API"
        return folder

    def _fetch_adapter(self, source: ModelSource) -> AdapterRef | None:
        if source.job_id is None:
            return None
        result = inputs.result_of(self._context, source.job_id, source.step, self._hold, "model")
        stored_result = inputs.find_stored(self._context, result, self._hold, "model")
        fingerprint = stored_result.manifest_sha256 or hashlib.sha256(stored_result.prefix.encode()).hexdigest()
        name = f"{source.job_id}-{'end' if source.step is None else source.step}-{fingerprint[:12]}"
        target = self._adapters / name
        if not target.is_dir():
            partial = target.with_name(f".{name}.partial")
            partial.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            inputs.fetch_adapter(self._context, result, stored_result, partial, self._hold)
            if self._shared:
                _let_others_read(partial)
            # Renamed when complete: another process that shares the folder never sees half an adapter.
            partial.rename(target)
            self._forget_old()
        # The time of the last use decides which adapters `_forget_old` removes.
        os.utime(target)
        return AdapterRef(name=name, path=target)

    def _forget_old(self) -> None:
        folders = sorted(self._adapters.iterdir(), key=lambda folder: folder.stat().st_mtime)
        for folder in folders[:-MAX_ADAPTERS]:
            shutil.rmtree(folder, ignore_errors=True)


def _let_others_read(folder: Path) -> None:
    """Open a folder to the inference server, which may run as another user."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


@contextmanager
def _as_answers() -> Generator[None]:
    """Turn the ends of a worker's attempt into the error that the caller of a chat gets."""
    try:
        yield
    except JobFailedForGood as error:
        raise InvalidRequest(error.error.message, param="model", code=error.error.code) from error
    except AttemptFailed as error:
        raise AnswerFailed(error.error.message, param="model", code=error.error.code) from error
    except WorkerStopping as error:
        raise AnswerFailed("The engine for chat is stopping. Ask again in a few seconds.") from error
