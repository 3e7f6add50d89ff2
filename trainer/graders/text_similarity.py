"""`text_similarity`: how alike an answer and a reference are, from 0 to 1. The measures are in `similarity.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

from pydantic import field_validator

from trainer.graders import similarity
from trainer.graders.base import Failure, Scene, Template
from trainer.graders.leaf import Leaf
from trainer.graders.templates import fill_template

Metric = Literal[
    "cosine",
    "fuzzy_match",
    "bleu",
    "gleu",
    "meteor",
    "rouge_1",
    "rouge_2",
    "rouge_3",
    "rouge_4",
    "rouge_5",
    "rouge_l",
]
_WITH_SIGNS: Mapping[str, Callable[[Sequence[str], Sequence[str]], float]] = {
    "bleu": similarity.bleu,
    "gleu": similarity.gleu,
    "meteor": similarity.meteor,
}
_ROUGE: Mapping[str, Callable[[Sequence[str], Sequence[str]], float]] = {
    **{f"rouge_{order}": partial(similarity.rouge_n, order=order) for order in range(1, 6)},
    "rouge_l": similarity.rouge_l,
}


class TextSimilarityGrader(Leaf):
    """Compares `input` with `reference` by one measure."""

    type: Literal["text_similarity"] = "text_similarity"
    input: Template
    reference: Template
    evaluation_metric: Metric

    @field_validator("evaluation_metric")
    @classmethod
    def _without_embeddings(cls, value: Metric) -> Metric:
        if value == "cosine":
            raise ValueError(
                "cosine compares embeddings, and this service has no model that makes them: use fuzzy_match, bleu, "
                "gleu, meteor, rouge_1 … rouge_5 or rouge_l"
            )
        return value

    def list_templates(self) -> Sequence[str]:
        return self.input, self.reference

    def compute_reward(self, scene: Scene) -> float:
        """Return the similarity. Raises Failure, also if a text is too long to be compared."""
        texts = fill_template(self.input, scene), fill_template(self.reference, scene)
        if max(map(len, texts)) > similarity.MOST_CHARACTERS:
            raise _too_long(similarity.MOST_CHARACTERS, "characters")
        if self.evaluation_metric == "fuzzy_match":
            scene.work.count_cells(len(texts[0]), len(texts[1]), "characters")
            return similarity.fuzzy_match(*texts)
        measure = _WITH_SIGNS.get(self.evaluation_metric)
        signs = measure is not None
        text_tokens, reference_tokens = (similarity.split_tokens(text, signs=signs) for text in texts)
        if max(len(text_tokens), len(reference_tokens)) > similarity.MOST_TOKENS:
            raise _too_long(similarity.MOST_TOKENS, "tokens")
        if self.evaluation_metric == "rouge_l":
            scene.work.count_cells(len(text_tokens), len(reference_tokens), "tokens")
        return (measure or _ROUGE[self.evaluation_metric])(text_tokens, reference_tokens)


def _too_long(most: int, unit: str) -> Failure:
    return Failure("truncated_observation_error", f"a text has more than {most} {unit}, the most that are compared")
