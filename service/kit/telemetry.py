"""What every process begins with: its log, its traces, its metrics."""

from __future__ import annotations

from service.kit.log import set_up_logging
from service.kit.metrics import serve_metrics
from service.kit.settings import Settings
from service.kit.tracing import set_up_tracing


def set_up_telemetry(settings: Settings, role: str, name: str | None = None) -> None:
    """Set all three up; `name` distinguishes several processes of a role. Raises SettingsError."""
    set_up_logging(role, settings.log_format, name)
    set_up_tracing(role)
    serve_metrics(settings, role, name or role)
