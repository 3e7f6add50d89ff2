"""Bringing a base model into the one form that trainers read: safetensors, tokenizer, `base.json`."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from trainer.contract.base_model import BASE_NAME, BaseInfo, FolderBaseSource, GgufBaseSource, HubBaseSource
from trainer.contract.result import ExitCode, sha256_of
from trainer.engine.chat_template.render import ChatTemplate
from trainer.engine.models.load import context_length, load_config, load_tokenizer
from trainer.kit.errors import TrainerError

# Weights in safetensors, the configuration and the tokenizer: never pickles, never code.
WANTED = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")


def convert_base(source: GgufBaseSource | FolderBaseSource | HubBaseSource, target: Path) -> BaseInfo:
    """Write `target` from `source`; it appears by one rename.

    Raises TrainerError (`base_not_found`, `invalid_base_model`, `unsupported_chat_template`).
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target: a rename is all or nothing only within one file system.
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        info = _fill_folder(source, temporary)
        (temporary / BASE_NAME).write_text(info.model_dump_json(indent=1), encoding="utf-8")
        # Before the rename, so that a base that has its name is whole after a loss of power.
        _flush_folder(temporary)
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return info


def _fill_folder(source: GgufBaseSource | FolderBaseSource | HubBaseSource, folder: Path) -> BaseInfo:
    if isinstance(source, HubBaseSource):
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".hub.") as download:
            _download_from_hub(source, Path(download))
            fingerprint = _copy_base_files(Path(download), folder)
    elif isinstance(source, FolderBaseSource):
        fingerprint = _copy_base_files(source.path, folder)
    else:
        fingerprint = _expand_gguf(source.path, folder)
    config = load_config(folder)
    tokenizer = load_tokenizer(folder)
    if tokenizer.chat_template:
        # For its errors alone: a base with a broken template is refused here and not in every job. One without any
        # can be pre-trained.
        ChatTemplate(tokenizer, folder=folder)
    parameters = _check_weights(folder)
    described = {key: str(value) for key, value in source.model_dump().items() if key != "path"}
    return BaseInfo(
        fingerprint=fingerprint, source=described, parameters=parameters, context_length=context_length(config)
    )


def _expand_gguf(path: Path, folder: Path) -> str:
    """Load a GGUF file, drop what says that it is quantized, and save it as float32."""
    if not path.is_file():
        raise _not_found(f"there is no file {path.name}")
    try:
        where, name = str(path.parent), path.name
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise _invalid_base(f"the GGUF file {path.name} cannot be read ({_first_line(error)})") from error
    for owner, attribute in ((model.config, "quantization_config"), (model, "quantization_method")):
        if hasattr(owner, attribute):
            delattr(owner, attribute)
    # pyright sees a module's attributes as tensors only
    model.is_quantized = False  # pyright: ignore[reportArgumentType]
    model.hf_quantizer = None  # pyright: ignore[reportArgumentType]
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return sha256_of(path)


def _copy_base_files(origin: Path, folder: Path) -> str:
    """Copy the wanted files and return the fingerprint over all of them."""
    if not (origin / "config.json").is_file():
        raise _not_found("the folder has no config.json")
    files = sorted({path for pattern in WANTED for path in origin.glob(pattern) if path.is_file()})
    if not any(path.suffix == ".safetensors" for path in files):
        raise _invalid_base("it has no weights in safetensors; pickled weights are not loaded")
    lines: list[str] = []
    for path in files:
        # What an earlier conversion said is not about this source.
        if path.name != BASE_NAME:
            shutil.copyfile(path, folder / path.name)
            lines.append(f"{sha256_of(path)}  {path.name}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _download_from_hub(source: HubBaseSource, folder: Path) -> None:
    try:
        snapshot_download(source.repo, revision=source.revision, local_dir=folder, allow_patterns=list(WANTED))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise TrainerError(
            "base_not_found",
            f"{source.repo} at {source.revision} cannot be fetched from the hub: {_first_line(error)}",
            param="model",
            exit_code=ExitCode.FAULT,
        ) from error


def _check_weights(folder: Path) -> int:
    """Load the weights once as they will be loaded, so that a broken base fails here and not in every job."""
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype="auto")
    except (OSError, ValueError, KeyError) as error:
        raise _invalid_base(_first_line(error)) from error
    return sum(parameter.numel() for parameter in model.parameters())


def _flush_folder(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _not_found(reason: str) -> TrainerError:
    return TrainerError("base_not_found", f"The base model's source is missing: {reason}.", param="model")


def _invalid_base(reason: str) -> TrainerError:
    return TrainerError("invalid_base_model", f"The base model cannot be used: {reason}.", param="model")
