"""The model card that travels with the adapter."""

from __future__ import annotations

import json

from trainer.contract.job import FROM_SCRATCH, JobSpec
from trainer.contract.methods.base import LoraParameters, Resolved

_USE = {
    "adapter": """base = {auto}.from_pretrained("path/to/the/base")
model = PeftModel.from_pretrained(base, "path/to/this/folder")""",
    # What ends an answer is the template's end of turn, which a base need not know.
    "conversations": """base = {auto}.from_pretrained("path/to/the/base")
model = PeftModel.from_pretrained(base, "path/to/this/folder")
model.generation_config = GenerationConfig.from_pretrained("path/to/this/folder")""",
    "reward": """base = {auto}.from_pretrained("path/to/the/base", num_labels=1)
model = PeftModel.from_pretrained(base, "path/to/this/folder")  # model(**tokens).logits is the score""",
    "score": """# transformers has no class with a score head for this family: `burnish score` reads this folder.
# The head is base_model.model.score.weight, applied to the hidden state of a conversation's last token.""",
    "model": """model = {auto}.from_pretrained("path/to/this/folder")""",
}
_CARD = """---
{head}---

# {name}

{what} `{start}`, trained by {method} on {rows} {data}.

| | |
|---|---|
| base model | {base} |
| training file | SHA-256 `{training}` |
| trained | {trained} |
| epochs, steps | {epochs}, {steps} |
| learning rate | {learning_rate:.3g}, {scheduler}, {warmup} warm-up steps |
| rows an update | {update} |
| seed | {seed} |
| number format | {dtype} |

## Use

```python
{imports}

{use}
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```

`manifest.json` lists the SHA-256 of every file in this folder.
"""


def model_card(spec: JobSpec, resolved: Resolved, *, rows: int, kind: str, model_class: str) -> str:
    """Return the card as Markdown with the metadata block that model hubs read.

    `model_class` is the class of transformers that loads the base, empty if it has none for a reward model.
    """
    method, data = spec.method.in_words
    talks = kind == "adapter" and spec.method.row_format != "pretraining"
    names = [model_class] * bool(model_class) + ["AutoTokenizer"] + ["GenerationConfig"] * talks
    imports = f"from transformers import {', '.join(names)}"
    return _CARD.format(
        head=_metadata_block(spec, kind),
        what={"adapter": "A LoRA adapter for", "reward": "A reward model on", "model": "A language model from"}[kind],
        start=spec.start.id if spec.start else spec.base.id,
        method=method,
        data=data,
        imports=imports if kind == "model" else f"from peft import PeftModel\n{imports}",
        use=_USE[("conversations" if talks else kind) if model_class else "score"].format(auto=model_class),
        base=_describe_base(spec),
        name=spec.model_name,
        training=spec.training.sha256,
        rows=rows,
        trained="all weights" if kind == "model" else _describe_adapter(resolved.lora),
        epochs=resolved.n_epochs,
        steps=resolved.total_steps,
        learning_rate=resolved.learning_rate,
        scheduler=resolved.lr_scheduler,
        warmup=resolved.warmup_steps,
        update=resolved.batch_size * resolved.gradient_accumulation_steps,
        seed=resolved.seed,
        dtype=resolved.dtype,
    )


def _describe_base(spec: JobSpec) -> str:
    if spec.base.id == FROM_SCRATCH:
        return "none: made from scratch"
    return f"`{spec.base.id}`, fingerprint `{spec.base.fingerprint}`"


def _describe_adapter(lora: LoraParameters) -> str:
    kinds = [name for name, is_used in (("DoRA", lora.use_dora), ("rsLoRA", lora.use_rslora)) if is_used]
    name = " with ".join(["LoRA", " and ".join(kinds)] if kinds else ["LoRA"])
    return f"{name}, rank {lora.rank}, alpha {lora.alpha:g}, dropout {lora.dropout:g}"


def _metadata_block(spec: JobSpec, kind: str) -> str:
    lines = [f"base_model: {json.dumps(spec.base.id)}"] if spec.base.id != FROM_SCRATCH else []
    lines += ["library_name: transformers"] if kind == "model" else ["library_name: peft"]
    lines += ["pipeline_tag: text-classification" if kind == "reward" else "pipeline_tag: text-generation"]
    tags = ["burnish", spec.method.type] if kind == "model" else ["lora", "peft", spec.method.type]
    return "\n".join([*lines, f"tags: [{', '.join(tags)}]"]) + "\n"
