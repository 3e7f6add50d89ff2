"""Each form of calls and thoughts, however its text is cut; what is malformed or was not offered stays text."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.engine.answer_format.answer_form import AnswerForm
from trainer.engine.answer_format.forms import CALL_FORMS, HERMES, MESSAGE_FORMS, THOUGHT_MARKS
from trainer.engine.answer_format.parts import AnswerContent, OfferedTools

ARGUMENTS: dict[str, Any] = {"city": "北京 🙂", "days": 3, "list": [1, None, True]}
JSON = json.dumps(ARGUMENTS, ensure_ascii=False)
PROPERTIES = {"city": {"type": "string"}, "days": {"type": ["integer", "null"]}, "list": {"type": "array"}}
TOOLS = OfferedTools.from_wire(
    [
        {"type": "function", "function": {"name": "weather", "parameters": {"properties": PROPERTIES}}},
        {"type": "function", "function": {"name": "time.now"}},
    ]
)
WORDS = "Let me look:\n"
NAMED = '{"name": "weather", "arguments": ' + JSON + "}"
LISTED = f'[{NAMED}, {{"name": "time.now", "arguments": {{}}}}]'
PYTHON = '[weather(city="北京 🙂", days=3, list=[1, None, True]), time.now()]'
TAGS = (
    '<invoke name="weather">\n<parameter name="city">北京 🙂</parameter>\n<parameter name="days">3</parameter>\n'
    '<parameter name="list">[1, null, true]</parameter>\n</invoke>\n<invoke name="time.now">\n</invoke>\n'
)
DSML = TAGS.replace("<", "<｜DSML｜").replace("<｜DSML｜/", "</｜DSML｜")
FUNCTIONS = (
    "<function=weather>\n<parameter=city>\n北京 🙂\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
    "<parameter=list>\n[1, null, true]\n</parameter>\n</function>\n<function=time.now>\n</function>\n"
)
K3 = (
    '<|open|>call tool="weather" index="1"<|sep|><|open|>argument key="city" type="string"<|sep|>北京 🙂<|close|>'
    'argument<|sep|><|open|>argument key="days" type="number"<|sep|>3<|close|>argument<|sep|><|open|>argument '
    'key="list" type="array"<|sep|>[1,null,true]<|close|>argument<|sep|><|close|>call<|sep|>'
    '<|open|>call tool="time.now" index="2"<|sep|><|close|>call<|sep|>'
)
EXAMPLES: dict[str, str] = {
    "hermes": f'{WORDS}<tool_call>\n{NAMED}\n</tool_call>\n<tool_call>{{"name": "time.now"}}</tool_call>',
    "jamba": f"{WORDS}<tool_calls>{LISTED}</tool_calls>",
    "granite": f"{WORDS}<|tool_call|>{LISTED}",
    "nemotron": f"{WORDS}<TOOLCALL>{LISTED}</TOOLCALL>",
    "cohere": f"{WORDS}<|START_ACTION|>{LISTED.replace('name', 'tool_name').replace('arguments', 'parameters')}"
    "<|END_ACTION|>",
    "apertus": f'{WORDS}<|tools_prefix|>[{{"weather": {JSON}}}, {{"time.now": {{}}}}]<|tools_suffix|>',
    "gigachat": f"{WORDS}<|message_sep|>\n\nfunction call<|role_sep|>\n{LISTED}<|message_sep|>",
    "qwen3-coder": f"{WORDS}<tool_call>\n{FUNCTIONS}</tool_call>",
    "seed-oss": f"{WORDS}<seed:tool_call>\n{FUNCTIONS}</seed:tool_call>",
    "glm": f"{WORDS}<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>北京 🙂</arg_value>\n"
    "<arg_key>days</arg_key><arg_value>3</arg_value><arg_key>list</arg_key>\n"
    "<arg_value>[1, null, true]</arg_value>\n</tool_call>\n<tool_call>time.now</tool_call>",
    "mistral": f"{WORDS}[TOOL_CALLS]weather[CALL_ID]a1b2c3d4e[ARGS]{JSON}[TOOL_CALLS]time.now{{}}",
    "deepseek": f"{WORDS}<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{JSON}\n```"
    "<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>time.now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "kimi-k2": f"{WORDS}<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>"
    f"{JSON}<|tool_call_end|><|tool_call_begin|>functions.time.now:1<|tool_call_argument_begin|>{{}}<|tool_call_end|>"
    "<|tool_calls_section_end|>",
    "kimi-k3": f"<|open|>response<|sep|>{WORDS}<|close|>response<|sep|><|open|>tools<|sep|>{K3}<|close|>tools<|sep|>",
    "minimax": f"{WORDS}<minimax:tool_call>\n{TAGS}</minimax:tool_call>",
    "deepseek-v3.2": f"{WORDS}<｜DSML｜function_calls>\n{DSML}</｜DSML｜function_calls>",
    "gemma4": f'{WORDS}<|tool_call>call:weather{{city:<|"|>北京 🙂<|"|>,days:3,list:[1,null,true]}}<tool_call|>'
    "<|tool_call>call:time.now{}<tool_call|>",
    "llama-json": f'{{"name": "weather", "parameters": {JSON}}}; {{"name": "time.now", "parameters": {{}}}}',
    "llama-function-tag": f"{WORDS}<function=weather>{JSON}</function><function=time.now>{{}}</function>",
    "lfm2": f"{WORDS}<|tool_call_start|>{PYTHON}<|tool_call_end|>",
    "llama4": f"{WORDS}<|python_start|>{PYTHON}<|python_end|>",
    "pythonic": PYTHON,
    "harmony": "<|channel|>analysis<|message|>想一想<|end|><|start|>assistant<|channel|>commentary<|message|>"
    f"{WORDS}<|end|><|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>"
    f"{JSON}<|call|><|start|>assistant to=functions.time.now<|channel|>commentary json<|message|>{{}}",
    "muse": f" to=self<|message|>想一想<|eom|><|start|>assistant to=user<|message|>{WORDS}<|eom|><|start|>assistant "
    f"to=weather<|message|><atem:function_calls>\n{TAGS.replace('<', '<atem:').replace('<atem:/', '</atem:')}",
}
_WEATHER, _NOW = EXAMPLES["muse"].split('<atem:invoke name="time.now">')
EXAMPLES["muse"] = (
    _WEATHER
    + "</atem:function_calls><|eom|><|start|>assistant to=time.now<|message|><atem:function_calls>"
    + f'<atem:invoke name="time.now">{_NOW.rstrip()}</atem:function_calls>'
)
FORMS = {form.name: AnswerForm(calls=(form,)) for form in CALL_FORMS} | {
    form.name: AnswerForm(messages=form) for form in MESSAGE_FORMS
}


def cut(text: str, places: list[int]) -> list[str]:
    return [text[a:b] for a, b in pairwise(sorted({0, len(text), *(place % (len(text) + 1) for place in places)}))]


def read(form: AnswerForm, pieces: list[str], tools: OfferedTools = TOOLS, prompt: str = "") -> AnswerContent:
    parser = form.open_parser(prompt, tools)
    parts = [part for piece in pieces for part in parser.add_text(piece)]
    return AnswerContent.from_parts([*parts, *parser.finish_text()])


def test_every_form_has_an_example() -> None:
    assert FORMS.keys() == EXAMPLES.keys()


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_calls_are_found_wherever_the_text_is_cut(name: str) -> None:
    text, form = EXAMPLES[name], FORMS[name]
    whole = read(form, [text])
    assert [(call.name, json.loads(call.arguments)) for call in whole.calls] == [
        ("weather", ARGUMENTS),
        ("time.now", {}),
    ]
    assert whole.text.strip() in (WORDS.strip(), "")
    assert whole.reasoning == ("想一想" if name in ("harmony", "muse") else "")
    for place in range(len(text)):
        assert read(form, [text[:place], text[place:]]) == whole
    assert read(form, list(text)) == whole


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_a_call_of_a_tool_that_was_not_offered_is_text(name: str) -> None:
    text, form = EXAMPLES[name], FORMS[name]
    other = OfferedTools.from_wire([{"type": "function", "function": {"name": "another"}}])
    for tools in (other, OfferedTools()):
        answer = read(form, list(text), tools)
        assert answer.calls == ()
        assert "weather" in answer.text
        assert "北京 🙂" in answer.text
        if name not in ("harmony", "muse", "kimi-k3"):
            assert answer.text == text


@pytest.mark.parametrize("name", list(EXAMPLES))
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_whatever_is_broken_is_read_alike_however_it_is_cut_and_loses_nothing(name: str, data: st.DataObject) -> None:
    text, form = EXAMPLES[name], FORMS[name]
    begin, end = sorted(data.draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
    broken = text[:begin] + data.draw(st.sampled_from(["", "{", '"', "<", "]", "字", "<tool_call>"])) + text[end:]
    pieces = cut(broken, data.draw(st.lists(st.integers(0, 1000), max_size=6)))
    whole = read(form, [broken])
    assert read(form, pieces) == whole
    # Chinese characters and digits are never part of a mark: each is in the text, a thought or a call.
    said = whole.text + whole.reasoning + "".join(call.arguments for call in whole.calls)
    assert sorted(c for c in said if c in "北京🙂想一字") == sorted(c for c in broken if c in "北京🙂想一字")


@pytest.mark.parametrize("marks", THOUGHT_MARKS, ids=lambda marks: marks.opening.strip())
def test_thoughts_stand_apart_wherever_the_text_is_cut(marks: Any) -> None:
    form = AnswerForm(marks, (HERMES,))
    closed = f"想 🙂\n\nlook\n{marks.closing}\n\n好的\n\nok\n"
    for prompt, text in (("", f"\n{marks.opening}\n{closed}"), (f"<|assistant|>{marks.opening}\n", closed)):
        for place in range(len(text)):
            answer = read(form, [text[:place], text[place:]], prompt=prompt)
            assert (answer.reasoning, answer.text) == ("想 🙂\n\nlook", "好的\n\nok\n")
        assert read(form, list(text), prompt=prompt).reasoning == "想 🙂\n\nlook"
    skipped = read(form, ["好的"], prompt=f"{marks.opening}\n\n{marks.closing}\n\n")
    assert (skipped.reasoning, skipped.text) == ("", "好的")


def test_a_thought_that_does_not_end_is_a_thought_and_a_later_mark_is_text() -> None:
    form = AnswerForm(THOUGHT_MARKS[0], (HERMES,))
    assert read(form, ["<think>\n想一", "想\n"]) == AnswerContent("", "想一想\n", ())
    text = "Write <think> in front of it, </think> behind."
    assert read(form, list(text)) == AnswerContent(text, "", ())


def test_a_thought_then_text_then_calls() -> None:
    text = f"<think>\n想\n</think>\n\n{EXAMPLES['hermes']}\n"
    answer = read(AnswerForm(THOUGHT_MARKS[0], (HERMES,)), list(text))
    assert (answer.reasoning, answer.text) == ("想", "Let me look:")
    assert len(answer.calls) == 2


def test_text_that_is_no_call_stays_as_it_is() -> None:
    form = AnswerForm(calls=(HERMES,))
    for text in (
        "<tool_call>{oops</tool_call>!",
        '<tool_call>{"arguments": {}}</tool_call>\n',
        f"<tool_call>{'[' * 50_000}</tool_call>",
        '{"name": "weather"}',
        "\n\n",
        " \n好\n",
        "a <tool_call",
    ):
        assert read(form, [text]) == AnswerContent(text, "", ())


def test_a_broken_call_hides_no_later_one_and_marks_may_stand_in_arguments() -> None:
    form = AnswerForm(calls=(HERMES,))
    text = (
        '<tool_call>没有<tool_call> {"name": "weather", "arguments": {"标签": "</tool_call>"}} </tool_call>'
        '<tool_call>{"name": "time.now"}'
    )
    answer = read(form, list(text))
    assert answer.text == "<tool_call>没有"
    assert [(call.name, call.arguments) for call in answer.calls] == [
        ("weather", '{"标签": "</tool_call>"}'),
        ("time.now", "{}"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>{" * 20_000,
        "<tool_call>{" + "}" * 200_000,
        "<tool_call>{}" + " " * 200_000,
        "<tool_call>" + "</tool_call>" * 20_000,
        "<tool_call>x</tool_call>" * 10_000,
        "\n" * 200_000,
    ],
)
def test_hostile_text_is_read_in_linear_time(text: str) -> None:
    began = time.process_time()
    assert read(AnswerForm(THOUGHT_MARKS[0], (HERMES,)), [text]) == AnswerContent(text, "", ())
    assert time.process_time() - began < 2


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_long_arguments_are_read_in_time_token_by_token(name: str) -> None:
    text = EXAMPLES[name].replace("北京 🙂", "北" * 60_000)
    pieces = [text[place : place + 3] for place in range(0, len(text), 3)]
    began = time.process_time()
    assert json.loads(read(FORMS[name], pieces).calls[0].arguments)["city"] == "北" * 60_000
    assert time.process_time() - began < 5


def test_arguments_have_the_types_of_their_schema() -> None:
    kinds = {"text": "string", "number": "integer", "either": ["string", "null"], "flag": "boolean", "nothing": "null"}
    properties: dict[str, Any] = {key: {"type": kind} for key, kind in kinds.items()}
    properties["any_of"] = {"anyOf": [{"type": "string"}, {"type": "integer"}]}
    tools = OfferedTools.from_wire([{"function": {"name": "f", "parameters": {"properties": properties}}}])
    texts = {
        "text": "12",
        "number": "12",
        "either": "None",
        "flag": "True",
        "nothing": "None",
        "any_of": "a",
        "new": "[1]",
    }
    assert {key: tools.read_argument("f", key, text) for key, text in texts.items()} == {
        "text": "12", "number": 12, "either": "None", "flag": True, "nothing": None, "any_of": "a", "new": [1],
    }  # fmt: skip


def test_half_of_a_surrogate_pair_in_arguments_can_be_sent() -> None:
    text = '<tool_call>{"name": "weather", "arguments": {"city": "\\ud800好"}}</tool_call>'
    answer = read(AnswerForm(), [text])
    assert answer.calls[0].arguments.encode()
    assert json.loads(answer.calls[0].arguments) == {"city": "\ud800好"}
