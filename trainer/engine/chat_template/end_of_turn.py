"""The tokens that end an answer, and those that the template writes behind one."""

from __future__ import annotations

from trainer.engine.chat_template.render import ChatTemplate

_PROBE = "burnishprobe"


def closing_ids(template: ChatTemplate) -> tuple[int, ...]:
    """Return the tokens that the template writes behind an assistant's content: its end of turn and what follows."""
    text = template.render([{"role": "user", "content": "a"}, {"role": "assistant", "content": _PROBE}], None)
    return tuple(template.tokenizer(text.rpartition(_PROBE)[2], add_special_tokens=False)["input_ids"])


def stop_ids(template: ChatTemplate, known: int | list[int] | None) -> tuple[int, ...]:
    """Return the ids that end an answer: the model's own, the tokenizer's, and the template's end of turn."""
    stops: set[int] = {known} if isinstance(known, int) else set(known or ())
    tokenizer = template.tokenizer
    if isinstance(tokenizer.eos_token_id, int):
        stops.add(tokenizer.eos_token_id)
    if template.end_of_turn:
        found = tokenizer.convert_tokens_to_ids(template.end_of_turn)
        assert isinstance(found, int)
        stops.add(found)
    return tuple(sorted(stops))
