"""The models that answer: one base in memory at a time, and a few adapters on it that are switched, not merged."""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from trainer.chat.token_bytes import TokenBytes
from trainer.contract.chat import AdapterRef
from trainer.contract.result import ExitCode
from trainer.engine.answer_format.answer_reader import AnswerReader
from trainer.engine.chat_template.end_of_turn import stop_ids
from trainer.engine.chat_template.render import ChatTemplate
from trainer.engine.models.load import context_length, load_model, load_tokenizer, pick_device
from trainer.kit.errors import TrainerError

MAX_ADAPTERS = 8
"""How many adapters stay in memory; the one unused for the longest goes first."""


class LoadedBase:
    """A base model with its tokenizer and chat template, and the adapters in use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.template = ChatTemplate(load_tokenizer(folder), folder=folder)
        self.reader = AnswerReader(self.template.tokenizer)
        self.token_bytes = TokenBytes(self.template.tokenizer)
        self._model: Any = load_model(folder, _inference_dtype())
        self._model.eval()
        self._adapters: OrderedDict[str, None] = OrderedDict()
        self.context = context_length(self._model.config)
        self.stops = stop_ids(self.template, self._model.generation_config.eos_token_id)

    @contextmanager
    def use_adapter(self, adapter: AdapterRef | None) -> Generator[Any, None, None]:
        """Give the model as it is with an adapter, or without any. Raises TrainerError if it does not fit."""
        if adapter is not None:
            self._activate_adapter(adapter)
            yield self._model
        elif isinstance(self._model, PeftModel):
            with self._model.disable_adapter():
                yield self._model
        else:
            yield self._model

    def _activate_adapter(self, adapter: AdapterRef) -> None:
        if adapter.name not in self._adapters:
            self._load_adapter(adapter)
            self._adapters[adapter.name] = None
        self._adapters.move_to_end(adapter.name)
        self._model.set_adapter(adapter.name)
        while len(self._adapters) > MAX_ADAPTERS:
            self._model.delete_adapter(self._adapters.popitem(last=False)[0])

    def _load_adapter(self, adapter: AdapterRef) -> None:
        try:
            if isinstance(self._model, PeftModel):
                self._model.load_adapter(str(adapter.path), adapter.name)
            else:
                self._model = PeftModel.from_pretrained(self._model, str(adapter.path), adapter_name=adapter.name)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise TrainerError(
                "invalid_adapter",
                f"The adapter cannot be loaded onto its base: {(str(error).splitlines() or [''])[0][:300]}",
                param="model",
                exit_code=ExitCode.FAULT,
            ) from error
        self._model.eval()


class BaseModelCache:
    """Holds the base that was used last."""

    def __init__(self) -> None:
        self._base: LoadedBase | None = None

    def load_base(self, folder: Path) -> LoadedBase:
        """Return a base, loaded in place of the last one. Raises TrainerError if it cannot be."""
        if self._base is None or self._base.folder != folder:
            self._base = None
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._base = LoadedBase(folder)
        return self._base


def _inference_dtype() -> str:
    """Return bfloat16 if a GPU computes in it; a CPU answers in float32, the same on every machine."""
    return "bfloat16" if pick_device().type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
