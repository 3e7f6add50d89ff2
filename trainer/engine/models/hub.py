"""Fetching a base model of the Hugging Face hub: pinned to a commit, weights in safetensors, never code or pickles."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from trainer.contract.result import ExitCode
from trainer.kit.errors import TrainerError

WEIGHTS = "*.safetensors"
# Weights in safetensors, the configuration and the tokenizer: never pickles, never code.
WANTED = (
    WEIGHTS, "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "*.tiktoken", "merges.txt", "vocab.txt",
)  # fmt: skip
# A pattern's star stands for folders too, and a consolidated file has the weights that the shards have.
UNWANTED = ("*/*", "consolidated*")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")
_PATIENCE = 30.0


def pin_hub_revision(repo: str, revision: str | None) -> str:
    """Return the commit that a branch, a tag or a commit's beginning means now; `main` if none is named.

    Raises TrainerError (`base_not_found`, or `invalid_base_model` if the repository has no weights in safetensors).
    """
    try:
        info = HfApi().model_info(repo, revision=revision, timeout=_PATIENCE)
    except Exception as error:
        # The hub's client lets errors of its HTTP library through, which the trainer does not import.
        raise _explain_hub_error(repo, revision, error) from error
    _require_safetensors(repo, [sibling.rfilename for sibling in info.siblings or ()])
    if info.sha is None:
        raise _cannot_fetch(repo, revision, "the hub names no commit for it")
    return info.sha


def download_hub_files(repo: str, revision: str, folder: Path, *, weights: bool = True) -> None:
    """Fetch the wanted files of a commit into `folder`; what lies there already is not fetched again.

    Raises TrainerError (`base_not_found`).
    """
    patterns = [pattern for pattern in WANTED if weights or pattern != WEIGHTS]
    try:
        snapshot_download(
            repo, revision=revision, local_dir=folder, allow_patterns=patterns, ignore_patterns=list(UNWANTED)
        )
    except Exception as error:
        # The hub's client lets errors of its HTTP library through, which the trainer does not import.
        raise _explain_hub_error(repo, revision, error) from error


def _require_safetensors(repo: str, names: Sequence[str]) -> None:
    if any(name.endswith(".safetensors") and "/" not in name for name in names):
        return
    pickles = [name for name in names if name.endswith(_PICKLES) and "/" not in name]
    if pickles:
        reason = (
            f"its weights are pickled ({pickles[0]}), which may hold code and are never loaded. Convert them on a "
            "machine where you trust them, with "
            f"AutoModelForCausalLM.from_pretrained('{repo}').save_pretrained('FOLDER') and the same of AutoTokenizer, "
            "and add FOLDER"
        )
    elif any(name.endswith(".gguf") for name in names):
        reason = "it has GGUF files alone: take the repository that they were made from, which has safetensors"
    else:
        reason = "it has no weights in safetensors"
    raise TrainerError("invalid_base_model", f"{repo} cannot be used: {reason}.", param="model")


def _explain_hub_error(repo: str, revision: str | None, error: Exception) -> TrainerError:
    if isinstance(error, GatedRepoError):
        return _cannot_fetch(
            repo, revision, "it is gated. Accept its terms on the hub, and set HF_TOKEN to a token that may read it"
        )
    if isinstance(error, RevisionNotFoundError):
        return _cannot_fetch(repo, revision, "it has no such revision. Name a branch, a tag or a commit that it has")
    if isinstance(error, RepositoryNotFoundError):
        return _cannot_fetch(
            repo, revision, "there is no such model, or it is private. Check the name, or set HF_TOKEN"
        )
    if any(_is_of_the_network(each) for each in (error, error.__cause__, error.__context__)):
        return _cannot_fetch(
            repo,
            revision,
            f"{os.environ.get('HF_ENDPOINT') or constants.ENDPOINT} does not answer. Check the network, name a mirror "
            "in HF_ENDPOINT, or copy the model's folder to this machine and add that folder",
        )
    return _cannot_fetch(repo, revision, (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip("."))


def _is_of_the_network(error: BaseException | None) -> bool:
    if isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError, TimeoutError)):
        return True
    # By the name: the client has changed its HTTP library more than once.
    return "TransportError" in {kind.__name__ for kind in type(error).__mro__}


def _cannot_fetch(repo: str, revision: str | None, reason: str) -> TrainerError:
    name = f"{repo} at {revision}" if revision else repo
    return TrainerError(
        "base_not_found",
        f"{name} cannot be fetched from the hub: {reason}.",
        param="model",
        exit_code=ExitCode.FAULT,
    )
