"""The template's thinking switch: chosen such that answers begin where generation begins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainer.engine.chat_template.abilities import make_word
from trainer.engine.chat_template.jinja import RENDER_ERRORS, Rendering, TemplateRunner

_SWITCHES: dict[str, tuple[Any, ...]] = {
    "enable_thinking": (False, True),
    "thinking": (False, True),
    "think": (False, True),
    "thinking_mode": ("disabled", "off", "enabled", "on"),
    "reasoning_effort": ("none", "low", "medium", "high"),
    "reasoning_mode": ("off", "on"),
}
"""The variables that templates switch thinking with, and the values to try, without thoughts first."""
_FIRST = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
_PROBES: tuple[list[Rendering], ...] = (
    _FIRST,
    [{"role": "system", "content": "s"}, *_FIRST],
    [*_FIRST, {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}],
)


def choose_forms(runner: TemplateRunner) -> None:
    """Choose whether contents are texts or lists of parts, and what stands for no tools: the first that renders."""
    words = [{"role": "user", "content": make_word(0)}, {"role": "assistant", "content": make_word(1)}]
    for runner.as_parts, runner.empty_tools in ((False, None), (True, None), (False, []), (True, [])):
        try:
            text = runner.run_template(words, None)
        except RENDER_ERRORS:
            continue
        # As parts they must not be printed as the lists that they are.
        if make_word(0) in text and make_word(1) in text and "'text'" not in text:
            return
    runner.as_parts, runner.empty_tools = False, None


def choose_settings(runner: TemplateRunner) -> dict[str, Any]:
    """Return the variables to run a template with: none if its own defaults put answers where generation begins.

    Otherwise the first setting of a thinking switch under which a plain answer follows its prompt, or none again if
    there is no such setting.
    """
    for settings in _iterate_settings(runner):
        runner.settings = settings
        if all(_continues_prompt(runner, messages) for messages in _PROBES):
            break
    else:
        settings = {}
    runner.settings = {}
    return settings


def _iterate_settings(runner: TemplateRunner) -> Iterator[dict[str, Any]]:
    yield {}
    variables = runner.variables
    for name, values in _SWITCHES.items():
        if name in variables:
            yield from ({name: value} for value in values)


def _continues_prompt(runner: TemplateRunner, messages: list[Rendering]) -> bool:
    try:
        prompt = runner.run_template(messages[:-1], None, prompt=True)
        return runner.run_template(messages, None).startswith(prompt)
    except RENDER_ERRORS:
        # A template that refuses the probe, such as one without a system role, says nothing about its switch.
        return messages[0]["role"] == "system"
