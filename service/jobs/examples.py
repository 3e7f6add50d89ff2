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
                "maxProperties": 16,
                "propertyNames": {"minLength": 1, "maxLength": 64},
                "additionalProperties": {"type": "string", "maxLength": 512},
            },
            "example": {"team": "support"},
        }
    ]
}
STREAM: dict[str, Any] = {
    "schema": {"type": "string"},
    "example": 'id: ftevent-abc123\nevent: fine_tuning.job.event\ndata: {"id":"ftevent-abc123", "level":"info", …}\n\n'
    'event: done\ndata: {"id":"ftjob-abc123", "status":"succeeded", …}\n\n',
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
