"""HH-RLHF: `{"chosen", "rejected"}`, whole transcripts of `\\n\\nHuman: …\\n\\nAssistant: …`."""

from __future__ import annotations

from burnish.datasets.base import Row
from burnish.datasets.converters.base import RankedExample, RankedResponse, require_string
from burnish.datasets.converters.prompts import with_system
from burnish.datasets.converters.turns import parse_transcript, split_common_prompt


class HumanAssistantConverter:
    """Two transcripts that begin alike; the prompt is as far as they do."""

    def matches_row(self, row: Row) -> bool:
        """Whether chosen and rejected are transcripts."""
        starts = ("\n\nHuman:", "Human:", "\n\nAssistant:")
        return "prompt" not in row and all(str(row.get(key, "")).startswith(starts) for key in ("chosen", "rejected"))

    def convert_row(self, row: Row) -> RankedExample:
        """Return the prompt and the rest of each transcript."""
        prompt, *answers = split_common_prompt(
            *(parse_transcript(require_string(row, key), key) for key in ("chosen", "rejected"))
        )
        responses = [RankedResponse(answer, rank) for rank, answer in enumerate(answers, start=1)]
        return RankedExample(with_system(row, prompt), responses)
