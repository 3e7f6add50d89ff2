"""A worker process with a scripted trainer: `worker_process.py NAME MODE`, settings from the environment."""

from __future__ import annotations

import sys

from service.kit.settings import load_settings
from service.worker.main import run_worker
from tests.service.worker.world import prepare_command, trainer_command

if __name__ == "__main__":
    sys.exit(
        run_worker(
            load_settings(),
            name=sys.argv[1],
            trainer_command=trainer_command(sys.argv[2]),
            prepare_command=prepare_command(),
        )
    )
