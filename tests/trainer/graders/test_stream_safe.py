"""Text before it is normalised: what people write stays as it is, and no run of marks is longer than UAX 15 allows."""

from __future__ import annotations

import sys
import time
import unicodedata
from itertools import groupby

import pytest

from trainer.graders.similarity import split_tokens
from trainer.graders.stream_safe import JOINER, MOST_NON_STARTERS, make_stream_safe

HONEST = (
    "今天北京的天气很好\uff0c适合出门散步……!!!!!!!!!!!!!!!!!!!!",
    "Việt Nam đất nước tuyệt vời, những người bạn thân thiết",
    "ที่นี่มีผู้คนมากมายและน้ำใจดีเยี่ยม",
    "안녕하세요, 한국어 문장입니다",
    "בְּרֵאשִׁית בָּרָא אֱלֹהִים אֵת הַשָּׁמַיִם",
    "بِسْمِ ٱللَّهِ ٱلرَّحْمَـٰنِ ٱلرَّحِيمِ",
    "हिन्दी में क्षेत्रीय ज्ञान",
    "བོད་སྐད་ཧཱུྃ་བྷྲཱུྃ",
    "👩🏽\u200d👩🏽\u200d👧🏽\u200d👦🏽👍🏿🇨🇳❤\ufe0f\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "Z\u0351\u0343\u0309\u0363a\u0363\u0366\u0343\u0308l\u036b\u0364g\u036co",
    "\uff76\uff9e\uff77\uff9e\uff78\uff9e",
)


@pytest.mark.parametrize("text", HONEST)
@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_what_people_write_stays_as_it_is(text: str, form: str) -> None:
    written = unicodedata.normalize(form, text) * 50  # type: ignore[arg-type]
    assert make_stream_safe(written) == written
    composed = unicodedata.normalize("NFC", written).lower()
    assert split_tokens(written, signs=True) == split_tokens(composed, signs=True)


def _longest_run(text: str) -> int:
    classes = [unicodedata.combining(character) != 0 for character in unicodedata.normalize("NFD", text)]
    return max((len(list(run)) for is_mark, run in groupby(classes) if is_mark), default=0)


@pytest.mark.parametrize("marks", ["\u0301", "\u0301\u0316", "\u0344", "\u0f73\u0f75", "\u3099", "\u0e38\u0e48"])
@pytest.mark.parametrize("before", ["", "a", "字", "\u1f82", "か", "\ud55c", " "])
def test_no_run_of_marks_is_longer_than_thirty(marks: str, before: str) -> None:
    for length in (29, 30, 31, 32, 100, 1000):
        text = before + (marks * length)[:length] + "结束"
        safe = make_stream_safe(text)
        assert _longest_run(safe) <= MOST_NON_STARTERS
        assert safe.replace(JOINER, "") == text
        assert (safe == text) == (_longest_run(text) <= MOST_NON_STARTERS)
        assert make_stream_safe(safe) == safe


def test_every_character_that_can_be_in_a_long_run_is_looked_at() -> None:
    """The search for such runs goes by what is no letter, no digit and no space."""
    for character in map(chr, range(0x80, sys.maxunicode + 1)):
        parts = unicodedata.normalize("NFD", character)
        if all(map(unicodedata.combining, parts)):
            assert len(parts) <= 2
            assert not character.isalnum()
            assert not character.isspace()


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["\u0301\u0316", "\u0f73\u0e38", "a" + "\u0301\u0316" * 5000, "\u2026", "。\u0301"])
def test_normalising_takes_linear_time(unit: str) -> None:
    text = ("a" + unit * (200_000 // len(unit)))[:200_000]
    began = time.process_time()
    split_tokens(text, signs=True)
    assert time.process_time() - began < 3
