"""What the programs share: the environment that libraries find."""

from __future__ import annotations

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "svg",
    # TRL loads wandb where it is installed; what there is to report, the events have.
    "WANDB_MODE": "disabled",
    "WANDB_ERROR_REPORTING": "false",
}
