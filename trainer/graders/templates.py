"""`{{item.answer}}` in a grader's text: the row's fields under `item`, the answer's under `sample`.

A path is names and places, as in JSON paths: `item.tags[0].label`, `item["correct answer"]`, `item.正确答案`. Text
stands as it is, every other value as JSON. What is put in is not searched for templates again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from trainer.graders.base import Failure, Scene

NAMESPACES = ("item", "sample")
_TEMPLATE = re.compile(r"\{\{([^{}]*)\}\}")
_NAME = r"[^\W\d][\w-]*"
_STEP = re.compile(rf"""\.(?P<name>{_NAME}|\d+)|\[(?P<place>\d+)\]|\[(?P<quote>["'])(?P<key>.*?)(?P=quote)\]""")
_MAX_SHOWN = 80
_MAX_PATH = 1000
MAX_FILLED = 1 << 20
"""Characters of a text after everything has been put in."""
MOST_TEMPLATES, MOST_STEPS = 256, 1024
"""The `{{…}}` of one grader, and the names and places in them together."""


def check_templates(texts: Sequence[str]) -> None:
    """Raise ValueError for the texts of a grader if a template cannot be read (named) or they have too many."""
    templates = steps = 0
    for text in texts:
        for match in _TEMPLATE.finditer(text):
            templates, steps = templates + 1, steps + len(_parse_path(match[1])[1])
            if templates > MOST_TEMPLATES or steps > MOST_STEPS:
                raise ValueError(
                    f"the grader has more than {MOST_TEMPLATES} templates, or more than {MOST_STEPS} names and places "
                    "in them, the most: put the value in once, or less deep in the row"
                )


def fill_template(template: str, scene: Scene) -> str:
    """Return the text with every `{{…}}` replaced. Raises Failure if the row or the answer has no such field."""
    namespaces = {"item": scene.item, "sample": scene.sample.template_namespace()}
    pieces: list[str] = []
    size = place = 0
    for match in _TEMPLATE.finditer(template):
        pieces += template[place : match.start()], _render_value(_look_up_value(match[1], namespaces))
        size, place = size + len(pieces[-2]) + len(pieces[-1]), match.end()
        if size > MAX_FILLED:  # a short template may name a long text very often
            raise Failure("truncated_observation_error", f"a filled template has more than {MAX_FILLED} characters")
    scene.work.count_characters(size + len(template) - place)
    return "".join([*pieces, template[place:]])


def item_paths(template: str) -> list[tuple[str | int, ...]]:
    """Return the fields of the row that a template names, each as its keys and places. Raises ValueError."""
    paths = [_parse_path(match[1]) for match in _TEMPLATE.finditer(template)]
    return [tuple(steps) for namespace, steps in paths if namespace == "item" and steps]


def sole_item_path(template: str) -> tuple[str | int, ...] | None:
    """Return the field of the row that a template is made of alone; None if there is more in it. Raises ValueError."""
    match = _TEMPLATE.fullmatch(template.strip())
    paths = item_paths(match[0]) if match else []
    return paths[0] if paths else None


def find_field(item: Mapping[str, Any], path: Sequence[str | int]) -> Any:
    """Return what a row has at the end of a path; None if there is nothing, or null."""
    value: Any = item
    for step in path:
        _, value = _follow_step(value, step)
    return value


def _parse_path(inside: str) -> tuple[str, list[str | int]]:
    """Return the namespace and the steps from it. Raises ValueError."""
    text = inside.strip()
    tag = "{{" + inside[:_MAX_SHOWN] + "}}"
    namespace = next((name for name in NAMESPACES if re.match(rf"{name}(?![\w-])", text)), None)
    if namespace is None:
        raise ValueError(f"the template {tag} must begin with item. or sample., the only namespaces")
    if len(text) > _MAX_PATH:
        raise ValueError(f"the template {tag}… is longer than {_MAX_PATH} characters")
    steps: list[str | int] = []
    place = len(namespace)
    while place < len(text):
        step = _STEP.match(text, place)
        if step is None:
            raise ValueError(
                f"the template {tag} cannot be read at {text[place : place + 20]!r}: write names after dots, places "
                'in brackets and other keys in quotes, such as item.tags[0]["correct answer"]'
            )
        steps.append(int(step["place"]) if step["place"] else step["name"] or step["key"])
        place = step.end()
    return namespace, steps


def _look_up_value(inside: str, namespaces: Mapping[str, Mapping[str, Any]]) -> Any:
    namespace, steps = _parse_path(inside)
    value: Any = namespaces[namespace]
    if namespace == "sample" and steps[:1] == ["output_json"] and "output_json" not in value:
        raise Failure("sample_parse_error", "the answer is not JSON, so {{sample.output_json}} has no value")
    for step in steps:
        has_step, value = _follow_step(value, step)
        if not has_step:
            raise Failure("invalid_variable_error", f"{{{{{inside.strip()[:_MAX_SHOWN]}}}}} has no value: no {step!r}")
    return value


def _follow_step(value: Any, step: str | int) -> tuple[bool, Any]:
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        return str(step) in fields, fields.get(str(step))
    if isinstance(value, Sequence) and not isinstance(value, str):
        items = cast("Sequence[Any]", value)
        place = int(step) if str(step).isdecimal() else len(items)
        return place < len(items), items[place] if place < len(items) else None
    return False, None


def _render_value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
