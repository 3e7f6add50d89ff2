"""The table of forms: calls, thoughts, and answers of several messages. A new one is a file and its line here."""

from __future__ import annotations

from trainer.engine.answer_format.forms.deepseek import DEEPSEEK, KIMI_K2
from trainer.engine.answer_format.forms.function_tags import FUNCTION_TAG_FORMS
from trainer.engine.answer_format.forms.gemma4 import GEMMA4
from trainer.engine.answer_format.forms.glm import GLM
from trainer.engine.answer_format.forms.invoke_tags import INVOKE_FORMS
from trainer.engine.answer_format.forms.json_calls import HERMES, JSON_FORMS
from trainer.engine.answer_format.forms.kimi_k3 import KIMI_K3
from trainer.engine.answer_format.forms.llama import LLAMA_FORMS
from trainer.engine.answer_format.forms.messages import MESSAGE_FORMS
from trainer.engine.answer_format.forms.mistral import MISTRAL
from trainer.engine.answer_format.forms.python_calls import PYTHON_FORMS
from trainer.engine.answer_format.grammar import CallForm, ThoughtMarks

__all__ = ["CALL_FORMS", "HERMES", "MESSAGE_FORMS", "THOUGHT_MARKS"]

CALL_FORMS: tuple[CallForm, ...] = (
    *JSON_FORMS,
    *FUNCTION_TAG_FORMS,
    GLM,
    MISTRAL,
    DEEPSEEK,
    KIMI_K2,
    KIMI_K3,
    *INVOKE_FORMS,
    GEMMA4,
    *LLAMA_FORMS,
    *PYTHON_FORMS,
)
"""Tried in this order: the first that reads a probe back is the template's."""

THOUGHT_MARKS: tuple[ThoughtMarks, ...] = (
    ThoughtMarks("<think>", "</think>"),
    ThoughtMarks("<|channel>thought\n", "<channel|>", stripped_by="<|channel>"),
    ThoughtMarks("<|START_THINKING|>", "<|END_THINKING|>"),
    ThoughtMarks("[THINK]", "[/THINK]"),
    ThoughtMarks("<seed:think>", "</seed:think>"),
    ThoughtMarks("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    ThoughtMarks("<|inner_prefix|>", "<|inner_suffix|>"),
    ThoughtMarks("<thinking>", "</thinking>"),
    ThoughtMarks("<reasoning>", "</reasoning>"),
    ThoughtMarks("<thought>", "</thought>"),
)
