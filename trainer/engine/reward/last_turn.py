"""The part of a conversation that a reward model scores."""

from __future__ import annotations

from trainer.contract.rows import ChatRow


def last_turn(row: ChatRow) -> ChatRow:
    """Return the conversation with only its last message marked: prompt and answer are tokenized apart there."""
    *prompt, answer = row.messages
    quiet = [m.model_copy(update={"weight": 0}) if m.role == "assistant" else m for m in prompt]
    return row.model_copy(update={"messages": (*quiet, answer.model_copy(update={"weight": None}))})
