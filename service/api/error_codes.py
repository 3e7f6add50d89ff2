"""Every error code that a caller meets, with its cause and what to do: `python -m service.api.error_codes` prints the
page docs/errors.md. A test holds the tables against the codes that stand in the code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class ErrorCode(NamedTuple):
    """What a code means."""

    status: str
    """The HTTP status of a refused request; for a job that failed, who has to act."""
    cause: str
    remedy: str


REQUEST_CODES: Mapping[str, ErrorCode] = {
    "answer_failed": ErrorCode("502", "The chat engine failed while it wrote the answer.", "Send the request again."),
    "base_model_unavailable": ErrorCode(
        "400",
        "The base model is broken, or its folder has changed since it was added.",
        "Do what the sentence says; the operator's `burnish-server models check` looks again.",
    ),
    "chat_unavailable": ErrorCode(
        "503", "No chat engine is configured, or it does not answer.", "Start one (`burnish-server engine`), or wait."
    ),
    "conflict": ErrorCode(
        "409",
        "The object's state does not allow the operation.",
        "Read the object; the sentence says which state it needs.",
    ),
    "context_length_exceeded": ErrorCode(
        "400", "The messages have more tokens than the model's context.", "Leave some of the messages out."
    ),
    "broken_model": ErrorCode(
        "502", "The model's weights give no numbers: its training diverged.", "Use one of its earlier checkpoints."
    ),
    "download_blocked": ErrorCode(
        "403",
        "The weights come from a model that its owner shared without letting them out.",
        "Ask the owner for a permission with `adapter_download`.",
    ),
    "engine_died": ErrorCode(
        "502",
        "The process that answers chats ended, most likely for lack of memory.",
        "Send the request again; the operator gives the engine more memory.",
    ),
    "engine_overloaded": ErrorCode(
        "429", "As many chats of the project wait as may.", "Wait as long as `retry-after` says, then send it again."
    ),
    "expired": ErrorCode(
        "409",
        "The job's results were deleted when their time was over (`expires_after`).",
        "Run the job again, or keep its results for longer.",
    ),
    "expired_api_key": ErrorCode("401", "The API key has expired.", "Make a new key and use that."),
    "grader_model_not_at_hand": ErrorCode(
        "400",
        "A training's grader names a model that the training does not hold.",
        "Name the job's own base, or the model that it starts from.",
    ),
    "graders_overloaded": ErrorCode(
        "429",
        "More gradings wait or run than may at a time.",
        "Wait as long as `retry-after` says, then send it again.",
    ),
    "idempotency_key_reused": ErrorCode(
        "409",
        "The `Idempotency-Key` was used for another request in the last 24 hours.",
        "Send a new key with a new request.",
    ),
    "insufficient_permissions": ErrorCode(
        "403", "The key is valid, but lacks the scope that the operation needs.", "Use a key with that scope."
    ),
    "insufficient_quota": ErrorCode(
        "429",
        "A quota of the project is used up.",
        "Delete what is no longer needed, or ask the administrator for a larger quota. Sending it again does not help.",
    ),
    "insufficient_storage": ErrorCode(
        "507", "The disk or the bucket has no room left.", "The operator frees space; deletions still work."
    ),
    "invalid_adapter": ErrorCode(
        "502", "The adapter cannot be loaded onto its base model.", "Train it anew; the engine's log has the details."
    ),
    "invalid_api_key": ErrorCode(
        "401",
        "There is no API key, or it is unknown, revoked, or its project was deleted.",
        "Send `Authorization: Bearer <key>` with a valid key.",
    ),
    "invalid_file_format": ErrorCode(
        "400",
        "The uploaded file is not a valid dataset; `problems` names each line.",
        "Correct the lines, and upload the file again.",
    ),
    "invalid_python_grader": ErrorCode(
        "400",
        "The source of a Python grader cannot be run.",
        "Give it a function `grade(sample, item)`; the sentence says what is missing.",
    ),
    "job_in_use": ErrorCode("409", "Other jobs need what this one left.", "Wait for them, or delete them first."),
    "job_not_ended": ErrorCode("409", "The job has not ended, so it cannot be deleted.", "Cancel it first."),
    "method_not_allowed": ErrorCode(
        "405", "The URL does not take this HTTP method.", "Use one of those in the header `Allow`."
    ),
    "model_not_found": ErrorCode(
        "404",
        "No such model exists, or the project may not use it.",
        "Name one from `GET /v1/models`, or have it shared with the project.",
    ),
    "model_not_ready": ErrorCode("409", "The job that makes the model has not ended.", "Ask again when it has."),
    "no_adapter": ErrorCode(
        "409", "The job trains all weights, so it leaves no adapter.", "Download its model instead, under `/model`."
    ),
    "no_model": ErrorCode(
        "409",
        "The job trains an adapter, so it leaves no whole model.",
        "Download its adapter instead, under `/adapter`.",
    ),
    "no_worker": ErrorCode(
        "409",
        "No worker runs, and only workers have the models' tokenizers.",
        "Start one (`burnish-server worker`), then ask again.",
    ),
    "not_found": ErrorCode(
        "404", "No object of the project has the id.", "Check the id, and that the key belongs to the object's project."
    ),
    "not_ready": ErrorCode("409", "The result is not there yet.", "Ask again when its job or export has succeeded."),
    "parent_failed": ErrorCode(
        "409",
        "The job that would have made the model ended without one.",
        "Name another model, or one of the job's checkpoints.",
    ),
    "part_too_large": ErrorCode("400", "A part of an upload is larger than a part may be.", "Send smaller parts."),
    "preview_timeout": ErrorCode(
        "503",
        "The preview takes longer than one request waits; the sentence says what it is busy with.",
        "Send the same request again: it waits for the same answer.",
    ),
    "python_graders_off": ErrorCode(
        "400",
        "The operator has not switched Python graders on.",
        "Use another grader, or ask the operator for `BURNISH_PYTHON_GRADERS=on`.",
    ),
    "python_graders_unavailable": ErrorCode(
        "503",
        "The machine cannot run Python graders: a part of their sandbox is missing.",
        "The operator reads the sentence, which names the part.",
    ),
    "range_not_satisfiable": ErrorCode(
        "416",
        "The requested range lies outside the download.",
        "Ask for bytes below the size in `Content-Range`.",
    ),
    "rate_limit_exceeded": ErrorCode(
        "429",
        "The project sends more requests than its rate allows.",
        "Wait as long as `retry-after` says; the official clients do so.",
    ),
    "stale_lease": ErrorCode(
        "409",
        "A worker reported on a job after another worker had taken the lease.",
        "None: the worker ends its attempt by itself.",
    ),
    "too_large": ErrorCode(
        "413", "The body is larger than the operation takes.", "Send less; the sentence names the bound."
    ),
    "too_many_at_once": ErrorCode(
        "429",
        "The project has as many requests of this kind open or waiting as may be.",
        "Wait as long as `retry-after` says, then send it again.",
    ),
    "too_many_connections": ErrorCode(
        "503", "As many connections are open as the process takes.", "Close some that are not used, or try again."
    ),
    "too_many_previews": ErrorCode(
        "409", "The project has as many previews under way as may be.", "Wait for one of them, or try again."
    ),
    "unavailable": ErrorCode(
        "503",
        "The database, the queue or the blob storage does not answer.",
        "Send the request again; the operator looks at `/readyz` and the log.",
    ),
    "unknown_url": ErrorCode("404", "The service has no such URL.", "Check it against `openapi/openapi.json`."),
    "unsupported_conversation": ErrorCode(
        "400",
        "The model's chat template cannot render the messages.",
        "Change their roles or order as the sentence says.",
    ),
    "unsupported_export": ErrorCode(
        "400", "The model's family cannot be written in the format of the export.", "Choose another format."
    ),
    "upload_cancelled": ErrorCode("409", "The upload was cancelled.", "Begin another one."),
    "upload_completed": ErrorCode(
        "409", "The upload is complete, and takes no more parts.", "Use the file that it made."
    ),
    "upload_expired": ErrorCode("409", "The upload was not completed in time.", "Begin another one."),
    "webhook_unreachable": ErrorCode(
        "400",
        "The test of a webhook endpoint reached no receiver.",
        "Check the URL and that the receiver answers from the service's network.",
    ),
}
"""What a refused request's `error.code` may be. A request with a wrong field has no code: `param` names the field."""

JOB_CODES: Mapping[str, ErrorCode] = {
    "base_not_found": ErrorCode(
        "operator",
        "The base model's folder or repository cannot be found.",
        "Correct the entry in the configuration of base models.",
    ),
    "budget_too_small": ErrorCode(
        "caller",
        "`max_tokens` is less than the first step takes.",
        "Raise `max_tokens`, or lower `batch_size` or `gradient_accumulation_steps`.",
    ),
    "checkpoint_broken": ErrorCode("caller", "The checkpoint to resume from is damaged.", "Start the job anew."),
    "data_corrupted": ErrorCode(
        "caller", "A file is not the one that the job named: its SHA-256 differs.", "Upload it again."
    ),
    "disk_full": ErrorCode(
        "operator", "The worker's disk is full.", "Free some space there, then start the job again."
    ),
    "export_mismatch": ErrorCode(
        "operator",
        "The exported weights, loaded again, do not give the trained model's outputs.",
        "Start the export or job again; if it persists, report it with the job's log.",
    ),
    "grader_failed": ErrorCode(
        "operator",
        "The grader cannot be run on the worker, or could grade no answer.",
        "Correct what the sentence names.",
    ),
    "incompatible_reward_model": ErrorCode(
        "caller",
        "The reward model does not fit the policy's base or tokenizer.",
        "Train a reward model on the policy's base.",
    ),
    "incompatible_start_model": ErrorCode(
        "caller", "The model that the job starts from does not fit the method.", "Start from another model."
    ),
    "invalid_base_model": ErrorCode(
        "operator",
        "The base model cannot be loaded, or lacks what the method needs.",
        "Choose another base, or repair the files of this one.",
    ),
    "invalid_grader": ErrorCode(
        "caller",
        "The job's Python grader cannot be run.",
        "Correct its source; `POST /v1/fine_tuning/alpha/graders/run` tries it.",
    ),
    "invalid_hyperparameters": ErrorCode(
        "caller",
        "A hyperparameter does not fit the base or the model that the job starts from.",
        "Change the one that `param` names.",
    ),
    "invalid_job": ErrorCode(
        "operator",
        "The worker's folder for the job is incomplete.",
        "Start the job again; the worker's log has the details.",
    ),
    "invalid_training_file": ErrorCode(
        "caller",
        "The training file has rows that the method cannot take; the event lists their lines.",
        "Correct the lines, upload the file again, and create a new job.",
    ),
    "invalid_validation_file": ErrorCode(
        "caller",
        "The validation file has rows that the method cannot take; the event lists their lines.",
        "Correct the lines, upload the file again, and create a new job.",
    ),
    "loss_not_finite": ErrorCode(
        "caller",
        "The training diverged: loss or gradient is not a finite number.",
        "Lower `learning_rate_multiplier` or `max_grad_norm`, or use `dtype` `float32`.",
    ),
    "missing_package": ErrorCode(
        "operator",
        "A Python package of the trainer is not installed on the worker.",
        "Install `burnish-server[trainer]` there.",
    ),
    "no_trainable_rows": ErrorCode(
        "caller", "No row of the training file fits within `max_length`.", "Raise `max_length`, or shorten the rows."
    ),
    "out_of_memory": ErrorCode(
        "caller",
        "The worker ran out of memory.",
        "Lower `batch_size` or `max_length`, or use a machine with more memory.",
    ),
    "parent_failed": ErrorCode(
        "caller",
        "A job that this one waited for ended without a result.",
        "Name another model, or start that job again first.",
    ),
    "policy_collapsed": ErrorCode(
        "caller",
        "The policy's answers drifted too far, or are not numbers.",
        "Lower `learning_rate_multiplier` or raise `kl_coef`; start from the last checkpoint.",
    ),
    "prompt_too_long": ErrorCode(
        "caller",
        "Prompts leave no room for `max_new_tokens` in the model's context.",
        "Shorten them, or lower `max_new_tokens`.",
    ),
    "python_graders_off": ErrorCode(
        "operator",
        "Python graders are switched off on the worker.",
        "Set `BURNISH_PYTHON_GRADERS=on` there, or use another grader.",
    ),
    "server_error": ErrorCode(
        "operator", "The service made an error while it checked the files.", "Read its log, and report it."
    ),
    "storage_full": ErrorCode(
        "operator", "The blob storage has no room for the result.", "Free some space, then start the job again."
    ),
    "storage_unavailable": ErrorCode(
        "operator", "The blob storage did not answer for too long.", "Bring it back, then start the job again."
    ),
    "timeout": ErrorCode(
        "caller", "The job ran for its `timeout`.", "Raise it; the checkpoints stay, and a new job can start from one."
    ),
    "trainer_fault": ErrorCode("operator", "The trainer failed unexpectedly.", "Read the worker's log, and report it."),
    "unsupported_base_model": ErrorCode(
        "caller",
        "The base's attention cannot keep the documents of one window apart.",
        "Set `attend_across_documents` to true.",
    ),
    "unsupported_chat_template": ErrorCode(
        "caller", "The base model's chat template cannot render the rows.", "Choose another base."
    ),
    "unsupported_conversation": ErrorCode(
        "caller",
        "The base model's chat template cannot render a row.",
        "Change the roles or their order in the line that the sentence names.",
    ),
    "unsupported_export": ErrorCode(
        "caller", "The model cannot be written in the format of the export.", "Choose another format."
    ),
    "worker_error": ErrorCode("operator", "The worker failed unexpectedly.", "Read its log, and report it."),
    "worker_lost": ErrorCode(
        "operator",
        "The worker stopped responding as often as a job is attempted.",
        "Look at the worker's machine; then start the job again.",
    ),
}
"""What a failed job's, preview's or export's `error.code` may be."""

_HEAD = """# Errors

What an error's `code` means and what to do. `service/api/error_codes.py` makes this page (`make openapi`).

Each refused request is answered by a JSON body in OpenAI's shape; the sentence in `message` names what is wrong:

```json
{"error": {"message": "…", "type": "invalid_request_error", "param": "training_file", "code": "not_found"}}
```

If only a field is wrong, the status is 400, `code` is null, and `param` names the field. `x-should-retry` says whether
the same request can succeed later; the official clients follow it.
"""


def write_error_page() -> str:
    """Return the page docs/errors.md."""
    requests = ["## Refused requests", "", "| Code | Status | Cause | What to do |", "| --- | --- | --- | --- |"]
    requests += [f"| `{code}` | {e.status} | {e.cause} | {e.remedy} |" for code, e in sorted(REQUEST_CODES.items())]
    jobs = [
        "## Failed jobs, previews and exports",
        "",
        "These stand in the object's `error`, not in an answer's. «Who» is who can do something about it.",
        "",
        "| Code | Who | Cause | What to do |",
        "| --- | --- | --- | --- |",
    ]
    jobs += [f"| `{code}` | {e.status} | {e.cause} | {e.remedy} |" for code, e in sorted(JOB_CODES.items())]
    return "\n".join([_HEAD, *requests, "", *jobs]) + "\n"


if __name__ == "__main__":
    print(write_error_page(), end="")
