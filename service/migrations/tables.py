"""Imports every table, so that the metadata is whole."""

from __future__ import annotations

from service.audit.tables import AuditRow
from service.exports.tables import ModelExportRow
from service.files.tables import FileContentRow, FileRow
from service.jobs.tables import JobArtifactRow, JobCheckpointRow, JobEventRow, JobMetadataRow, JobRow
from service.keys.tables import ApiKeyRow, IdempotentAnswerRow, ProjectRow
from service.kit.outbox import OutboxRow
from service.kit.project_turns import ProjectTurnRow
from service.limits.tables import ProjectLimitRow, TrainingSpanRow
from service.models.tables import CheckpointPermissionRow, FineTunedModelRow
from service.previews.tables import PreviewRow
from service.uploads.tables import UploadPartRow, UploadRow
from service.webhooks.tables import WebhookAttemptRow, WebhookEndpointRow, WebhookEventRow
from service.workers.tables import WorkerRow

TABLES = (
    ProjectRow,
    ApiKeyRow,
    IdempotentAnswerRow,
    FileRow,
    FileContentRow,
    UploadRow,
    UploadPartRow,
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
