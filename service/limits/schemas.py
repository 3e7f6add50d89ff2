"""What the wire shows of limits, and what requests may say."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.limits.values import NAMES, QuotaLimits, QuotaUsage

_MOST = 2**53
Default = Literal["default"]
_Quota = Annotated[int, Field(ge=0, le=_MOST, strict=True)] | Default | None
_Rate = Annotated[int, Field(ge=1, le=2**31, strict=True)] | Default | None
_MEANING = "null is unlimited, default the setting of the service."


class LimitsUpdate(BaseModel):
    """The body of a change; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    stored_bytes: _Quota = Field(None, description=f"Bytes that the project may store; {_MEANING}", examples=[10**10])
    running_jobs: _Quota = Field(None, description=f"Jobs that may run at the same time; {_MEANING}", examples=[2])
    queued_jobs: _Quota = Field(None, description=f"Jobs that may wait to run or be paused; {_MEANING}", examples=[20])
    training_minutes: _Quota = Field(
        None, description=f"Minutes a calendar month (UTC) that attempts at jobs may run; {_MEANING}", examples=[6000]
    )
    requests_per_minute: _Rate = Field(None, description=f"Requests a minute; {_MEANING}", examples=[600])
    tokens_per_minute: _Rate = Field(
        None, description=f"Tokens a minute of chat completions; {_MEANING}", examples=[100_000]
    )

    def requested_changes(self) -> dict[str, int | Default | None]:
        """Return what the body says."""
        return {name: getattr(self, name) for name in NAMES if name in self.model_fields_set}


class LimitObject(BaseModel):
    """One limit; `limit` null is unlimited, `source` tells who set it."""

    limit: int | None
    source: Literal["default", "project"]


class QuotaObject(LimitObject):
    """A limit of something that is used up."""

    used: int | float


class MonthlyObject(QuotaObject):
    """A quota that begins anew with every calendar month of UTC."""

    resets_at: int


class LimitsObject(BaseModel):
    """All limits of a project, and how much of each is used."""

    object: Literal["organization.project.limits"] = "organization.project.limits"
    project_id: str
    stored_bytes: QuotaObject
    running_jobs: QuotaObject
    queued_jobs: QuotaObject
    training_minutes: MonthlyObject
    requests_per_minute: LimitObject
    tokens_per_minute: LimitObject

    @classmethod
    def from_limits(cls, project_id: str, limits: QuotaLimits, own: frozenset[str], usage: QuotaUsage) -> LimitsObject:
        """Show a project's limits; `own` names those that are not the defaults."""

        def show_limit(name: str) -> dict[str, object]:
            used = getattr(usage, name, None)
            return {
                "limit": getattr(limits, name),
                "source": "project" if name in own else "default",
                **({} if used is None else {"used": used}),
            }

        values: dict[str, object] = {name: show_limit(name) for name in NAMES}
        monthly = {**show_limit("training_minutes"), "resets_at": int(usage.month_ends_at)}
        return cls.model_validate({**values, "project_id": project_id, "training_minutes": monthly})
