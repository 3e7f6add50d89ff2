"""The tokens that end an answer, and those that the template writes behind one."""

from __future__ import annotations

from trainer.contract.rows import ChatRow, Message
from trainer.engine.chat_template.abilities import make_word
from trainer.engine.chat_template.render import ChatTemplate
from trainer.engine.chat_template.stop_words import list_ids


def closing_ids(template: ChatTemplate) -> tuple[int, ...]:
    """Return the tokens behind an assistant's content in a row: its end of turn and what the template adds."""
    word = make_word(0)
    row = ChatRow(messages=(Message(role="user", content="a"), Message(role="assistant", content=word)))
    text = template.render_row(row)[-1]
    return tuple(template.tokenizer(text.rpartition(word)[2], add_special_tokens=False)["input_ids"])


def stop_ids(template: ChatTemplate, known: int | list[int] | None) -> tuple[int, ...]:
    """Return the ids that end an answer: the model's own, the tokenizer's, and the template's ends of turns."""
    tokenizer = template.tokenizer
    stops = set(list_ids(known))
    if isinstance(tokenizer.eos_token_id, int):
        stops.add(tokenizer.eos_token_id)
    for word in template.ends_of_turns:
        token = tokenizer.convert_tokens_to_ids(word)
        assert isinstance(token, int)
        stops.add(token)
    return tuple(sorted(stops))
