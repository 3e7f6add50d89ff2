"""What a job's grader may use: the operator's leave for Python, and models that the job has in memory anyway."""

from __future__ import annotations

from collections.abc import Mapping

from service.context import Context
from service.jobs.references import EarlierResult
from service.kit.errors import InvalidRequest
from trainer.contract.methods import Method
from trainer.contract.methods.reinforcement import ReinforcementMethod
from trainer.graders import AnyGrader, LabelModelGrader, Leaf, PythonGrader, ScoreModelGrader

_PLACE = "method.reinforcement.grader"


class PythonGradersOff(InvalidRequest):
    """The operator has not switched Python graders on."""

    code = "python_graders_off"

    def __init__(self, param: str) -> None:
        super().__init__(
            "Python graders are switched off here: the service's operator allows them by BURNISH_PYTHON_GRADERS=on. "
            "Use string_check, text_similarity or score_model, alone or in a multi.",
            param=param,
        )


class GraderModelNotAtHand(InvalidRequest):
    """A training's grader uses a model that the training does not hold."""

    code = "grader_model_not_at_hand"

    def __init__(self, model: str, possible: list[str], param: str) -> None:
        super().__init__(
            f"A training holds one model in memory, so its grader cannot ask '{model[:256]}'. It can ask "
            f"{' or '.join(possible)}, as it is before the training. Name that, or use string_check, text_similarity "
            "or python.",
            param=param,
        )


def check_grader(context: Context, method: Method, base: str, start: EarlierResult | None) -> None:
    """Check the grader of a job on `base` that starts from there, or from `start`. Raises InvalidRequest."""
    if not isinstance(method, ReinforcementMethod):
        return
    possible = [base] if start is None or start.kind == "model" else [base, start.name]
    if start is not None and start.kind != "model" and start.step is None and start.permission is None:
        possible.append(start.job.id)
    for place, leaf in _grader_places(method.reinforcement.grader).items():
        if isinstance(leaf, PythonGrader) and context.settings.python_graders == "off":
            raise PythonGradersOff(place)
        if isinstance(leaf, (ScoreModelGrader, LabelModelGrader)) and leaf.model not in possible:
            raise GraderModelNotAtHand(leaf.model, possible, f"{place}.model")


def _grader_places(grader: AnyGrader) -> Mapping[str, Leaf]:
    """Return the graders that are not a `multi` by their places in the request."""
    if isinstance(grader, Leaf):
        return {_PLACE: grader}
    if isinstance(grader.graders, Leaf):
        return {f"{_PLACE}.graders": grader.graders}
    return {f"{_PLACE}.graders.{name}": leaf for name, leaf in grader.list_named_graders().items()}
