"""What an export is to be, and the folder that it is made in.

The folder holds `export.json`, `source/` (the adapter or the model as it was stored), `base/` (a link, for adapters
and reward models) and afterwards `output/`: a model's folder with its manifest, or one GGUF file; and `result.json`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainer.contract.methods.base import Kinds
from trainer.frozen import Frozen

SPEC_NAME = "export.json"
RESULT_NAME = "result.json"
SOURCE_FOLDER = "source"
BASE_FOLDER = "base"
OUTPUT_FOLDER = "output"

Format = Literal["adapter", "merged", "gguf"]
Precision = Literal["f32", "f16", "bf16", "q8_0"]

GGUF_FAMILIES = (
    "gemma",
    "gemma2",
    "gemma3_text",
    "granite",
    "llama",
    "mistral",
    "olmo2",
    "phi3",
    "qwen2",
    "qwen3",
    "smollm3",
)
"""The families that can be written as GGUF, by their `model_type`; further facts of a model may refuse it."""


class ExportSpec(Frozen):
    """One export. `adapter` is packed by the worker itself and never comes here."""

    name: str
    """The model's name, `ft:…`."""
    kind: Kinds
    format: Literal["merged", "gguf"]
    precision: Precision
    filename: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """What the GGUF file, or the folder's archive, is called."""


class ExportCheck(Frozen):
    """How close what was written comes to the model that was trained."""

    rows: int
    merge_difference: float
    """The largest difference of any logit between base with adapter and the merged weights, both in float32."""
    file_difference: float
    """The same between the merged weights, rounded to the precision, and the file as others load it."""
    rounding_error: float
    """The root mean square of what rounding changed in the logits, relative to their own spread."""
    tokenizer_rows: int
    """How many texts the tokenizer of the file gives the same tokens for."""
