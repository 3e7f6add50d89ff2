from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from burnish.datasets import ROW_FORMATS
from burnish.datasets.converters import CONVERTERS

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "datasets.md").read_text(encoding="utf-8")
SECTIONS = {section.splitlines()[0].lower(): section for section in PAGE.split("\n## ")[1:]}
HEADINGS = {"supervised": "supervised fine-tuning"}


@pytest.mark.parametrize("method", ROW_FORMATS)
def test_the_row_that_is_shown_for_a_method_is_a_good_one(method: str) -> None:
    wanted = HEADINGS.get(method, rf"\b{method}\b")
    (section,) = [text for heading, text in SECTIONS.items() if re.search(wanted, heading)]
    shown = re.findall(r"```json\n(.*?)```", section, re.DOTALL)
    assert shown
    assert [ROW_FORMATS[method].check_row(json.loads(row)) for row in shown] == [[]] * len(shown)


def test_every_converter_is_described() -> None:
    described = re.findall(r"^\| `([a-z][\w-]*)` \|", SECTIONS["converting what you have"], re.MULTILINE)
    assert sorted(described) == sorted(CONVERTERS)
