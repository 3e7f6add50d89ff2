"""Programmatic rewards judge what an answer says in the end: neither thoughts nor calls."""

from __future__ import annotations

from pathlib import Path

import pytest
import trl

from tests.fixtures.tiny_model import make_tokenizer
from trainer.contract.methods.onpolicy import FunctionReward
from trainer.engine.chat_template.render import ChatTemplate
from trainer.engine.onpolicy.prompts import TokenizedPrompt
from trainer.engine.onpolicy.scorers import function_scorer
from trainer.engine.scoring.generation import SampledResponse

QWEN = Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja"
TOOL = {"type": "function", "function": {"name": "天气"}}
CALL = '<tool_call>\n{"name": "天气", "arguments": {}}\n</tool_call>'


@pytest.mark.parametrize(
    ("answer", "tools", "text"),
    [
        ("<think>\n很多很多字\n</think>\n\n好的", None, "好的"),
        (f"<think>\n\n</think>\n\n好的\n{CALL}", (TOOL,), "好的"),
        (f"好的\n{CALL}", None, f"好的\n{CALL}"),
        ("<think>\n没有说完", None, ""),
    ],
)
def test_the_reward_is_of_the_final_text(answer: str, tools: tuple[dict[str, object], ...] | None, text: str) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = QWEN.read_text(encoding="utf-8")
    reward = FunctionReward.model_validate({"function": "exact_match", "parameters": {}})
    score = function_scorer(ChatTemplate(tokenizer), reward)
    response = SampledResponse(
        tuple(tokenizer(f"{answer}<|im_end|>", add_special_tokens=False)["input_ids"]), ended=True
    )
    assert score([TokenizedPrompt(1, (1,), reference=text, tools=tools)], [response]) == [1.0]
