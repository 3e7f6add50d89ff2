"""What methods on conversations share on the wire: which rows may be left out, and what becomes of thoughts."""

from __future__ import annotations

from pydantic import Field

from trainer.contract.methods.base import CommonHyperparameters, ThoughtUse


class ConversationHyperparameters(CommonHyperparameters):
    """For methods whose rows are rendered with the base's chat template."""

    skip_invalid_rows: float = Field(default=0.0, ge=0, lt=1)
    """The share of a file's rows that may be left out because the chat template cannot render them."""

    @property
    def invalid_share(self) -> float:
        """The share of a file's rows that may be left out."""
        return self.skip_invalid_rows


class AnswerHyperparameters(ConversationHyperparameters):
    """For methods that train the answers of their rows."""

    thoughts: ThoughtUse = "train"
    """What becomes of `reasoning_content`: in the loss, in the answer but not in the loss, or left out."""

    @property
    def thought_use(self) -> ThoughtUse:
        """What becomes of an answer's thoughts."""
        return self.thoughts
