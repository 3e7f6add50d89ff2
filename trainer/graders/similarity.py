"""How alike two texts are, from 0 to 1, by the tokens that they share.

A token is a word in lower case (letters, digits, `_`), or a sign; of writing without spaces (Chinese, Japanese) every
character is one. ROUGE takes words and characters alone, without the signs, as its Perl original does.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from rapidfuzz import fuzz
from rapidfuzz.distance import LCSseq

from trainer.graders.stream_safe import make_stream_safe

MOST_TOKENS = 20_000
"""The most tokens of a text that is compared."""
MOST_CHARACTERS = 200_000

# Han, kana (full and half width), and the marks of repetition and of zero.
_CHARACTER = (
    "\u3005\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_WORD = rf"[{_CHARACTER}]|[^\W{_CHARACTER}]+"
_WORDS = re.compile(_WORD)
_WORDS_AND_SIGNS = re.compile(rf"{_WORD}|[^\w\s]")
_BLEU_ORDER = _GLEU_ORDER = 4


def split_tokens(text: str, *, signs: bool) -> list[str]:
    """Return a text's tokens, after Unicode's composition (NFC); `signs`: commas, stops and the like too."""
    normal_text = unicodedata.normalize("NFC", make_stream_safe(text)).lower()
    return (_WORDS_AND_SIGNS if signs else _WORDS).findall(normal_text)


def fuzzy_match(text: str, reference: str) -> float:
    """RapidFuzz's `ratio`: 2·L / (n + m), with L the characters of the longest common subsequence."""
    return fuzz.ratio(text, reference) / 100


def bleu(text: Sequence[str], reference: Sequence[str]) -> float:
    """BLEU of one sentence (Papineni et al. 2002): the geometric mean of 1- to 4-gram precisions, times the brevity.

    As sacreBLEU's `sentence_bleu`: an order without a match counts 1/2, 1/4, … of one (`exp`, Chen and Cherry 2014,
    method 3), and orders that the text is too short for are left out.
    """
    logs: list[float] = []
    smoothing = 1.0
    for order in range(1, min(_BLEU_ORDER, len(text)) + 1):
        text_ngrams, reference_ngrams = _count_ngrams(text, order), _count_ngrams(reference, order)
        matches, total = (text_ngrams & reference_ngrams).total(), len(text) - order + 1
        if order == 1 and not matches:
            return 0.0
        if not matches:
            smoothing *= 2
        logs.append(math.log((matches or 1 / smoothing) / total))
    if not logs:
        return 0.0
    brevity = min(0.0, 1 - len(reference) / len(text))
    return math.exp(brevity + math.fsum(logs) / len(logs))


def gleu(text: Sequence[str], reference: Sequence[str]) -> float:
    """Google's BLEU (Wu et al. 2016): shared 1- to 4-grams, over those of the text or the reference if it has more."""
    shared_total = most = text_total = 0
    for order in range(1, _GLEU_ORDER + 1):
        text_ngrams, reference_ngrams = _count_ngrams(text, order), _count_ngrams(reference, order)
        shared_total += (text_ngrams & reference_ngrams).total()
        text_total, most = text_total + text_ngrams.total(), most + reference_ngrams.total()
    return shared_total / max(text_total, most) if text_total and most else 0.0


def meteor(text: Sequence[str], reference: Sequence[str]) -> float:
    """METEOR (Banerjee and Lavie 2005) with its first stage alone, equal tokens: no stems and no synonyms.

    F = P·R / (0.9·P + 0.1·R), times 1 - 0.5·(chunks / matches)³, where a chunk is a run of matches that stands in
    the same order in both; NLTK's parameters, and its alignment from the end.
    """
    places: dict[str, list[int]] = {}
    for place, token in enumerate(reference):
        places.setdefault(token, []).append(place)
    matches = [(place, places[token].pop()) for place, token in reversed([*enumerate(text)]) if places.get(token)]
    if not matches:
        return 0.0
    matches.reverse()
    chunks = 1 + sum(after != (before[0] + 1, before[1] + 1) for before, after in pairwise(matches))
    precision, recall = len(matches) / len(text), len(matches) / len(reference)
    mean = precision * recall / (0.9 * precision + 0.1 * recall)
    return mean * (1 - 0.5 * (chunks / len(matches)) ** 3)


def rouge_n(text: Sequence[str], reference: Sequence[str], order: int) -> float:
    """ROUGE-N (Lin 2004): the F1 of the shared n-grams."""
    text_ngrams, reference_ngrams = _count_ngrams(text, order), _count_ngrams(reference, order)
    return _f1_score((text_ngrams & reference_ngrams).total(), text_ngrams.total(), reference_ngrams.total())


def rouge_l(text: Sequence[str], reference: Sequence[str]) -> float:
    """ROUGE-L (Lin 2004): the F1 of the longest common subsequence of tokens."""
    return _f1_score(LCSseq.similarity(text, reference), len(text), len(reference))


def _count_ngrams(of: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(of[place : place + order]) for place in range(len(of) - order + 1))


def _f1_score(shared_count: int, text_count: int, reference_count: int) -> float:
    return 2 * shared_count / (text_count + reference_count) if shared_count else 0.0
