"""Text in Unicode's Stream-Safe Text Format (UAX 15, section 13), so that its normalisation takes linear time.

Python puts a run of non-starters (combining marks) in order by insertion: a run of n marks takes n² steps, and 30,000
of them behind one letter keep Python's lock for a second. No language writes more than 30 in a row, so only text that
is made for the purpose, or decorated with stacks of marks, gets the format's joiners.
"""

from __future__ import annotations

import re
import unicodedata

MOST_NON_STARTERS = 30
JOINER = "\u034f"
"""COMBINING GRAPHEME JOINER: a starter that shows nothing."""

# Marks are neither letters nor digits nor spaces. One is two non-starters at most once it is decomposed, and the letter
# before ends with three at most (U+1F82), so more than 30 in a row are at least 14 marks.
_CANDIDATE = re.compile(r".?[^\w\s\x00-\x7f]{14,}", re.DOTALL)


def make_stream_safe(text: str) -> str:
    """Return the text with a joiner wherever more than 30 non-starters would follow each other."""
    return _CANDIDATE.sub(lambda match: _with_joiners(match[0]), text)


def _with_joiners(text: str) -> str:
    """Return the text by the Stream-Safe Text Process, with canonical decompositions, as NFC has no others."""
    safe: list[str] = []
    run = 0
    for character in text:
        classes = [unicodedata.combining(part) for part in unicodedata.normalize("NFD", character)]
        first = next((place for place, kind in enumerate(classes) if not kind), len(classes))
        if run + first > MOST_NON_STARTERS:
            safe.append(JOINER)
            run = 0
        if first == len(classes):
            run += first
        else:
            run = next(place for place, kind in enumerate(reversed(classes)) if not kind)
        safe.append(character)
    return "".join(safe)
