"""A dozen families that each stand for a kind, by each method; all of them in the full form."""

from __future__ import annotations

import json

import pytest
import torch

from tests.fixtures.scale import sampled
from tests.trainer.family_matrix import METHODS, TRAINS, families_to_try, in_fork, try_family

pytestmark = [
    pytest.mark.slow,
    pytest.mark.integration,
    pytest.mark.filterwarnings(
        "ignore::FutureWarning",
        "ignore::UserWarning",
        "ignore::DeprecationWarning",
        # PEFT's own patterns for experts, if none of them has an adapter.
        "ignore:The following (rank|alpha)_pattern keys:RuntimeWarning",
    ),
]

# Dense, experts of three kinds, routers that PEFT would wrap, states of three kinds, no cache at all, a tower for
# images, layers of two kinds of attention, and one whose embedding is scaled.
CHOSEN = [
    "llama", "qwen3_moe", "gpt_oss", "llama4_text", "phimoe", "mamba", "falcon_h1", "qwen3_next", "rwkv", "mistral3",
    "gemma3_text", "gpt2",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    # A fork has none of the threads that torch may have started.
    torch.set_num_threads(1)


@pytest.mark.parametrize("kind", sampled([*CHOSEN, *families_to_try(besides=CHOSEN)], first=len(CHOSEN)))
def test_every_method_trains_or_refuses_the_family_with_a_sentence(kind: str) -> None:
    assert try_family(kind) == dict.fromkeys(METHODS, TRAINS)


@pytest.mark.parametrize("kind", ["qwen3_moe", "gpt_oss"])
def test_experts_train_too(kind: str) -> None:
    assert try_family(kind, experts=True) == dict.fromkeys(METHODS, TRAINS)


def test_a_fork_that_fails_says_so() -> None:
    def fail() -> dict[str, str]:
        raise ValueError("坏了")

    assert in_fork(fail) == {"failed": "ValueError: 坏了"}
    assert json.dumps(in_fork(lambda: {"a": "b"})) == '{"a": "b"}'
