"""Cards of base models: what is found without weights, and each kind of unusable base as a sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.contract.base_model import BaseModelCard, FolderBaseSource
from trainer.contract.memory import MemoryPlan, estimate_peak_memory
from trainer.contract.methods import METHODS_BY_TYPE
from trainer.contract.methods.base import CommonHyperparameters
from trainer.kit.errors import TrainerError
from trainer.preview.base_card import BaseInspector

Fault = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path, tiny_base: Path) -> Path:
    return shutil.copytree(tiny_base, tmp_path / "模型")


def inspect(folder: Path, template: str | None = None) -> BaseModelCard:
    source = FolderBaseSource(kind="folder", path=folder, chat_template=template)
    return BaseInspector(source, str(folder)).describe_base()


def change_json(name: str, **members: Any) -> Fault:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        content |= members
        (folder / name).write_text(json.dumps(content))

    return change


def test_a_card_has_what_an_order_is_held_against(folder: Path) -> None:
    card = inspect(folder)
    assert (card.family, card.model_class, card.context_length) == ("llama", "LlamaForCausalLM", 512)
    assert (card.end_of_turn_ids, card.end_of_turn_tokens) == ((2,), ("<|im_end|>",))
    assert card.thinking_switch is None
    assert set(card.methods) == set(METHODS_BY_TYPE) == set(card.memory)
    assert all(support.works for support in card.methods.values())
    assert "q_proj" in card.adapter_targets
    assert "lm_head" not in card.adapter_targets
    assert card.memory["dpo"].bf16 > card.memory["supervised"].bf16 > card.memory["supervised"].four_bit
    assert "Estimates, not measurements" in card.memory_assumptions
    assert card.gguf.works


def test_the_shape_counts_the_adapter_as_peft_does(folder: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    card = inspect(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert sum(parameter.numel() for parameter in model.parameters()) == card.parameters
    adapted = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    plan = MemoryPlan.on_gpu(card.shape, CommonHyperparameters(), tokens=100)
    assert plan.trained == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert estimate_peak_memory(plan).parts["trained_weights_and_optimizer"] == 16 * plan.trained


def test_another_template_takes_the_place_of_the_bases_own(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}{% if enable_thinking is defined %}/think{% endif %}"
        "{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
    )
    assert inspect(folder, template).thinking_switch == "enable_thinking"


def test_a_template_may_take_contents_as_lists_of_parts(folder: Path) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}{% for p in m.content %}{{ p.text }}{% endfor %}<|im_end|>"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
    )
    assert inspect(folder, template).methods["supervised"].works


def test_a_base_without_a_chat_template_can_be_pretrained_alone(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    card = inspect(folder)
    assert [name for name, fit in card.methods.items() if fit.works] == ["pretraining"]
    assert "it has no chat template. Give one" in card.methods["dpo"].reason
    assert card.end_of_turn_ids


def test_stored_quantization_is_noted(folder: Path) -> None:
    change_json("config.json", quantization_config={"quant_method": "fp8"})(folder)
    assert any("stored quantized (fp8)" in note for note in inspect(folder).notes)


FAULTS: dict[str, tuple[Fault, str]] = {
    "an unknown family": (change_json("config.json", model_type="neuland"), "of the family 'neuland'.*never run"),
    "a model that writes nothing": (change_json("config.json", model_type="vit"), "no model that writes text"),
    "a shape that fits nothing": (change_json("config.json", num_attention_heads=0), "config.json cannot be read"),
    "a tokenizer of another kind": (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer cannot be loaded"),
    "a template with a fault": (
        lambda f: (f / "chat_template.jinja").write_text("{% for m in %}"),
        "fails on a plain conversation.*--chat-template",
    ),
    "a template that refuses": (
        lambda f: (f / "chat_template.jinja").write_text("{{ raise_exception('只有系统') }}"),
        "fails on a plain conversation.*只有系统.*--chat-template",
    ),
    "a template that leaves text out": (
        lambda f: (f / "chat_template.jinja").write_text("hello"),
        "the user's text is not in what it writes",
    ),
    "control tokens beyond the embedding": (
        change_json("config.json", vocab_size=200),
        "beyond the embedding's 200 rows",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_unusable_base_is_a_sentence_that_names_the_folder(folder: Path, fault: str) -> None:
    break_base, sentence = FAULTS[fault]
    break_base(folder)
    with pytest.raises(TrainerError, match=sentence) as caught:
        inspect(folder)
    assert caught.value.message.startswith(f"The base model in {folder} cannot be used: ")
    assert (caught.value.code, caught.value.param) == ("invalid_base_model", "model")


def test_without_an_end_of_an_answer_there_is_no_card(folder: Path) -> None:
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    change_json("config.json", eos_token_id=None)(folder)
    change_json("generation_config.json", eos_token_id=None)(folder)
    change_json("tokenizer_config.json", eos_token=None)(folder)
    with pytest.raises(TrainerError, match=r"nothing ends an answer.*tokenizer_config\.json"):
        inspect(folder, template)
