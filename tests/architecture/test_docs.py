"""What the documentation lists is what the code takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trainer.contract.methods import METHODS
from trainer.contract.methods.base import LoraParameters
from trainer.contract.methods.conversations import AnswerHyperparameters
from trainer.contract.methods.onpolicy import OnPolicyHyperparameters
from trainer.contract.methods.reward_functions import REWARD_PARAMETERS

DOCS = Path(__file__).parents[2] / "docs"
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", (DOCS / "methods.md").read_text("utf-8"), re.M | re.S))
KINDS = {method.model_fields["type"].default: method for method in METHODS}


def named(text: str) -> set[str]:
    return set(re.findall(r"`([a-z_0-9]+)`", text))


def test_what_all_methods_share_is_described() -> None:
    fields = {*AnswerHyperparameters.model_fields, *LoraParameters.model_fields}
    assert fields <= named(SECTIONS["What all methods share"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_methods_own_hyperparameters_are_described(kind: str) -> None:
    (block,) = (field.annotation for name, field in KINDS[kind].model_fields.items() if name == kind)
    assert block is not None
    own = set(block.model_fields["hyperparameters"].annotation.model_fields) - set(AnswerHyperparameters.model_fields)
    described = named(SECTIONS[kind])
    assert own <= described, f"docs/methods.md does not describe {sorted(own - described)} of {kind}"
    assert f"| `{kind}` |" in (DOCS / "methods.md").read_text("utf-8")


def test_the_reward_functions_are_described() -> None:
    described = named(SECTIONS["ppo"])
    for name, parameters in REWARD_PARAMETERS.items():
        assert {name, *parameters.model_fields} <= described
    assert set(OnPolicyHyperparameters.model_fields) - set(AnswerHyperparameters.model_fields) <= described


def test_every_link_leads_to_a_file() -> None:
    for page in [*DOCS.rglob("*.md"), DOCS.parent / "README.md", DOCS.parent / "CHANGELOG.md"]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
