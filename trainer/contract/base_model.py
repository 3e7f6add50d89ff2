"""Where base models come from, and what is written down about the folder that they become."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from trainer.frozen import Frozen

BASE_NAME = "base.json"


class GgufBaseSource(Frozen):
    """A GGUF file on this machine; quantized weights are expanded to float32."""

    kind: Literal["gguf"]
    path: Path


class FolderBaseSource(Frozen):
    """A folder in the layout of transformers, with safetensors weights."""

    kind: Literal["folder"]
    path: Path


class HubBaseSource(Frozen):
    """A repository of the hub at one commit."""

    kind: Literal["hf"]
    repo: str = Field(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")
    revision: str = Field(pattern=r"^[0-9a-f]{7,64}$")


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
