"""What a chat template writes is read back: text, thought and calls, by every template that writes calls."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import trl
from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerFast

from tests.fixtures.tiny_model import make_tokenizer
from trainer.engine.answer_format.answer_reader import AnswerReader
from trainer.engine.answer_format.parts import AnswerContent, OfferedTools

TEMPLATES = {path.stem: path for path in sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))}
WITHOUT_CALLS = re.compile(
    r"cohere|deepseek_r1|gemma(3|_training|$)|lfm2(_training)?$|llama3(_training)?$|llava|phi3|qwen2_5_vl|idefics|smolvlm"
)
"""Templates that write no calls, or take content in parts alone."""
SPECIAL = re.compile(r"<\|[^<>\s'\"{}]+\|?>|<[^<>\s'\"{}|]+\|>|<｜[^<>\s'\"{}]+｜>|<\|\"\|>")
"""What the templates' own tokenizers have as special tokens."""
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "a"},
        "code": {"type": "string", "description": "a"},
        "days": {"type": "integer", "description": "a"},
        "exact": {"type": "boolean", "description": "a"},
        "nested": {"type": "object", "description": "a"},
    },
    "required": ["city"],
}
TOOL = {"type": "function", "function": {"name": "find_weather", "description": "a", "parameters": SCHEMA}}
ARGUMENTS = {
    "city": '北京 "故宫" 🙂 it\'s\nnew',
    "code": "12",
    "days": 3,
    "exact": True,
    "nested": {"键": [1, -2.5, None, False, "乙"]},
}
USER = {"role": "user", "content": "天气?"}
THOUGHT = "想一想 🙂\n\nlook"
TEXT = "好的。\nHere it is"


def make_family_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer with the template and its special tokens."""
    tokenizer: PreTrainedTokenizerFast = make_tokenizer()
    source = path.read_text(encoding="utf-8")
    tokenizer.chat_template = source
    specials = sorted({*SPECIAL.findall(source), "<|im_end|>"} - {"<|im_start|>"})
    tokenizer.add_special_tokens({"additional_special_tokens": specials})
    return tokenizer


def render(
    tokenizer: PreTrainedTokenizerFast,
    messages: list[dict[str, Any]],
    tools: list[Any] | None,
    *,
    prompt: bool = False,
) -> str:
    text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=prompt)
    assert isinstance(text, str)
    return text


def read_back(
    tokenizer: PreTrainedTokenizerFast, message: dict[str, Any], tools: list[dict[str, Any]] | None
) -> AnswerContent:
    """Render a message as an answer, tokenize it and read it, its end left out."""
    prompt = render(tokenizer, [USER], tools, prompt=True)
    whole = render(tokenizer, [USER, {"role": "assistant", **message}], tools)
    closing = render(tokenizer, [USER, {"role": "assistant", "content": "甲乙"}], tools).rpartition("甲乙")[2]
    if not whole.startswith(prompt):  # the prompt has opened a thought, or skipped it, and this answer has none
        prompt = re.sub(r"<think>\s*(</think>\s*)?$", "", prompt)
    assert whole.startswith(prompt)
    reader = AnswerReader(tokenizer)

    def tokenize(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    answer = whole.removeprefix(prompt).removesuffix(closing).removesuffix("<|tool_response>")
    return reader.read_answer(tokenize(prompt), tokenize(answer), OfferedTools.from_wire(tools))


def call(arguments: Any) -> dict[str, Any]:
    return {"id": "call00001", "type": "function", "function": {"name": "find_weather", "arguments": arguments}}


@pytest.mark.parametrize("name", [name for name in TEMPLATES if not WITHOUT_CALLS.match(name)])
def test_calls_come_back_as_they_were(name: str) -> None:
    tokenizer = make_family_tokenizer(TEMPLATES[name])
    arguments: Any = json.dumps(ARGUMENTS, ensure_ascii=False) if name.startswith("deepseekv3") else ARGUMENTS
    answer = read_back(tokenizer, {"content": "", "tool_calls": [call(arguments)]}, [TOOL])
    assert [(one.name, json.loads(one.arguments)) for one in answer.calls] == [("find_weather", ARGUMENTS)]
    assert (answer.reasoning, answer.text) == ("", "")
    if name.startswith(("llama", "gptoss")):  # one call a turn
        return
    empty: Any = "{}" if name.startswith("deepseekv3") else {}
    both = [call(arguments), call(empty) | {"id": "call00002"}]
    answer = read_back(tokenizer, {"content": TEXT, "tool_calls": both}, [TOOL])
    assert [json.loads(one.arguments) for one in answer.calls] == [ARGUMENTS, {}]
    if not name.startswith("muse"):  # which leaves text beside a call out
        assert answer.text == TEXT


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_text_alone_comes_back_as_it_was(name: str) -> None:
    if re.match(r"llava|idefics|smolvlm", name):  # their messages are parts
        return
    tokenizer = make_family_tokenizer(TEMPLATES[name])
    text = f"{TEXT} <|im_start|> <|channel|> [TOOL_CALLS] ok"
    answer = read_back(tokenizer, {"content": TEXT}, None)
    assert (answer.text, answer.calls) == (TEXT, ())
    # Control words that were written as characters are text.
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert AnswerReader(tokenizer).read_answer([], ids).text.lstrip() == text


@pytest.mark.parametrize(
    "name", ["qwen3", "glm4moe", "gptoss", "muse_glimmer", "nemotron_3_nano", "qwen3_5_think", "qwen3_6", "lfm2_2_5"]
)
def test_thoughts_come_back_apart(name: str) -> None:
    tokenizer = make_family_tokenizer(TEMPLATES[name])
    message = {"content": TEXT, "reasoning_content": THOUGHT, "thinking": THOUGHT}
    answer = read_back(tokenizer, message, None)
    assert (answer.reasoning, answer.text, answer.calls) == (THOUGHT, TEXT, ())


def test_gemma_s_thought_stands_in_front_of_its_call() -> None:
    tokenizer = make_family_tokenizer(TEMPLATES["gemma4_v5"])
    message = {"content": "", "reasoning_content": THOUGHT, "tool_calls": [call(ARGUMENTS)]}
    answer = read_back(tokenizer, message, [TOOL])
    assert (answer.reasoning, answer.text) == (THOUGHT, "")
    assert [json.loads(one.arguments) for one in answer.calls] == [ARGUMENTS]


def test_a_template_that_fails_on_calls_has_the_form_of_training_rows() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{% if m.tool_calls %}{{ raise_exception('no') }}{% endif %}" + (
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
    )
    with pytest.raises(TemplateError):
        render(tokenizer, [USER, {"role": "assistant", "content": "", "tool_calls": [call({})]}], None)
    assert [form.name for form in AnswerReader(tokenizer).form.calls] == ["hermes"]
