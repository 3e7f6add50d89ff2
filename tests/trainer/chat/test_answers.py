"""Answers are what transformers' own decoding gives, with every adapter, and stop where they should."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.fixtures.adapters import make_adapter
from trainer.chat import answers as chat_answers
from trainer.chat import models as chat_models
from trainer.chat.answers import answer_conversation
from trainer.chat.decode import DrawnToken
from trainer.chat.models import BaseModelCache
from trainer.contract.chat import AdapterRef, AnswerPiece, Ask, Began, Done, Ended, Paused, Resumed, Sampling
from trainer.contract.rows import Message
from trainer.kit.errors import TrainerError

MESSAGES = (Message(role="system", content="简短回答"), Message(role="user", content="你好, who are you?"))


@pytest.fixture(scope="module")
def adapters(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[AdapterRef]:
    folder = tmp_path_factory.mktemp("adapters")
    return [
        AdapterRef(name=f"job-{seed}", path=make_adapter(tiny_base, folder / str(seed), seed=seed)) for seed in (1, 2)
    ]


@pytest.fixture(scope="module")
def models() -> BaseModelCache:
    return BaseModelCache()


def ask(base: Path, adapter: AdapterRef | None = None, **sampling: Any) -> Ask:
    drawn: dict[str, Any] = {"max_tokens": 24, "temperature": 0, **sampling}
    return Ask(id="a", base=base, adapter=adapter, messages=MESSAGES, sampling=Sampling(**drawn))


def told(models: BaseModelCache, order: Ask) -> list[Any]:
    return list(answer_conversation(models, order, lambda: False))


def text(events: list[Any], index: int = 0) -> str:
    return "".join(event.text for event in events if isinstance(event, AnswerPiece) and event.index == index)


def reference(base: Path, adapter: AdapterRef | None, tokens: int) -> tuple[str, torch.Tensor]:
    """Answer with transformers alone; also return the log-probabilities [tokens, vocabulary]."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model: Any = AutoModelForCausalLM.from_pretrained(base).eval()
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter.path)).merge_and_unload()
    rows = [{"role": m.role, "content": m.content} for m in MESSAGES]
    prompt = tokenizer.apply_chat_template(rows, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False)
    with torch.no_grad():
        scores = model(out).logits[0, ids.shape[1] - 1 : -1].log_softmax(-1)
    return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True), scores


@pytest.mark.slow
def test_greedy_answers_are_those_of_transformers_with_each_adapter_and_without(
    models: BaseModelCache, tiny_base: Path, adapters: list[AdapterRef]
) -> None:
    chosen = [None, adapters[0], adapters[1], None, adapters[0]]
    answers = [text(told(models, ask(tiny_base, adapter))) for adapter in chosen]
    expected = {adapter and adapter.name: reference(tiny_base, adapter, 24)[0] for adapter in (None, *adapters)}
    assert answers == [expected[adapter and adapter.name] for adapter in chosen]
    assert len(set(answers)) == 3


def test_log_probabilities_are_the_models(models: BaseModelCache, tiny_base: Path, adapters: list[AdapterRef]) -> None:
    events = told(models, ask(tiny_base, adapters[0], top_logprobs=3, max_tokens=8))
    pieces = [token for event in events if isinstance(event, AnswerPiece) for token in event.logprobs]
    _, scores = reference(tiny_base, adapters[0], 8)
    values, _ = scores.topk(3)
    assert len(pieces) == 8
    for token, row in zip(pieces, values.tolist(), strict=True):
        assert token.logprob == pytest.approx(row[0], abs=1e-4)
        assert [other.logprob for other in token.top] == pytest.approx(row, abs=1e-4)


WRITES = (
    "<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ m.content }}{% for c in m.tool_calls or [] %}[TOOL_CALLS]{{ c.function.name }}[ARGS]"
    "{{ c.function.arguments | tojson(ensure_ascii=False) }}{% endfor %}<|im_end|>\n"
)
WRITES = f"{{% for m in messages %}}{WRITES}{{% endfor %}}" + (
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WEATHER = {"type": "function", "function": {"name": "天气", "parameters": {"type": "object", "properties": {}}}}


def answer_with(
    text: str, base: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, template: str = WRITES, **asked: Any
) -> list[Any]:
    """Answer as if the model drew the tokens of a text, on a base with marks of calls that are special tokens."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = template
    tokenizer.add_special_tokens({"additional_special_tokens": ["[TOOL_CALLS]", "[ARGS]"]})
    AutoModelForCausalLM.from_pretrained(base).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    drawn = [DrawnToken(token, -1.0, ()) for token in ids]
    monkeypatch.setattr(chat_answers, "draw_answer", lambda *_: iter(drawn))
    return told(BaseModelCache(), ask(folder, top_logprobs=0).model_copy(update=asked))


def show_parts(events: list[Any]) -> list[tuple[str, str, str]]:
    """Return the parts of the first answer, neighbours of one kind joined."""
    parts: list[tuple[str, str, str]] = []
    for event in events:
        if isinstance(event, AnswerPiece) and (event.text or event.tool):
            if parts and parts[-1][:2] == (event.kind, event.tool) == (event.kind, ""):
                parts[-1] = (event.kind, "", parts[-1][2] + event.text)
            else:
                parts.append((event.kind, event.tool, event.text))
    return parts


def test_thoughts_text_and_calls_come_apart_with_every_token_s_bytes(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '<think>\n想 🙂\n</think>\n\n好的 🙂[TOOL_CALLS]天气[ARGS]{"city": "北京"}<|im_end|>'
    events = answer_with(text, tiny_base, tmp_path, monkeypatch, tools=(WEATHER,))
    assert show_parts(events) == [
        ("reasoning", "", "想 🙂"),
        ("content", "", "好的 🙂"),
        ("tool_call", "天气", '{"city": "北京"}'),
    ]
    logprobs = [token for event in events if isinstance(event, AnswerPiece) for token in event.logprobs]
    assert b"".join(bytes(token.bytes or ()) for token in logprobs).decode() == text.removesuffix("<|im_end|>")


def test_a_call_of_a_tool_that_was_not_offered_is_text(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '好的[TOOL_CALLS]天气[ARGS]{"city": "北京"}'
    other = {"type": "function", "function": {"name": "时间"}}
    for tools in (None, (other,)):
        events = answer_with(text, tiny_base, tmp_path, monkeypatch, tools=tools)
        assert show_parts(events) == [("content", "", text)]


def test_a_prompt_that_opens_the_thought_begins_in_it(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = WRITES.replace("<|im_start|>assistant\n{% endif", "<|im_start|>assistant\n<think>\n{% endif")
    events = answer_with("想\n</think>\n\n好的", tiny_base, tmp_path, monkeypatch, template)
    assert show_parts(events) == [("reasoning", "", "想"), ("content", "", "好的")]


@pytest.mark.slow
def test_a_seed_decides_what_is_drawn_and_answers_differ(models: BaseModelCache, tiny_base: Path) -> None:
    order = ask(tiny_base, temperature=1.0, seed=5, n=3)
    first, again = told(models, order), told(models, order)
    assert first == again
    assert len({text(first, index) for index in range(3)}) == 3
    other = told(models, ask(tiny_base, temperature=1.0, seed=6))
    assert text(other) != text(first)
    unseeded = [text(told(models, ask(tiny_base, temperature=1.0))) for _ in range(2)]
    assert unseeded[0] != unseeded[1]


def test_a_small_nucleus_is_greedy(models: BaseModelCache, tiny_base: Path) -> None:
    narrow = told(models, ask(tiny_base, temperature=1.0, top_p=1e-6, seed=1))
    assert text(narrow) == text(told(models, ask(tiny_base)))


def test_bias_and_penalties_change_the_scores(models: BaseModelCache, tiny_base: Path) -> None:
    letter = AutoTokenizer.from_pretrained(tiny_base).convert_tokens_to_ids("q")
    forced = ask(tiny_base, logit_bias={letter: 100.0, 10**6: 1.0}, max_tokens=5)
    assert text(told(models, forced)) == "qqqqq"
    penalised = ask(tiny_base, logit_bias={letter: 100.0}, presence_penalty=2.0, frequency_penalty=2.0, max_tokens=60)
    assert text(told(models, penalised)).startswith("q" * 20)
    weak = ask(tiny_base, logit_bias={letter: 1.5}, frequency_penalty=2.0, presence_penalty=2.0, max_tokens=12)
    drawn = text(told(models, weak))
    assert drawn.count("q") < 12


def test_an_answer_ends_at_its_end_token_at_a_stop_and_at_its_limit(models: BaseModelCache, tiny_base: Path) -> None:
    ended = told(models, ask(tiny_base, logit_bias={2: 100.0}))
    assert [type(event) for event in ended] == [Began, Ended, Done]
    assert (ended[1].finish_reason, ended[1].tokens) == ("stop", 1)
    letter = AutoTokenizer.from_pretrained(tiny_base).convert_tokens_to_ids("q")
    stopped = told(models, ask(tiny_base, logit_bias={letter: 100.0}, stop=("qqq",)))
    assert (text(stopped), stopped[-2].finish_reason, stopped[-2].tokens) == ("", "stop", 3)
    cut = told(models, ask(tiny_base, logit_bias={letter: 100.0}, max_tokens=4))
    assert (text(cut), cut[-2].finish_reason, cut[-2].tokens) == ("qqqq", "length", 4)


def test_a_cancelled_answer_stops_at_once(models: BaseModelCache, tiny_base: Path) -> None:
    looks = iter([False, False, True])
    events = list(answer_conversation(models, ask(tiny_base, max_tokens=400), lambda: next(looks)))
    assert (events[-2].finish_reason, events[-2].tokens) == ("cancelled", 3)


def test_the_answer_stays_within_the_context(models: BaseModelCache, tiny_base: Path) -> None:
    long = Ask(
        id="a",
        base=tiny_base,
        messages=(Message(role="user", content="x" * 480),),
        sampling=Sampling(max_tokens=400, temperature=0, logit_bias={50: 100.0}),
    )
    events = told(models, long)
    assert events[0].prompt_tokens + events[-2].tokens == 512
    longer = long.model_copy(update={"messages": (Message(role="user", content="字" * 200),)})
    with pytest.raises(TrainerError, match=r"have 6\d\d tokens, and the model's context has room for 512") as raised:
        told(models, longer)
    assert (raised.value.code, raised.value.param) == ("context_length_exceeded", "messages")


@pytest.mark.slow
def test_adapters_unused_for_long_leave_the_memory(
    tiny_base: Path, adapters: list[AdapterRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_models, "MAX_ADAPTERS", 1)
    models = BaseModelCache()
    answers = [text(told(models, ask(tiny_base, adapter))) for adapter in (*adapters, adapters[0])]
    with models.load_base(tiny_base).use_adapter(None) as model:
        assert list(model.peft_config) == ["job-1"]
    assert answers[0] == answers[2] != answers[1]


@pytest.mark.slow
def test_a_broken_adapter_is_named_and_the_next_one_still_answers(
    models: BaseModelCache, tiny_base: Path, adapters: list[AdapterRef], tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(TrainerError) as raised:
        told(models, ask(tiny_base, AdapterRef(name="broken", path=tmp_path)))
    assert raised.value.code == "invalid_adapter"
    assert text(told(models, ask(tiny_base, adapters[1]))) == reference(tiny_base, adapters[1], 24)[0]


@pytest.mark.slow
def test_an_answer_that_pauses_is_the_same_whatever_answers_meanwhile(
    models: BaseModelCache, tiny_base: Path, adapters: list[AdapterRef], tmp_path: Path
) -> None:
    """Another adapter, no adapter, and another base in its place: none of it shows, with several sampled answers."""
    elsewhere = tmp_path / "base"
    elsewhere.symlink_to(tiny_base)
    others = [
        ask(tiny_base, adapters[1], max_tokens=4),
        ask(tiny_base, max_tokens=4),
        ask(elsewhere, max_tokens=4),
    ]
    order = ask(tiny_base, adapters[0], temperature=1.0, seed=7, n=2, max_tokens=8)
    whole, pieces, pauses = told(models, order), list[Any](), 0
    for event in answer_conversation(models, order, lambda: False, lambda: True):
        if isinstance(event, Paused):
            other = others[pauses % 3]
            assert told(models, other)
            pauses += 1
        elif not isinstance(event, Resumed):
            pieces.append(event)
    assert pauses > 8
    assert pieces == whole


@pytest.mark.slow
def test_a_conversation_that_pauses_keeps_no_base_in_memory(
    models: BaseModelCache, tiny_base: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "base"
    elsewhere.symlink_to(tiny_base)
    events = answer_conversation(models, ask(tiny_base, max_tokens=20), lambda: False, lambda: True)
    next(event for event in events if isinstance(event, Paused))
    first = weakref.ref(models.load_base(tiny_base))
    models.load_base(elsewhere)
    gc.collect()
    assert first() is None
    events.close()


@pytest.mark.slow
def test_the_time_of_an_answer_is_bounded(models: BaseModelCache, tiny_base: Path) -> None:
    """One token is drawn; the answers that were not begun are told as ended, so that every one has an end."""
    order = ask(tiny_base, n=3, max_tokens=400, logit_bias={50: 100.0}).model_copy(update={"seconds": 1e-6})
    events = [event for event in told(models, order) if not isinstance(event, AnswerPiece)]
    assert [type(event) for event in events] == [Began, Ended, Ended, Ended, Done]
    assert [(event.finish_reason, event.tokens) for event in events[1:4]] == [
        ("length", 1),
        ("length", 0),
        ("length", 0),
    ]
