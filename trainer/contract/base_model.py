"""Where base models come from, and what is written down about the folder that they become."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from trainer.contract.family import AdapterTargets, MethodFit
from trainer.contract.memory import ModelShape
from trainer.frozen import Frozen

BASE_NAME = "base.json"


class _BaseSource(Frozen):
    chat_template: str | None = None
    """The text of a template to use instead of the base's own."""


class GgufBaseSource(_BaseSource):
    """A GGUF file on this machine; quantized weights are expanded to float32."""

    kind: Literal["gguf"]
    path: Path


class FolderBaseSource(_BaseSource):
    """A folder in the layout of transformers, with safetensors weights."""

    kind: Literal["folder"]
    path: Path


class HubBaseSource(_BaseSource):
    """A repository of the hub at one commit."""

    kind: Literal["hf"]
    repo: str = Field(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")
    revision: str = Field(pattern=r"^[0-9a-f]{7,64}$")
    folder: Path | None = None
    """Where its files lie already, if they were downloaded to this machine."""


Source = Annotated[GgufBaseSource | FolderBaseSource | HubBaseSource, Field(discriminator="kind")]
SOURCE: TypeAdapter[GgufBaseSource | FolderBaseSource | HubBaseSource] = TypeAdapter(Source)


class BaseInfo(Frozen):
    """`base.json`: where the folder came from, and the SHA-256 that identifies it in every report.

    The fingerprint is over the source: a GGUF file's own hash, or the hash of the sorted lines `sha256  path` of
    the folder's files.
    """

    fingerprint: str
    source: dict[str, str]
    parameters: int
    context_length: int


class MethodMemory(Frozen):
    """The GPU memory in bytes that a method needs with the card's assumptions."""

    bf16: int
    four_bit: int


class BaseModelCard(Frozen):
    """What is known of a base before a job is ordered: printed by `models add`, shown at `GET /v1/models/{id}`."""

    family: str
    """transformers' `model_type`."""
    family_known: bool
    """False if the family is in no table of ours, and what is said of it was found by inspecting the model."""
    model_class: str
    parameters: int
    context_length: int
    end_of_turn_ids: tuple[int, ...]
    """What ends an answer in chats, samples and rollouts."""
    end_of_turn_tokens: tuple[str, ...]
    thinking_switch: str | None
    """The template's setting that turns thinking on and off; null if it has none."""
    template_settings: dict[str, Any] = Field(default_factory=dict[str, Any])
    """The template's variables that rows, chats and samples are rendered with, where its defaults do not do."""
    methods: dict[str, MethodFit]
    adapter_targets: tuple[str, ...]
    """The names of the layers that `all-linear` adapts."""
    targets: AdapterTargets
    """The same over the layers, and what gets no adapter with the reason."""
    memory: dict[str, MethodMemory]
    """By method, with `memory_assumptions`."""
    memory_assumptions: str
    gguf: MethodFit
    """Whether what is trained on it can be exported as GGUF."""
    notes: tuple[str, ...] = ()
    shape: ModelShape


class Inspection(Frozen):
    """What `python -m trainer.programs.inspect_base` leaves: a card, or the sentence that says what is wrong."""

    card: BaseModelCard | None = None
    problem: str | None = None


class HubFetch(Frozen):
    """What `python -m trainer.programs.fetch_base` leaves: the folder and the commit, or what is wrong."""

    folder: Path | None = None
    revision: str | None = None
    problem: str | None = None


def hub_folder_name(repo: str, revision: str, *, weights: bool = True) -> str:
    """Return what the folder of a commit's files is called, which has its weights or not."""
    return f"{repo.replace('/', '--')}-{revision[:12]}{'' if weights else '-files'}"
