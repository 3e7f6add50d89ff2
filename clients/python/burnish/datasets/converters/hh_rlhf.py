"""HH-RLHF: `{"chosen", "rejected"}`, whole transcripts of `\\n\\nHuman: …\\n\\nAssistant: …`."""

from __future__ import annotations

from burnish.datasets.base import Row
from burnish.datasets.converters.base import RankedExample, Response, string
from burnish.datasets.converters.turns import split, transcript


class HumanAssistant:
    """Two transcripts that begin alike; the prompt is as far as they do."""

    def matches(self, row: Row) -> bool:
        """Whether chosen and rejected are transcripts."""
        starts = ("\n\nHuman:", "Human:", "\n\nAssistant:")
        return "prompt" not in row and all(str(row.get(key, "")).startswith(starts) for key in ("chosen", "rejected"))

    def convert(self, row: Row) -> RankedExample:
        """Return the prompt and how each transcript goes on."""
        prompt, *answers = split(*(transcript(string(row, key), key) for key in ("chosen", "rejected")))
        return RankedExample(prompt, [Response(answer, rank) for rank, answer in enumerate(answers, start=1)])
