"""Text is shown as soon as it is certain, and never more than the answer."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fixtures.tiny_model import make_tokenizer
from trainer.chat.text import TextStream

TOKENIZER = make_tokenizer()


def streamed(text: str, stops: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    stream = TextStream(TOKENIZER, stops)
    shown: list[str] = []
    for token in TOKENIZER(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]:
        shown.append(stream.add_token(token))
        if stream.stopped:
            break
    return [*shown, stream.finish_text()], stream.stopped


def test_characters_of_several_tokens_come_whole() -> None:
    shown, _ = streamed("好的 ok 🙂")
    assert [piece for piece in shown if piece] == ["好", "的", " ", "o", "k", " ", "🙂"]


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_pieces_make_the_text(text: str) -> None:
    assert "".join(streamed(text)[0]) == text


@settings(deadline=None)
@given(st.text("ab好\n", max_size=30), st.lists(st.text("ab好\n", min_size=1, max_size=4), min_size=1, max_size=3))
def test_the_text_ends_in_front_of_the_first_stop(text: str, stops: list[str]) -> None:
    shown, stopped = streamed(text, tuple(stops))
    # Tokens come one by one: the stop that is complete first ends the answer.
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    assert stopped == bool(ends)
    if not ends:
        assert "".join(shown) == text
        return
    heard = text[: min(ends)]
    assert "".join(shown) == heard[: min(heard.find(stop) for stop in stops if stop in heard)]


def test_a_mark_comes_as_its_character_and_other_special_tokens_not_at_all() -> None:
    mark, other = TOKENIZER.convert_tokens_to_ids(["<|im_start|>", "<|endoftext|>"])
    stream = TextStream(TOKENIZER, (), {mark: "\U0010ff00"})
    tokens = TOKENIZER("好<|im_start|>a<|endoftext|>🙂<|im_start|>", add_special_tokens=False)["input_ids"]
    assert tokens.count(mark) == 2
    assert other in tokens
    shown = "".join(stream.add_token(token) for token in tokens)
    assert shown == "好\U0010ff00a🙂\U0010ff00"
    # Half a character in front of a mark is lost, the mark is not.
    half = TOKENIZER("好", add_special_tokens=False)["input_ids"][:2]
    assert "".join(map(stream.add_token, [*half, mark])) == "\ufffd\U0010ff00"
    assert stream.finish_text() == ""


def test_an_unfinished_character_at_the_end_is_shown_as_such() -> None:
    stream = TextStream(TOKENIZER, ())
    tokens = TOKENIZER("a好", add_special_tokens=False)["input_ids"]
    shown = [stream.add_token(token) for token in tokens[:-1]]
    assert "".join(shown) == "a"
    assert stream.finish_text() == "\ufffd"
