"""Answers of several messages: gpt-oss's harmony with its channels, and Muse with its recipients."""

from __future__ import annotations

import re

from trainer.engine.answer_format.forms.invoke_tags import make_invoke_reader
from trainer.engine.answer_format.grammar import MessageForm, MessageHeader
from trainer.engine.answer_format.parts import OfferedTools, dump_arguments, load_json

_TO = r"\s*(?:to=([^\s<]+))?\s*"
_HARMONY = re.compile(
    rf"{_TO}(?:<\|channel\|>\s*(analysis|commentary|final){_TO})?(?:<\|constrain\|>|\s)*(?:json|code)?\s*"
)
_MUSE = re.compile(r"\s*to=([^\s<]+)\s*")
_BLOCK = re.compile(r"\s*<atem:function_calls>(.*)</atem:function_calls>\s*", re.DOTALL)
_read_muse_calls = make_invoke_reader("atem:")


def _read_harmony_header(header: str) -> MessageHeader | None:
    match = _HARMONY.fullmatch(header)
    recipient = match and (match[1] or match[3])
    if recipient:
        return MessageHeader("tool_call", recipient.removeprefix("functions."))
    if match is None or match[2] is None:
        return None
    # A preamble in the channel `commentary` is meant for the user.
    return MessageHeader("reasoning" if match[2] == "analysis" else "content")


def _read_harmony_arguments(_tool: str, body: str, _tools: OfferedTools) -> str | None:
    try:
        return dump_arguments(load_json(body))
    except ValueError:
        return None


def _read_muse_header(header: str) -> MessageHeader | None:
    recipient = _MUSE.fullmatch(header)
    if recipient is None:
        return None
    if recipient[1] in ("self", "user"):
        return MessageHeader("reasoning" if recipient[1] == "self" else "content")
    return MessageHeader("tool_call", recipient[1])


def _read_muse_arguments(tool: str, body: str, tools: OfferedTools) -> str | None:
    block = _BLOCK.fullmatch(body)
    calls = None if block is None else _read_muse_calls(block[1], tools)
    return calls[0].arguments if calls and len(calls) == 1 and calls[0].name == tool else None


MESSAGE_FORMS = (
    MessageForm(
        "harmony",
        opening="<|start|>",
        role="assistant",
        body="<|message|>",
        closings=("<|end|>", "<|call|>", "<|return|>"),
        header_starts=("<|channel|>", "to="),
        read_header=_read_harmony_header,
        read_arguments=_read_harmony_arguments,
        inner_marks=("<|channel|>", "<|constrain|>"),
    ),
    MessageForm(
        "muse",
        opening="<|start|>",
        role="assistant",
        body="<|message|>",
        closings=("<|eom|>", "<|eot|>"),
        header_starts=("to=",),
        read_header=_read_muse_header,
        read_arguments=_read_muse_arguments,
    ),
)
