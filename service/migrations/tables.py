"""Imports every table, so that the metadata is whole."""

from __future__ import annotations

from service.audit.tables import AuditRow
from service.exports.tables import ModelExport
from service.files.tables import File, FileContent
from service.jobs.tables import Job, JobArtifact, JobCheckpoint, JobEvent, JobMetadata
from service.keys.tables import ApiKey, IdempotentAnswer, Project
from service.kit.outbox import OutboxRow
from service.kit.project_turns import ProjectTurn
from service.limits.tables import ProjectLimit, TrainingSpan
from service.models.tables import CheckpointPermission, FineTunedModel
from service.previews.tables import Preview
from service.uploads.tables import Upload, UploadPart
from service.webhooks.tables import WebhookAttempt, WebhookEndpoint, WebhookEvent
from service.workers.tables import Worker

TABLES = (
    Project,
    ApiKey,
    IdempotentAnswer,
    File,
    FileContent,
    Upload,
    UploadPart,
    FineTunedModel,
    CheckpointPermission,
    Job,
    JobMetadata,
    JobEvent,
    JobCheckpoint,
    JobArtifact,
    ModelExport,
    OutboxRow,
    WebhookEndpoint,
    WebhookEvent,
    WebhookAttempt,
    ProjectLimit,
    TrainingSpan,
    AuditRow,
    Worker,
    Preview,
    ProjectTurn,
)
