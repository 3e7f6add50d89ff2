"""Real templates: trained is what the assistant wrote, behind what chat sees, up to a stop, or the row is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from transformers.utils import chat_template_utils

from tests.fixtures.chat_templates import TRL_TEMPLATES, find_runs, judge_template, make_row, open_template

FILES = sorted(TRL_TEMPLATES.glob("*.jinja"))
# What a template itself refuses, or renders such that no answer can be generated there.
REFUSED = {
    "greets first": re.compile("must alternate"),
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_row_is_right_or_refused(path: Path) -> None:
    verdicts = judge_template(path.read_text(encoding="utf-8"))
    assert {kind: verdict.reason for kind, verdict in verdicts.items() if verdict.outcome == "wrong"} == {}
    for kind, verdict in verdicts.items():
        if verdict.outcome == "refused":
            assert kind in REFUSED, (kind, verdict.reason)
            assert REFUSED[kind].search(verdict.reason)


def test_the_wheel_brings_its_templates() -> None:
    assert len(FILES) >= 54


MARKED = [path for path in FILES if re.search(r"{%-?\s*generation", path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("path", MARKED, ids=lambda path: path.stem)
@pytest.mark.parametrize("kind", ["one turn", "system", "Chinese"])
def test_marks_of_generation_agree(path: Path, kind: str) -> None:
    template = open_template(path.read_text(encoding="utf-8"))
    row = make_row(kind, template)
    messages = [{"role": message.role, "content": message.text} for message in row.messages]
    if template._runner.as_parts:
        messages = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
    encoded = template.encode_row(row)
    if "system" in encoded.notes:
        return  # the template refuses the messages as they are
    (sequence,) = encoded.sequences
    tokenizer = template.tokenizer
    (text,), (marks,) = chat_template_utils.render_jinja_template(
        [messages],
        chat_template=str(tokenizer.chat_template),
        return_assistant_tokens_mask=True,
        **tokenizer.special_tokens_map,
        **template.settings,
    )
    trained = "".join(
        str(tokenizer.decode(list(sequence.ids[start:end]), clean_up_tokenization_spaces=False))
        for start, end in find_runs(sequence.trained)
    )
    marked = "".join(text[start:end] for start, end in marks)
    # From the first word of the answer on: in front of it, marks may have the role's header, which nobody generates,
    # and lack the end of a thought that the prompt has opened. Some leave out the end of the turn, or go on behind it.
    words = row.messages[-1].text
    shorter, longer = sorted((text[text.index(words) :].strip() for text in (trained, marked)), key=len)
    assert longer.startswith(shorter)
