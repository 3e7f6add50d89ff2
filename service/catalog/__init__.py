"""The catalog: the allow-list of base models. Nothing that is not in this file can be trained on."""

from __future__ import annotations

import hashlib
import importlib.resources
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.kit.settings import SettingsError


class _CatalogPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CatalogPackageSource(_CatalogPart):
    """A GGUF file inside an installed Python package."""

    kind: Literal["package"]
    package: str
    file: str = Field(pattern=r"^[A-Za-z0-9._-]+\.gguf$")
    install: str
    """The command that installs it, for the error message of a worker that lacks it."""


class CatalogFolderSource(_CatalogPart):
    """A folder on the worker in Hugging Face's layout: config, safetensors, tokenizer."""

    kind: Literal["folder"]
    path: Path


class CatalogHubSource(_CatalogPart):
    """A model of the Hugging Face hub, pinned by its commit."""

    kind: Literal["hf"]
    repo: str = Field(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")


Source = Annotated[CatalogPackageSource | CatalogFolderSource | CatalogHubSource, Field(discriminator="kind")]


class BaseModelEntry(_CatalogPart):
    """One base model of the catalog file, with where it comes from."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    description: str = ""
    license: str = ""
    created: int = 0
    owned_by: str = "base"
    source: Source
    chat_template: str | None = None
    """The text of a template to use instead of the one that the model has, or has not."""
    files_sha256: str | None = None
    """Of a folder's files as they were when it was added: one that is replaced is prepared anew."""

    @property
    def fingerprint(self) -> str:
        """A hash of the source's description: workers key their cache of prepared bases by it."""
        described = self.source.model_dump_json() + (self.chat_template or "") + (self.files_sha256 or "")
        return hashlib.sha256(described.encode()).hexdigest()

    @property
    def place(self) -> str:
        """What its operator calls the place that it comes from."""
        match self.source:
            case CatalogFolderSource():
                return str(self.source.path)
            case CatalogHubSource():
                return f"{self.source.repo} at {self.source.revision[:12]}"
            case CatalogPackageSource():
                return f"the Python package {self.source.package}"


class Catalog(_CatalogPart):
    """All base models, by id."""

    models: tuple[BaseModelEntry, ...]

    def find_base(self, model_id: str) -> BaseModelEntry | None:
        """Return the base model with this id."""
        return next((entry for entry in self.models if entry.id == model_id), None)


class SourceMissing(Exception):
    """This machine does not have what a catalog entry names; the message says how to get it."""


def load_catalog(path: Path | None) -> Catalog:
    """Read a catalog file, or the one that ships with the package. Raises SettingsError with the reason."""
    try:
        if path is None:
            text = importlib.resources.files("service.catalog").joinpath("catalog.json").read_bytes()
        else:
            text = path.read_bytes()
        return Catalog.model_validate_json(text)
    except OSError as error:
        raise SettingsError(f"The catalog {path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"The catalog {path} is wrong at {where}: {first['msg']}.") from error


def locate_source(source: CatalogPackageSource | CatalogFolderSource | CatalogHubSource) -> dict[str, Any]:
    """Turn a source into what `python -m trainer.programs.prepare` reads, without importing the package.

    Raises SourceMissing if this machine lacks it.
    """
    if isinstance(source, CatalogHubSource):
        return source.model_dump(mode="json")
    if isinstance(source, CatalogFolderSource):
        if not (source.path / "config.json").is_file():
            raise SourceMissing(f"The base model's folder {source.path} has no config.json.")
        return {"kind": "folder", "path": str(source.path.resolve())}
    spec = find_spec(source.package)
    places = (spec.submodule_search_locations if spec else None) or []
    for place in places:
        file = Path(place) / source.file
        if file.is_file():
            return {"kind": "gguf", "path": str(file)}
    raise SourceMissing(
        f"The Python package '{source.package}' with {source.file} is not installed where this worker runs. "
        f"Install it with: {source.install}"
    )
