"""Examples for the API's description, put together from the schemas: what a field says of itself, else its name."""

from __future__ import annotations

from typing import Any, cast

_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_MODEL = "ft:smollm2-135m-instruct:burnish:desk:abc12345"
_IDS = {
    "file": "file-abc123",
    "upload": "upload_abc123",
    "upload.part": "part_abc123",
    "fine_tuning.job": "ftjob-abc123",
    "fine_tuning.job.event": "ftevent-abc123",
    "fine_tuning.job.checkpoint": "ftckpt_abc123",
    "checkpoint.permission": "cp_abc123",
    "model": _MODEL,
    "webhook_endpoint": "whe_abc123",
    "webhook_endpoint.deleted": "whe_abc123",
    "webhook_endpoint.delivery": "whatt_abc123",
    "organization.project": "proj_abc123",
    "organization.project.api_key": "key_abc123",
    "organization.project.api_key.deleted": "key_abc123",
}
"""An object's id by what its `object` says."""
_NAMED: dict[str, Any] = {
    "batch_size": 4,
    "base_model": "smollm2-135m-instruct",
    "begin": 1764000000,
    "bytes": 52428,
    "created": 1764000000,
    "created_at": 1764000000,
    "data": {"step": 12, "total_steps": 12, "train_loss": 0.52},
    "duration_ms": 84,
    "enabled": True,
    "event_id": "evt_abc123",
    "event_ids": ["evt_abc123"],
    "event_type": "fine_tuning.job.succeeded",
    "event_types": ["fine_tuning.job.succeeded", "fine_tuning.job.failed"],
    "expires_at": 1764003600,
    "filename": "train.jsonl",
    "fine_tuned_model": _MODEL,
    "fine_tuned_model_checkpoint": f"{_MODEL}:ckpt-step-12",
    "fine_tuning_job_id": "ftjob-abc123",
    "finished_at": 1764001800,
    "job_id": "ftjob-def456",
    "learning_rate_multiplier": 1.0,
    "lineage": [],
    "level": "info",
    "message": "The job has successfully completed",
    "metadata": {"team": "support"},
    "method": {
        "type": "supervised",
        "supervised": {"hyperparameters": {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 1.0}},
    },
    "metrics": {"train_loss": 0.52, "train_mean_token_accuracy": 0.81},
    "model": "smollm2-135m-instruct",
    "n_epochs": 3,
    "name": "support desk",
    "organization_id": "burnish",
    "owned_by": "proj_abc123",
    "part_ids": ["part_abc123", "part_def456"],
    "parts": [],
    "phase": "succeeded",
    "project_id": "proj_abc123",
    "project_ids": ["proj_def456"],
    "purpose": "fine-tune",
    "redacted_value": "burnish-h2JpQx…",
    "result_files": ["file-def456"],
    "scopes": ["read", "write"],
    "seed": 42,
    "sha256": _SHA256,
    "signing_secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "signing_secret_hint": "whsec_…LaSw",
    "started_at": 1764000060,
    "status": "succeeded",
    "status_code": 204,
    "step_number": 12,
    "suffix": "desk",
    "trained_tokens": 48210,
    "training_file": "file-abc123",
    "training_sha256": _SHA256,
    "updated_at": 1764000000,
    "upload_id": "upload_abc123",
    "url": "https://example.com/hooks/burnish",
    "value": "burnish-h2JpQxVbT0m5s8yCzWk3rLd7fNaG1eUiOjP4qXv9wBt",
    "webhook_endpoint_id": "whe_abc123",
}
"""What a field of this name holds if its schema has no example."""
_UNFINISHED: dict[str, Any] = {
    "fine_tuned_model": None,
    "finished_at": None,
    "result_files": [],
    "trained_tokens": None,
}
ANSWERS: dict[str, dict[str, Any]] = {
    "create_job": _UNFINISHED | {"status": "validating_files", "phase": "validating", "started_at": None, "attempt": 0},
    "cancel_job": _UNFINISHED | {"status": "cancelled", "phase": "cancelled", "finished_at": 1764000900},
    "pause_job": _UNFINISHED | {"status": "queued", "phase": "paused"},
    "resume_job": _UNFINISHED | {"status": "queued", "phase": "queued"},
    "cancel_upload": {"status": "cancelled"},
    "complete_upload": {
        "status": "completed",
        "file": {
            "id": "file-abc123",
            "object": "file",
            "bytes": 52428,
            "created_at": 1764000300,
            "filename": "train.jsonl",
            "purpose": "fine-tune",
            "status": "processed",
        },
    },
}
"""What is special about an operation's answer, by the operation's id."""
_TYPES_OF: dict[type, tuple[str, ...]] = {
    str: ("string",),
    bool: ("boolean",),
    int: ("integer", "number"),
    float: ("number",),
    dict: ("object",),
}
_BY_TYPE: dict[str, Any] = {"string": "text", "integer": 1, "number": 0.5, "boolean": False, "null": None}


_SELDOM = frozenset({"session", "status_details", "tool_calls"})
"""Members that most answers leave out."""


class SchemaExamples:
    """Makes examples of the schemas of one document."""

    def __init__(self, components: dict[str, Any]) -> None:
        self._components = components

    def make_example(self, schema: dict[str, Any], *, name: str = "", kind: str = "", optional: bool = True) -> Any:
        """Return an example of a schema. `name` is the field's, `kind` what the object around it says it is.

        With `optional` false, an object has only the fields that it must have and those with examples of their own.
        """
        schema = self._resolve_reference(schema)
        for keyword in ("examples", "const"):
            if keyword in schema:
                return schema[keyword][0] if keyword == "examples" else schema[keyword]
        if name == "id" and kind in _IDS:
            return _IDS[kind]
        if name in _NAMED and self._accepts_value(schema, _NAMED[name]):
            return _NAMED[name]
        if "default" in schema:
            return schema["default"]
        return self._build_example(schema, name, kind, optional)

    def _build_example(self, schema: dict[str, Any], name: str, kind: str, optional: bool) -> Any:
        choices = schema.get("anyOf") or schema.get("oneOf")
        if choices and "properties" not in schema:
            nullable = {"type": "null"} in choices
            return None if nullable else self.make_example(choices[0], name=name, kind=kind, optional=optional)
        if "enum" in schema:
            return schema["enum"][0]
        if schema.get("type") == "object":
            return self._build_object(schema, optional)
        if schema.get("type") == "array":
            items = schema.get("items", {})
            return [self.make_example(items, kind=kind)] if "$ref" in items or schema.get("minItems") else []
        return _BY_TYPE.get(schema.get("type", ""))

    def _build_object(self, schema: dict[str, Any], optional: bool) -> dict[str, Any]:
        properties: dict[str, Any] = schema.get("properties", {})
        required = schema.get("required", [])
        kind = str(properties.get("object", {}).get("const", ""))
        example = {
            key: self.make_example(value, name=key, kind=kind)
            for key, value in properties.items()
            if key in required or "examples" in value or (optional and key not in _SELDOM)
        }
        if example.get("data") and "first_id" in example:
            example |= {"first_id": example["data"][0]["id"], "last_id": example["data"][-1]["id"]}
        return example

    def _resolve_reference(self, schema: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in schema:
            schema = {
                **self._components[schema["$ref"].rpartition("/")[2]],
                **{key: value for key, value in schema.items() if key != "$ref"},
            }
        return schema

    def _accepts_value(self, schema: dict[str, Any], value: Any) -> bool:
        """Return whether a value has the type, roughly: a name may mean another thing elsewhere."""
        schema = self._resolve_reference(schema)
        choices = schema.get("anyOf") or schema.get("oneOf")
        if choices:
            return any(self._accepts_value(choice, value) for choice in choices)
        if "enum" in schema:
            return value in schema["enum"]
        if isinstance(value, list):
            return schema.get("type") == "array" and (not value or "$ref" not in schema.get("items", {}))
        if isinstance(value, dict) and "properties" in schema:
            return False
        return schema.get("type") in _TYPES_OF[type(cast("object", value))]
