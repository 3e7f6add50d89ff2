"""Fine-tuned models: what succeeded jobs leave for use."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import BigInteger, Double, ForeignKey, Integer, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from service.kit.db import Base, db_now

AdapterDownload = Literal["allowed", "blocked"]
"""Whether weights that go back to another project's model may leave the service."""


class FineTunedModelRow(Base):
    """One `ft:…` model under `blob_prefix`: an adapter relative to its base, or (kind `model`) all weights."""

    __tablename__ = "fine_tuned_models"

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(255), unique=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    base: Mapped[str] = mapped_column(String(255))
    kind: Mapped[str] = mapped_column(String(16))
    """`adapter`, `reward` or `model`."""
    job_id: Mapped[str] = mapped_column(String(40), unique=True)
    blob_prefix: Mapped[str] = mapped_column(String(255))
    bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    """Of all files under the prefix; 0 for results of releases that did not count them."""
    manifest_sha256: Mapped[str | None] = mapped_column(String(64))
    """The SHA-256 of `manifest.json` under the prefix; null for results of releases that did not keep it."""
    created_at: Mapped[float] = mapped_column(Double, default=db_now())
    expires_at: Mapped[float | None] = mapped_column(Double, index=True)


class CheckpointPermissionRow(Base):
    """Lets a project start from the model or checkpoint `model` of another project's job."""

    __tablename__ = "checkpoint_permissions"
    __table_args__ = (UniqueConstraint("project_id", "model"),)

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(40), unique=True)
    model: Mapped[str] = mapped_column(String(255), index=True)
    """`ft:…` or `ft:…:ckpt-step-N`, exactly."""
    job_id: Mapped[str] = mapped_column(String(40))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    """Who may use it."""
    adapter_download: Mapped[AdapterDownload] = mapped_column(String(8), default="allowed")
    """Whether that project may download what it trains from the model."""
    created_at: Mapped[float] = mapped_column(Double, default=db_now())
