"""Imports every table, so that the metadata is whole."""

from __future__ import annotations

from service.kit.outbox import OutboxRow
from service.kit.project_turns import ProjectTurnRow
from service.tables.audit import AuditRow
from service.tables.base_models import BaseModelRow
from service.tables.exports import ModelExportRow
from service.tables.files import FileContentRow, FileRow
from service.tables.jobs import JobArtifactRow, JobCheckpointRow, JobEventRow, JobMetadataRow, JobRow
from service.tables.keys import ApiKeyRow, IdempotentAnswerRow, ProjectRow
from service.tables.limits import ProjectLimitRow, TrainingSpanRow
from service.tables.models import CheckpointPermissionRow, FineTunedModelRow
from service.tables.previews import PreviewRow
from service.tables.uploads import UploadPartRow, UploadRow
from service.tables.webhooks import WebhookAttemptRow, WebhookEndpointRow, WebhookEventRow
from service.tables.workers import WorkerRow

TABLES = (
    ProjectRow,
    ApiKeyRow,
    IdempotentAnswerRow,
    FileRow,
    FileContentRow,
    UploadRow,
    UploadPartRow,
    BaseModelRow,
    FineTunedModelRow,
    CheckpointPermissionRow,
    JobRow,
    JobMetadataRow,
    JobEventRow,
    JobCheckpointRow,
    JobArtifactRow,
    ModelExportRow,
    OutboxRow,
    WebhookEndpointRow,
    WebhookEventRow,
    WebhookAttemptRow,
    ProjectLimitRow,
    TrainingSpanRow,
    AuditRow,
    WorkerRow,
    PreviewRow,
    ProjectTurnRow,
)
