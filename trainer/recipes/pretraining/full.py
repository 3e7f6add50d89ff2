"""Pre-training of all weights: a base's, or a new model's. The result is a model's folder and no adapter."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from transformers import Phi3Config, PreTrainedModel

from trainer.contract.base_model import BASE_NAME, BaseInfo
from trainer.contract.methods.base import Resolved
from trainer.contract.methods.pretraining import TrainedTokenizer
from trainer.contract.result import Manifest, hash_files, write_manifest
from trainer.contract.rows import TextRow
from trainer.engine.adapter_export import Verification
from trainer.engine.data.row_pipeline import PROBE_ROWS
from trainer.engine.models.dtype import DtypeChoice
from trainer.engine.models.load import load_model, pick_device
from trainer.engine.models.portable import make_portable, own_eos
from trainer.engine.scoring.compare_outputs import TOLERANCE, compute_logits, require_close
from trainer.kit.errors import TrainerError
from trainer.recipes.pretraining.architecture import make_config, make_model
from trainer.recipes.pretraining.data import WindowData
from trainer.recipes.pretraining.packing import collate_windows
from trainer.recipes.pretraining.recipe import PretrainingRecipe
from trainer.recipes.pretraining.tokenizers import make_tokenizer

CONTINUED_RATE = 5e-5


def new_model_rate(width: int) -> float:
    """Return the learning rate of a new model: 6e-4 · 768 / width, the slope of GPT-3's table, at most 1e-3.

    Brown et al. 2020 (arXiv 2005.14165), table 2.1: 6e-4 at a width of 768, 2e-4 at 2048.
    """
    return min(1e-3, 6e-4 * 768 / width)


class NewModelData(WindowData):
    """Windows for a base, or for a new model, of which the tokenizer may be made of the training text."""

    def open_base(self, rows: Sequence[TextRow]) -> None:
        """Open the base, or make configuration and tokenizer of a new model."""
        shape = self.hyperparameters.architecture
        if shape is None:
            super().open_base(rows)
            return
        if self.job.start is not None:
            raise TrainerError(
                "invalid_hyperparameters",
                "A new model starts from nothing: leave architecture out to go on from a model.",
                param="method.pretraining.hyperparameters.architecture",
            )
        choice = self.hyperparameters.tokenizer
        self._check_tokenizer_base()
        self.tokenizer = make_tokenizer(choice, [row.text for row in rows], shape.context, self.job.base)
        if isinstance(choice, TrainedTokenizer) and len(self.tokenizer) < choice.vocabulary:
            self.job.warn(f"The text is too short for {choice.vocabulary} tokens: there are {len(self.tokenizer)}.")
        self.config = make_config(shape, self.tokenizer)

    def _check_tokenizer_base(self) -> None:
        if self.hyperparameters.tokenizer == "base" and not self.job.base.is_dir():
            raise TrainerError(
                "invalid_hyperparameters",
                "A model from scratch has no base to take the tokenizer of: choose byte, char or bpe, or name a base.",
                param="method.pretraining.hyperparameters.tokenizer",
            )


class FullPretrainingRecipe(PretrainingRecipe):
    """Trains all weights, kept in float32; `bfloat16` is the format of the matrix products (autocast).

    A job that starts from an adapter has it merged into the base first.
    """

    pipeline = NewModelData

    def prepare_model(self) -> None:
        """Load the base, or make the new model."""
        self.settle_hyperparameters()
        if self.hyperparameters.architecture is not None:
            self.model = make_model(cast(Phi3Config, self.data.config), self.resolved.seed)
        else:
            self.model = self._load_base()
        self.check_separation()

    def resolve_hyperparameters(self) -> Resolved:
        """Turn every `auto` into a number, with the learning rate of full weights."""
        resolved, shape = super().resolve_hyperparameters(), self.hyperparameters.architecture
        if self.hyperparameters.learning_rate != "auto":
            return resolved
        rate = new_model_rate(shape.width) if shape else CONTINUED_RATE
        rate *= resolved.learning_rate_multiplier
        settings = {**resolved.settings, "learning_rate": rate}
        return resolved.model_copy(update={"learning_rate": rate, "settings": settings})

    def own_settings(self) -> dict[str, Any]:
        """Return what this method's own `auto` came to."""
        return {"weights": "full"}

    def own_arguments(self) -> dict[str, Any]:
        """Compute in bfloat16 if that was chosen, with weights and optimizer in float32."""
        return {"bf16": self.dtype.dtype == "bfloat16"}

    def count_parameters(self) -> tuple[int, int]:
        """All are trained."""
        total = sum(parameter.numel() for parameter in self.model.parameters())
        return total, total

    def export_result(self, folder: Path, card: str) -> None:
        """Write the model as bases lie in their folders: safetensors, configuration, tokenizer, `base.json`."""
        folder.mkdir(parents=True)
        # The file's configuration is for generating, with a cache; training goes without one.
        self.model.config.use_cache = True
        self.model.save_pretrained(str(folder))
        self.model.config.use_cache = False
        self.data.tokenizer.save_pretrained(str(folder))
        make_portable(folder, self.data.tokenizer, own_eos(self.model))
        # Before the card is written: the fingerprint is of model and tokenizer alone.
        self._write_base_info(folder)
        (folder / "README.md").write_text(card, encoding="utf-8")
        files = hash_files(folder, (path for path in folder.rglob("*") if path.is_file()))
        write_manifest(folder, Manifest(files=files, facts={"base": self.job.spec.base.id}))

    def verify_result(self, folder: Path) -> Verification:
        """Load the folder and compare logits on a few windows. Raises TrainerError (`export_mismatch`)."""
        windows = self.data.measured.rows[:PROBE_ROWS]
        batch = {
            name: values.to(self.model.device) for name, values in collate_windows(windows, self.data.pad_id).items()
        }
        del batch["labels"]
        # The weights are float32, whatever format the products of the training had.
        ours, theirs = (compute_logits(each, batch) for each in (self.model, load_model(folder, "float32")))
        tolerance = TOLERANCE["float32"]
        difference = require_close("model", "logits", [ours], [theirs], tolerance)
        return Verification(rows=len(windows), max_abs_difference=difference, tolerance=tolerance)

    def _write_base_info(self, folder: Path) -> None:
        files = hash_files(folder, (path for path in folder.iterdir() if path.is_file()))
        lines = "".join(f"{entry.sha256}  {entry.path}\n" for entry in files)
        info = BaseInfo(
            fingerprint=hashlib.sha256(lines.encode()).hexdigest(),
            source={"kind": "job", "job": self.job.spec.job_id, "model": self.job.spec.model_name},
            parameters=self.count_parameters()[1],
            context_length=self.data.context,
        )
        (folder / BASE_NAME).write_text(info.model_dump_json(indent=1), encoding="utf-8")

    def pick_dtype(self) -> DtypeChoice:
        """Return the format of the matrix products."""
        asked = self.hyperparameters.dtype
        if asked != "auto":
            return DtypeChoice(dtype=asked, reason="as asked")
        fast = pick_device().type == "cuda" and torch.cuda.is_bf16_supported()
        reason = "matrix products on the GPU, weights in float32" if fast else "all weights are trained, on a CPU"
        return DtypeChoice(dtype="bfloat16" if fast else "float32", reason=reason)

    def _load_base(self) -> PreTrainedModel:
        base = load_model(self.job.base, "float32")
        if self.job.start is None:
            return base
        merged = PeftModel.from_pretrained(base, str(self.job.start)).merge_and_unload()  # pyright: ignore[reportCallIssue]
        # PEFT has frozen what it merged into.
        return cast(PreTrainedModel, merged).requires_grad_(True)
