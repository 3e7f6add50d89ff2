"""Bringing a base model into the one form that trainers read: safetensors, tokenizer, `base.json`."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from trainer.contract.base_model import BASE_NAME, BaseInfo, FolderBaseSource, GgufBaseSource, HubBaseSource
from trainer.contract.result import sha256_of
from trainer.engine.models.base_checks import base_not_found, check_base, load_checked, require_config
from trainer.engine.models.hub import WANTED, download_hub_files
from trainer.engine.models.weights import invalid_base, weight_files


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
    if isinstance(source, HubBaseSource) and source.folder is None:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".hub.") as download:
            download_hub_files(source.repo, source.revision, Path(download))
            fingerprint = _copy_base_files(Path(download), folder)
    elif isinstance(source, HubBaseSource):
        assert source.folder is not None
        fingerprint = _copy_base_files(source.folder, folder)
    elif isinstance(source, FolderBaseSource):
        fingerprint = _copy_base_files(source.path, folder)
    else:
        fingerprint = _expand_gguf(source.path, folder)
    if source.chat_template is not None:
        # transformers takes this file before what tokenizer_config.json says.
        (folder / "chat_template.jinja").write_text(source.chat_template, encoding="utf-8")
        fingerprint = hashlib.sha256(f"{fingerprint}\n{source.chat_template}".encode()).hexdigest()
    card = check_base(folder)
    parameters = sum(parameter.numel() for parameter in load_checked(folder).parameters())
    described = {
        key: str(value)
        for key, value in source.model_dump().items()
        if key not in ("path", "folder", "chat_template") and value is not None
    }
    return BaseInfo(
        fingerprint=fingerprint, source=described, parameters=parameters, context_length=card.context_length
    )


def _expand_gguf(path: Path, folder: Path) -> str:
    """Load a GGUF file, drop what says that it is quantized, and save it as float32."""
    if not path.is_file():
        raise base_not_found(f"there is no file {path.name}")
    try:
        where, name = str(path.parent), path.name
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise invalid_base(f"the GGUF file {path.name} cannot be read ({_first_line(error)})") from error
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
    require_config(origin)
    weight_files(origin)
    files = sorted({path for pattern in WANTED for path in origin.glob(pattern) if path.is_file()})
    # Mistral's repositories have all weights a second time in such a file, which transformers does not read.
    if any(path.suffix == ".safetensors" and not path.name.startswith("consolidated") for path in files):
        files = [path for path in files if not path.name.startswith("consolidated")]
    lines: list[str] = []
    for path in files:
        # What an earlier conversion said is not about this source.
        if path.name != BASE_NAME:
            shutil.copyfile(path, folder / path.name)
            lines.append(f"{sha256_of(path)}  {path.name}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _flush_folder(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
