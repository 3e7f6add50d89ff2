"""The real trainer, with what a machine may do to it in the midst of a job: `broken_trainer.py WORKDIR`.

The job's suffix says what: `nan`, `cuda`, `memory`, `killed`; any other is left alone.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from trainer.__main__ import main
from trainer.contract.job import JobSpec

AT_STEP = 2


def spoil(kind: str) -> None:
    """Change the loss of supervised training from the second step on."""
    import torch

    from trainer.recipes.supervised import SupervisedLoop

    loss = SupervisedLoop.score_batch

    def spoiled(self: Any, model: Any, batch: Any) -> Any:
        if self.state.global_step + 1 < AT_STEP:
            return loss(self, model, batch)
        if kind == "nan":
            scored = loss(self, model, batch)
            return type(scored)(total=scored.total * float("nan"), tokens=scored.tokens, metrics=scored.metrics)
        if kind == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity …")
        if kind == "memory":
            torch.ones(1 << 48)  # more than any machine has: the allocator itself refuses
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does it
        raise AssertionError

    SupervisedLoop.score_batch = spoiled  # type: ignore[method-assign]


if __name__ == "__main__":
    spec = JobSpec.model_validate_json((Path(sys.argv[1]) / "job.json").read_bytes())
    suffix = spec.model_name.split(":")[3]
    if suffix in ("nan", "cuda", "memory", "killed"):
        spoil(suffix)
    sys.exit(main(sys.argv[1:]))
