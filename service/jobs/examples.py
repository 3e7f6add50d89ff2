"""What the API's description says of jobs beyond their schemas."""

from __future__ import annotations

from typing import Any

from fastapi.openapi.models import Example

SAMPLE_JOB = "ftjob-abc123"
CREATIONS: dict[str, Example] = {
    "supervised": {
        "summary": "Supervised fine-tuning",
        "value": {
            "model": "smollm2-135m-instruct",
            "training_file": "file-abc123",
            "validation_file": "file-def456",
            "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}},
            "suffix": "desk",
            "seed": 42,
            "metadata": {"team": "support"},
            "integrations": [{"type": "wandb", "wandb": {"project": "support-desk", "tags": ["desk"]}}],
        },
    },
    "dpo": {
        "summary": "Preferences (DPO), on the model of an earlier job",
        "value": {
            "model": "ftjob-abc123",
            "training_file": "file-abc123",
            "method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1, "lora": {"rank": 8, "alpha": 16}}}},
        },
    },
    "all settings on auto": {
        "summary": "The least that a job needs",
        "value": {"model": "smollm2-135m-instruct", "training_file": "file-abc123"},
    },
}
METADATA_PARAMETER: dict[str, Any] = {
    "parameters": [
        {
            "name": "metadata",
            "in": "query",
            "required": False,
            "style": "deepObject",
            "explode": True,
            "description": "Pairs that a job's metadata must have: `metadata[key]=value`. `metadata=null` finds jobs "
            "without any.",
            "schema": {
                "type": "object",
                "propertyNames": {"minLength": 1, "maxLength": 64},
                "additionalProperties": {"type": "string", "maxLength": 512},
            },
            "example": {"team": "support"},
        }
    ]
}
STREAM: dict[str, Any] = {
    "schema": {
        "description": "Each event of the stream.",
        "type": "object",
        "required": ["event", "data"],
        "properties": {
            "id": {"type": "string", "description": "For `Last-Event-ID`; `done` has none."},
            "event": {"type": "string", "enum": ["fine_tuning.job.event", "done"]},
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "description": "A job's event, or with `done` the job.",
            },
        },
    },
    "example": {
        "id": "ftevent-abc123",
        "event": "fine_tuning.job.event",
        "data": '{"id":"ftevent-abc123","object":"fine_tuning.job.event","created_at":1764000000,"level":"info",'
        '"message":"Step 12/12: training loss=0.52","type":"metrics","data":{"step":12,"train_loss":0.52}}',
    },
}
REPORT: dict[str, Any] = {
    "description": "The report",
    "content": {
        "application/json": {"schema": {"type": "object"}, "example": {"job_id": SAMPLE_JOB, "measures": {}}},
        "text/html": {"schema": {"type": "string"}, "example": "<!doctype html><html>…</html>"},
    },
    "headers": {
        "ETag": {"description": "The SHA-256 of the report.", "schema": {"type": "string"}},
        "Vary": {"description": "`Accept` decides about the form.", "schema": {"type": "string"}},
    },
}
