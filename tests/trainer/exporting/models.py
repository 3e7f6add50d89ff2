"""Adapters and models to export, made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from trainer.contract.export import ExportSpec
from trainer.contract.methods.pretraining import Architecture, TrainedTokenizer
from trainer.recipes.pretraining.architecture import make_config, make_model
from trainer.recipes.pretraining.tokenizers import make_tokenizer

TEXT = "The river rose by 3 metres. 河水上涨了三米。\n" * 40


def make_adapter(base: Path, folder: Path, *, reward: bool = False, dora: bool = False) -> Path:
    """Write an adapter whose effect is large, and its tokenizer."""
    auto: Any = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
    model = auto.from_pretrained(base, dtype=torch.float32, **({"num_labels": 1} if reward else {}))
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        use_dora=dora,
        target_modules="all-linear",
        task_type="SEQ_CLS" if reward else "CAUSAL_LM",
        modules_to_save=["score"] if reward else None,
    )
    adapted = get_peft_model(model, config)
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name or "score" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    AutoTokenizer.from_pretrained(base).save_pretrained(str(folder))
    return folder


def make_scratch(folder: Path, tokenizer: Literal["byte", "char", "bpe"]) -> Path:
    """Write an untrained model as `pretraining` lays it out."""
    choice = TrainedTokenizer(type="bpe", vocabulary=320) if tokenizer == "bpe" else tokenizer
    made = make_tokenizer(choice, [TEXT], 128, Path("nowhere"))
    shape = Architecture(layers=2, width=64, heads=4, context=128)
    make_model(make_config(shape, made), 1).save_pretrained(str(folder))
    made.save_pretrained(str(folder))
    return folder


def lay_out(
    folder: Path, source: Path, *, base: Path | None = None, kind: str = "adapter", to: str, precision: str
) -> ExportSpec:
    """Lay out an export's folder as the worker does."""
    folder.mkdir()
    (folder / "source").symlink_to(source)
    if base is not None:
        (folder / "base").symlink_to(base)
    given = {"name": "ft:tiny:org:desk:abc", "kind": kind, "format": to, "precision": precision}
    spec = ExportSpec.model_validate({**given, "filename": f"ft-tiny-{precision}.gguf"})
    (folder / "export.json").write_text(spec.model_dump_json())
    return spec


def logits(model: Any, tokenizer: Any, text: str) -> torch.Tensor:
    """Return a text's logits in float32."""
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        return cast(torch.Tensor, model.eval()(input_ids=ids).logits.float())
