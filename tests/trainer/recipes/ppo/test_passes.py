"""How an update of PPO and GRPO is cut into passes through the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.trainer.recipes.ppo.test_job import go, lay
from tests.trainer.workdirs import events_of
from trainer.contract.events import ConfiguredEvent
from trainer.contract.methods.grpo import GrpoHyperparameters
from trainer.contract.methods.ppo import PpoHyperparameters


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize(
    ("asked", "cut"),
    [
        ({"batch_size": 2}, (2, 2)),
        ({"batch_size": "auto", "gradient_accumulation_steps": 3}, (1, 3)),
        ({"batch_size": "auto", "gradient_accumulation_steps": 1}, (3, 1)),
    ],
)
def test_requested_settings_are_used(
    asked: dict[str, Any], cut: tuple[int, int], tiny_base: Path, tmp_path: Path
) -> None:
    """Six answers an iteration in two minibatches: three an update."""
    workdir = lay(tmp_path / "w", tiny_base, iterations=1, **asked)
    assert go(workdir) == 0
    (configured,) = (event for event in events_of(workdir) if isinstance(event, ConfiguredEvent))
    shown = configured.hyperparameters
    assert (shown["batch_size"], shown["gradient_accumulation_steps"]) == cut


@pytest.mark.parametrize("hyperparameters", [PpoHyperparameters, GrpoHyperparameters])
def test_two_cuts_of_one_update_are_refused(hyperparameters: type[PpoHyperparameters | GrpoHyperparameters]) -> None:
    given = {"reward": {"function": "json_valid"}, "batch_size": 2, "gradient_accumulation_steps": 3}
    with pytest.raises(ValidationError, match="but not both"):
        hyperparameters.model_validate(given)
