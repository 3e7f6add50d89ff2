"""What a base model can do, found without its weights: configuration, tokenizer, template, and the shape on `meta`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import transformers
from jinja2.exceptions import TemplateError
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.pytorch_utils import Conv1D

from trainer.contract.base_model import (
    BaseModelCard,
    FolderBaseSource,
    GgufBaseSource,
    HubBaseSource,
    MethodMemory,
)
from trainer.contract.family import FamilyCard, MethodFit
from trainer.contract.memory import SAMPLING_NOTE, MemoryPlan, ModelShape, estimate_peak_memory
from trainer.contract.methods import METHODS_BY_TYPE
from trainer.contract.methods.base import CommonHyperparameters, LoraParameters
from trainer.engine.chat_template.end_of_turn import stop_ids
from trainer.engine.chat_template.render import ChatTemplate
from trainer.engine.models.base_checks import require_rows_for_tokens
from trainer.engine.models.families import describe_family, empty_model, find_targets
from trainer.exporting.gguf_file import explain_gguf_refusal
from trainer.kit.errors import TrainerError

ASSUMED_TOKENS = 2048
_PAIRS = ("dpo", "orpo", "reward")
"""The methods that read two answers a row."""
_SWITCHES = ("enable_thinking", "thinking", "reasoning_effort")
_PLAIN = [{"role": "user", "content": "Hello, 你好"}, {"role": "assistant", "content": "Hi, 好的"}]


class BaseInspector:
    """Reads one base. `where` is what its operator calls it, a folder or a name of the hub: sentences say it."""

    def __init__(self, source: GgufBaseSource | FolderBaseSource | HubBaseSource, where: str) -> None:
        self._where = where
        self._given_template = source.chat_template
        self._place, self._more = _loading_arguments(source)

    def describe_base(self) -> BaseModelCard:
        """Return the card. Raises TrainerError (`invalid_base_model`) with what is wrong and the way out."""
        config = self._load_config()
        tokenizer = self._load_tokenizer()
        template = self._open_template(tokenizer)
        stops = self._find_stop_ids(config, tokenizer, template)
        family = self._describe_family(config)
        self._check_vocabulary(config, tokenizer)
        shape = _measure_shape(config)
        refusal = explain_gguf_refusal(config, tokenizer)
        return BaseModelCard(
            family=family.family,
            family_known=family.known,
            model_class=family.model_class,
            parameters=family.parameters,
            context_length=family.context_length,
            end_of_turn_ids=stops,
            end_of_turn_tokens=tuple(str(tokenizer.convert_ids_to_tokens(number)) for number in stops),
            thinking_switch=find_thinking_switch(tokenizer),
            template_settings=template.settings if template else {},
            methods=family.methods if template else _fit_without_template(family),
            adapter_targets=family.linear,
            targets=family.targets,
            memory={name: _estimate_memory(name, shape, family.context_length) for name in METHODS_BY_TYPE},
            memory_assumptions=_ASSUMPTIONS,
            gguf=MethodFit(works=refusal is None, reason=refusal or ""),
            notes=(*family.notes, *_list_notes(config)),
            shape=shape,
        )

    def _load_config(self) -> PreTrainedConfig:
        try:
            return AutoConfig.from_pretrained(self._place, trust_remote_code=False, **self._more)
        # Each family's configuration checks its numbers in its own way.
        except Exception as error:
            if family := re.search(r"model type `([^`]+)`", str(error)):
                raise self._broken(
                    f"it is of the family '{family[1]}', which transformers {transformers.__version__} of this service "
                    "does not know, and code that comes with a model is never run",
                    "Take a model of another family, or a release of this service that has it.",
                ) from error
            raise self._broken(
                f"its config.json cannot be read ({_first_line(error)})", "Copy the file again from where it came from."
            ) from error

    def _load_tokenizer(self) -> PreTrainedTokenizerBase:
        try:
            tokenizer = AutoTokenizer.from_pretrained(self._place, trust_remote_code=False, **self._more)
        # The tokenizers library raises a plain Exception for a file that it cannot read.
        except Exception as error:
            raise self._broken(
                f"its tokenizer cannot be loaded ({_first_line(error)})",
                "Copy tokenizer.json and tokenizer_config.json again from where they came from.",
            ) from error
        if self._given_template is not None:
            tokenizer.chat_template = self._given_template
        return tokenizer

    def _open_template(self, tokenizer: PreTrainedTokenizerBase) -> ChatTemplate | None:
        """Return the template, None if there is none. Raises TrainerError unless it renders a plain conversation."""
        if not tokenizer.chat_template:
            return None
        problems = [_find_template_problem(tokenizer, as_parts=as_parts) for as_parts in (False, True)]
        if None not in problems:
            raise self._broken(
                f"its chat template fails on a plain conversation of one question and one answer ({problems[0]})",
                TEMPLATE_REMEDY,
            )
        try:
            return ChatTemplate(tokenizer, folder=self._place)
        except TrainerError as error:
            raise self._broken(error.message.rstrip("."), TEMPLATE_REMEDY) from error

    def _find_stop_ids(
        self, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate | None
    ) -> tuple[int, ...]:
        known = config.get_text_config().eos_token_id or self._generation_stops() or tokenizer.eos_token_id
        numbers = cast("int | list[int] | None", known)
        if template is not None:
            stops = stop_ids(template, numbers)
        else:
            stops = (numbers,) if isinstance(numbers, int) else tuple(numbers or ())
        if not stops:
            raise self._broken(
                "nothing ends an answer: neither generation_config.json nor the tokenizer names an eos token",
                'Name the token that ends a turn in tokenizer_config.json, for example "eos_token": "<|im_end|>".',
            )
        return stops

    def _generation_stops(self) -> int | list[int] | None:
        try:
            return cast("int | list[int] | None", GenerationConfig.from_pretrained(self._place).eos_token_id)
        except (OSError, ValueError, TypeError):
            return None

    def _check_vocabulary(self, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        try:
            require_rows_for_tokens(config, tokenizer)
        except TrainerError as error:
            # The same sentence as at a preparation, with the folder's name.
            reason = error.message.removeprefix("The base model cannot be used: ").rstrip(".")
            raise self._broken(reason) from error

    def _describe_family(self, config: PreTrainedConfig) -> FamilyCard:
        try:
            card = describe_family(config)
        except TrainerError as error:
            raise self._broken(
                error.message.rstrip("."),
                "Take a model that writes text, with the config.json that came with its weights.",
            ) from error
        if not any(method.works for method in card.methods.values()):
            reason = next((method.reason for method in card.methods.values()), "").rstrip(".")
            raise self._broken(f"no method can train it: {reason}", "Take a model of another family.")
        return card

    def _broken(self, problem: str, remedy: str = "") -> TrainerError:
        sentence = f"The base model in {self._where} cannot be used: {problem}. {remedy}".rstrip()
        return TrainerError("invalid_base_model", sentence, param="model")


TEMPLATE_REMEDY = (
    "Give one that fits the model: `burnish-server models add … --chat-template file.jinja`, or put it into the folder "
    "as chat_template.jinja."
)
_ASSUMPTIONS = (
    f"On a GPU, one row of {ASSUMED_TOKENS:,} tokens a pass (two answers a row for {', '.join(_PAIRS)}), an adapter "
    f"of rank {LoraParameters().rank} on all targets, gradient checkpointing; by the formula of previews, which counts "
    "a job's own rows and includes the second copy of the weights that checks the export. Estimates, not "
    f"measurements. For ppo, grpo and reinforcement:{SAMPLING_NOTE.lower()}"
)


def _find_template_problem(tokenizer: PreTrainedTokenizerBase, *, as_parts: bool) -> str | None:
    """Return why the template does not render a plain conversation, its contents as texts or as lists of parts."""
    messages = [
        {**message, "content": [{"type": "text", "text": message["content"]}]} if as_parts else message
        for message in _PLAIN
    ]
    try:
        texts = [
            str(tokenizer.apply_chat_template(messages, tokenize=False)),
            str(tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)),
        ]
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
        return _first_line(error)
    return None if all("你好" in text for text in texts) else "the user's text is not in what it writes"


def _fit_without_template(family: FamilyCard) -> dict[str, MethodFit]:
    """Return which methods work if there is no chat template: the one on plain texts."""
    lacking = MethodFit(works=False, reason=f"it has no chat template. {TEMPLATE_REMEDY}"[:-1])
    return {
        name: fit if METHODS_BY_TYPE[name].row_format == "pretraining" or not fit.works else lacking
        for name, fit in family.methods.items()
    }


def find_thinking_switch(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the name of the template's setting that changes the prompt of an answer, None if there is none."""
    template = tokenizer.chat_template
    text = template if isinstance(template, str) else " ".join(cast("dict[str, str]", template or {}).values())
    return next((name for name in _SWITCHES if re.search(rf"\b{name}\b", text)), None)


def _loading_arguments(source: GgufBaseSource | FolderBaseSource | HubBaseSource) -> tuple[Path, dict[str, Any]]:
    if isinstance(source, GgufBaseSource):
        return source.path.parent, {"gguf_file": source.path.name}
    folder = source.folder if isinstance(source, HubBaseSource) else source.path
    assert folder is not None, "the hub's files are fetched first"
    return folder, {"local_files_only": True}


def _measure_shape(config: PreTrainedConfig) -> ModelShape:
    text, model = config.get_text_config(), empty_model(config)
    targets = set(find_targets(model).modules)
    features = [_count_features(module) for name, module in model.named_modules() if name in targets]
    return ModelShape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        # Families that name their sizes otherwise have these names as well, but for a few: their estimate is lower.
        width=int(getattr(text, "hidden_size", 0)),
        layers=int(getattr(text, "num_hidden_layers", 0)),
        vocabulary=int(getattr(text, "vocab_size", 0)),
        adapter_features=sum(inputs + outputs for inputs, outputs in features),
        adapter_inputs=sum(inputs for inputs, _ in features),
    )


def _count_features(module: Any) -> tuple[int, int]:
    if isinstance(module, Conv1D):
        return int(module.nx), int(module.nf)
    return int(module.in_features), int(module.out_features)


def _estimate_memory(method: str, shape: ModelShape, context: int) -> MethodMemory:
    tokens = min(ASSUMED_TOKENS, context) * (2 if method in _PAIRS else 1)
    sizes = [
        estimate_peak_memory(
            MemoryPlan.on_gpu(shape, CommonHyperparameters(quantization=quantization), tokens=tokens)
        ).bytes
        for quantization in ("none", "4bit")
    ]
    return MethodMemory(bf16=sizes[0], four_bit=sizes[1])


def _list_notes(config: PreTrainedConfig) -> list[str]:
    notes: list[str] = []
    quantization = cast("dict[str, Any] | None", getattr(config, "quantization_config", None))
    if quantization:
        method = quantization.get("quant_method", "an unknown method")
        notes.append(
            f"Its weights are stored quantized ({method}): take the unquantized weights for training if there are any."
        )
    return notes


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
