"""The model card that travels with the adapter."""

from __future__ import annotations

import json

from trainer.methods.base import Resolved
from trainer.spec import JobSpec

_CARD = """---
base_model: {base}
library_name: peft
pipeline_tag: text-generation
tags: [lora, peft, sft]
---

# {name}

A LoRA adapter for `{base_id}`, trained by supervised fine-tuning on {rows} conversations; only the assistant's
tokens were in the loss.

| | |
|---|---|
| base model | `{base_id}`, fingerprint `{fingerprint}` |
| training file | SHA-256 `{training}` |
| rank, alpha, dropout | {rank}, {alpha:g}, {dropout:g} |
| epochs, steps | {epochs}, {steps} |
| learning rate | {learning_rate:.3g}, {scheduler}, {warmup} warm-up steps |
| rows an update | {update} |
| seed | {seed} |
| number format | {dtype} |

## Use

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("path/to/the/base")
model = PeftModel.from_pretrained(base, "path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```

`manifest.json` lists the SHA-256 of every file in this folder.
"""


def model_card(spec: JobSpec, resolved: Resolved, *, rows: int) -> str:
    """Return the card as Markdown with the metadata block that model hubs read."""
    return _CARD.format(
        base=json.dumps(spec.base.id),
        base_id=spec.base.id,
        name=spec.model_name,
        fingerprint=spec.base.fingerprint,
        training=spec.training.sha256,
        rows=rows,
        rank=resolved.lora.rank,
        alpha=resolved.lora.alpha,
        dropout=resolved.lora.dropout,
        epochs=resolved.n_epochs,
        steps=resolved.total_steps,
        learning_rate=resolved.learning_rate,
        scheduler=resolved.lr_scheduler,
        warmup=resolved.warmup_steps,
        update=resolved.batch_size * resolved.gradient_accumulation_steps,
        seed=resolved.seed,
        dtype=resolved.dtype,
    )
