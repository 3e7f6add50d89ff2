"""Requests that are wrong, each with what its answer has to name. `{file}` and the like stand for ids that exist."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from typing import Any

DEEP = '{"a":' * 900 + "1" + "}" * 900
JOBS, FILES, UPLOADS, HOOKS = "/fine_tuning/jobs", "/files", "/uploads", "/webhook_endpoints"
PROJECTS = "/organization/projects"
PERMISSIONS = "/fine_tuning/checkpoints/ft:tiny:burnish::12345678/permissions"
JSON = {"Content-Type": "application/json"}
CHECK = {"type": "string_check", "name": "n", "input": "a", "reference": "b", "operation": "eq"}
CODE = {"type": "python", "name": "n", "source": "def grade(sample, item):\n    return 1"}


@dataclass(frozen=True)
class Bad:
    """A request, the status it must get, and a text that the sentence or the name of the place must have."""

    method: str
    path: str
    status: int
    names: str
    body: str | bytes | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])

    def __str__(self) -> str:
        body = self.body if isinstance(self.body, str) else (self.body or b"").decode("latin-1")
        return f"{self.method} {self.path[:60]} {body[:60]} {self.names[:30]}"


def form(*parts: tuple[str, bytes], end: bytes = b"\r\n--b--\r\n") -> bytes:
    """Return a multipart body with the boundary `b`: headers of a part and its bytes."""
    return (
        b"".join(b"\r\n--b\r\nContent-Disposition: form-data; %s\r\n\r\n%s" % (h.encode(), d) for h, d in parts) + end
    )


ROWS = b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}\n'
FILE = ('name="file"; filename="a.jsonl"', ROWS)
PURPOSE = ('name="purpose"', b"fine-tune")
FORM = {"Content-Type": "multipart/form-data; boundary=b"}


def upload(names: str, *parts: tuple[str, bytes], **more: Any) -> Bad:
    """Return a bad upload of a form's parts."""
    return Bad("POST", FILES, more.pop("status", 400), names, form(*parts, **more), FORM)


def post(path: str, names: str, body: Any, status: int = 400, **headers: str) -> Bad:
    """Return a bad POST of JSON; a string or bytes go out as they are."""
    text = body if isinstance(body, (str, bytes)) else json.dumps(body)
    return Bad("POST", path, status, names, text, JSON | headers)


def job(names: str, status: int = 400, **changes: Any) -> Bad:
    """Return a bad creation of a job."""
    return post(JOBS, names, {"model": "tiny", "training_file": "{file}", **changes}, status)


def supervised(names: str, **hyperparameters: Any) -> Bad:
    """Return a creation of a job with bad hyperparameters."""
    block = {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}
    return job(names, method=block)


def announced(names: str, status: int = 400, **changes: Any) -> Bad:
    """Return a bad announcement of an upload."""
    body = {"filename": "a.jsonl", "purpose": "fine-tune", "bytes": 10, "mime_type": "text/jsonl", **changes}
    return post(UPLOADS, names, {key: value for key, value in body.items() if value != "absent"}, status)


def hook(names: str, **changes: Any) -> Bad:
    """Return a bad creation of a webhook endpoint."""
    body = {"name": "n", "url": "http://127.0.0.1:9/", "event_types": ["fine_tuning.job.succeeded"], **changes}
    return post(HOOKS, names, body)


_UNKNOWN = [
    Bad("GET", f"{FILES}/file-none", 404, "file-none"),
    Bad("DELETE", f"{FILES}/file-none", 404, "file-none"),
    Bad("GET", f"{FILES}/file-none/content", 404, "file-none"),
    Bad("GET", f"{FILES}/{'x' * 5000}", 404, "No such File"),
    Bad("GET", f"{FILES}/%ff%fe", 404, "No such File"),
    Bad("GET", f"{FILES}/..%2f..%2fetc%2fpasswd", 404, "etc/passwd"),
    Bad("GET", f"{UPLOADS}/upload_none", 404, "upload_none"),
    Bad("POST", f"{UPLOADS}/upload_none/cancel", 404, "upload_none"),
    Bad("POST", f"{UPLOADS}/upload_none/parts", 404, "upload_none", form(('name="data"; filename="x"', b"x")), FORM),
    post(f"{UPLOADS}/upload_none/complete", "upload_none", {"part_ids": ["part_x"]}, 404),
    *(Bad("GET", f"{JOBS}/ftjob-none{rest}", 404, "ftjob-none") for rest in ("", "/events", "/checkpoints")),
    *(Bad("GET", f"{JOBS}/ftjob-none/{name}", 404, "ftjob-none") for name in ("adapter", "model", "report")),
    *(Bad("POST", f"{JOBS}/ftjob-none/{verb}", 404, "ftjob-none") for verb in ("cancel", "pause", "resume")),
    Bad("DELETE", f"{JOBS}/ftjob-none", 404, "ftjob-none"),
    Bad("GET", "/models/none", 404, "none"),
    Bad("DELETE", "/models/ft:none", 404, "ft:none"),
    Bad("GET", f"{HOOKS}/we_none", 404, "we_none"),
    Bad("DELETE", f"{HOOKS}/we_none", 404, "we_none"),
    post(f"{HOOKS}/we_none", "we_none", {}, 404),
    post(f"{HOOKS}/we_none/rotate_secret", "we_none", {}, 404),
    post(f"{HOOKS}/we_none/test", "we_none", {"event_type": "fine_tuning.job.succeeded"}, 404),
    post(f"{HOOKS}/we_none/replay", "we_none", {"event_ids": ["evt_x"]}, 404),
    Bad("GET", f"{HOOKS}/we_none/deliveries", 404, "we_none"),
    Bad("GET", f"{PROJECTS}/proj_none", 404, "proj_none"),
    Bad("GET", f"{PROJECTS}/proj_none/api_keys", 404, "proj_none"),
    post(f"{PROJECTS}/proj_none/api_keys", "proj_none", {"name": "n"}, 404),
    Bad("DELETE", f"{PROJECTS}/{{project}}/api_keys/key_none", 404, "key_none"),
    Bad("GET", PERMISSIONS, 404, "ft:tiny:burnish::12345678"),
    Bad("DELETE", f"{PERMISSIONS}/cp_none", 404, ""),
    Bad("GET", "/nothing", 404, "/nothing"),
    Bad("GET", "/fine_tuning", 404, "/fine_tuning"),
    Bad("GET", "/files/", 404, "/files/"),
    Bad("GET", "/evals", 404, "/evals"),
    Bad("POST", "/files/x/y/z", 404, "/files/x/y/z"),
]
_METHODS = [
    Bad("PUT", FILES, 405, "PUT"),
    Bad("PATCH", f"{FILES}/{{file}}", 405, "PATCH"),
    Bad("DELETE", JOBS, 405, "DELETE"),
    Bad("POST", "/models", 405, "POST"),
    Bad("GET", f"{JOBS}/{{job}}/cancel", 405, "GET"),
    Bad("PUT", f"{HOOKS}/{{hook}}", 405, "PUT"),
]
_LISTS = [
    *(
        Bad("GET", f"{path}?{query}", 400, names)
        for path in (FILES, JOBS, f"{JOBS}/{{job}}/events", f"{JOBS}/{{job}}/checkpoints", HOOKS, PROJECTS)
        for query, names in (("limit=0", "limit"), ("limit=x", "limit"), ("after=none", "after"))
    ),
    Bad("GET", f"{FILES}?limit=10001", 400, "limit"),
    Bad("GET", f"{JOBS}?limit=101", 400, "limit"),
    Bad("GET", f"{FILES}?limit=1e3", 400, "limit"),
    Bad("GET", f"{FILES}?limit=-1", 400, "limit"),
    Bad("GET", f"{FILES}?limit=99999999999999999999999", 400, "limit"),
    Bad("GET", f"{FILES}?limit=", 400, "limit"),
    Bad("GET", f"{FILES}?order=up", 400, "order"),
    Bad("GET", f"{FILES}?after={{job}}", 400, "after"),
    Bad("GET", f"{FILES}?after=%00", 400, "NUL"),
    Bad("GET", f"{JOBS}?metadata[]=x", 400, "metadata"),
    Bad("GET", f"{HOOKS}/{{hook}}/deliveries?after=evt_none", 400, "after"),
    Bad("GET", f"{HOOKS}/{{hook}}/deliveries?limit=0", 400, "limit"),
]
_UPLOADS = [
    Bad("POST", FILES, 400, "multipart/form-data"),
    Bad("POST", FILES, 400, "multipart/form-data", "{}", JSON),
    Bad("POST", FILES, 400, "boundary", form(FILE, PURPOSE), {"Content-Type": "multipart/form-data"}),
    Bad("POST", FILES, 400, "boundary", b"x", {"Content-Type": f"multipart/form-data; boundary={'b' * 300}"}),
    Bad("POST", FILES, 400, "multipart", b"", FORM),
    Bad("POST", FILES, 400, "multipart", b"no form at all", FORM),
    Bad("POST", FILES, 400, "closing boundary", form(FILE, PURPOSE, end=b""), FORM),
    upload("file", PURPOSE),
    upload("purpose", FILE),
    upload("file", FILE, FILE, PURPOSE),
    upload("purpose", FILE, ('name="purpose"', b"assistants")),
    upload("purpose", FILE, ('name="purpose"', b"")),
    upload("purpose", FILE, ('name="purpose"', b"\xff")),
    upload("purpose", FILE, ('name="purpose"', b"x" * 70_000)),
    upload("fields", FILE, PURPOSE, *((f'name="f{number}"', b"x") for number in range(70))),
    upload("file name", (f'name="file"; filename="{"x" * 300}.jsonl"', ROWS), PURPOSE),
    upload("a.csv", ('name="file"; filename="a.csv"', b"a,b\n"), PURPOSE),
    upload("expires_after", FILE, PURPOSE, ('name="expires_after[seconds]"', b"3600")),
    upload("expires_after", FILE, PURPOSE, ('name="expires_after[anchor]"', b"created_at")),
    upload(
        "expires_after",
        FILE,
        PURPOSE,
        ('name="expires_after[anchor]"', b"created_at"),
        ('name="expires_after[seconds]"', b"1"),
    ),
    upload(
        "expires_after",
        FILE,
        PURPOSE,
        ('name="expires_after[anchor]"', b"created_at"),
        ('name="expires_after[seconds]"', b"9" * 30),
    ),
    upload("2000000 bytes", ('name="file"; filename="a.jsonl"', ROWS * 30_000), PURPOSE, status=413),
    announced("filename", filename="absent"),
    announced("filename", filename=7),
    announced("filename", filename="a\0.jsonl"),
    announced("purpose", purpose="vision"),
    announced("bytes", bytes=0),
    announced("bytes", bytes=-1),
    announced("bytes", bytes=1.5),
    announced("bytes", bytes=2**70),
    announced("bytes", bytes="many"),
    announced("2000000 bytes", bytes=3_000_000, status=413),
    announced("mime_type", mime_type=""),
    announced("expires_after", expires_after={"anchor": "x", "seconds": 3600}),
    announced("expires_after", expires_after=[]),
    announced("extra", extra=1),
    Bad("POST", f"{UPLOADS}/{{upload}}/parts", 400, "data", form(('name="other"; filename="x"', b"x")), FORM),
    Bad("POST", f"{UPLOADS}/{{upload}}/parts", 400, "empty", form(('name="data"; filename="x"', b"")), FORM),
    Bad("POST", f"{UPLOADS}/{{upload}}/parts", 400, "announced", form(('name="data"; filename="x"', b"x" * 500)), FORM),
    post(f"{UPLOADS}/{{upload}}/complete", "part_ids", {}),
    post(f"{UPLOADS}/{{upload}}/complete", "part_ids", {"part_ids": []}),
    post(f"{UPLOADS}/{{upload}}/complete", "part_ids", {"part_ids": "x"}),
    post(f"{UPLOADS}/{{upload}}/complete", "part_ids.0", {"part_ids": ["part_none"]}),
    post(f"{UPLOADS}/{{upload}}/complete", "md5", {"part_ids": ["part_none"], "md5": "zz"}),
]
_BODIES = [
    post(JOBS, "not valid JSON", "{"),
    post(JOBS, "not valid JSON", '{"model": "tiny", "training_file": "x",}'),
    post(JOBS, "JSON object", "[]"),
    post(JOBS, "JSON object", '"text"'),
    post(JOBS, "JSON object", "null"),
    post(JOBS, "", ""),
    post(JOBS, "JSON", b"\xff\xfe{}"),
    post(JOBS, "JSON", '{"seed": ' + "9" * 5000 + "}"),
    post(JOBS, "JSON", "[" * 100_000),
    post(JOBS, "a", DEEP),
    post(JOBS, "1048576 bytes", " " * (1 << 20) + "{}", 413),
    Bad("POST", JOBS, 400, "Content-Type", b'{"model": "tiny"}', {"Content-Type": "text/plain"}),
    job("model", model=""),
    job("model", model=7),
    job("model", model="x" * 300),
    job("gpt-4o", 404, model="gpt-4o"),
    job("ftjob-none", 404, model="ftjob-none"),
    job("model", model="a\0b"),
    post(JOBS, "model", {"training_file": "{file}"}),
    post(JOBS, "training_file", {"model": "tiny"}),
    job("file-none", 404, training_file="file-none"),
    job("training_file", training_file=["{file}"]),
    job("file-none", 404, validation_file="file-none"),
    job("suffix", suffix=" "),
    job("suffix", suffix=""),
    job("suffix", suffix="x" * 65),
    job("seed", seed=-1),
    job("seed", seed=2**31),
    job("seed", seed=2**64),
    job("seed", seed="7.5"),
    job("metadata", metadata={"k" * 65: "v"}),
    job("metadata", metadata={"k": "v" * 513}),
    job("metadata", metadata={"k": 1}),
    job("metadata", metadata={f"k{number}": "v" for number in range(17)}),
    job("metadata", metadata={"k": "a\0"}),
    post(JOBS, "metadata", '{"model":"tiny","training_file":"{file}","metadata":{"k":"\\ud800"}}'),
    post(JOBS, "metadata.k", '{"model":"tiny","training_file":"{file}","metadata":{"k":NaN}}'),
    post(JOBS, "metadata.k", '{"model":"tiny","training_file":"{file}","metadata":{"k":1e999}}'),
    post(JOBS, "'training_file' twice", '{"model":"tiny","training_file":"file-a","training_file":"{file}"}'),
    post(JOBS, "'k' twice", '{"model":"tiny","training_file":"{file}","metadata":{"k":"a","\\u006b":"b"}}'),
    post(JOBS, "surrogate", '{"model":"tiny","training_file":"{file}","metadata":{"\\ud800":"a","\\ud800":"b"}}'),
    post(HOOKS, "'url' twice", '{"name":"n","url":"http://127.0.0.1:9/","url":"http://127.0.0.1:9/"}'),
    post("/chat/completions", "'role' twice", '{"model":"tiny","messages":[{"role":"user","role":"user"}]}'),
    post(
        "/chat/completions", "messages.0.content", '{"model":"tiny","messages":[{"role":"user","content":"\\ud800"}]}'
    ),
    post(JOBS, "Content-Encoding", gzip.compress(b"{}", mtime=0), **{"Content-Encoding": "gzip"}),
    Bad("POST", FILES, 400, "Content-Encoding", form(FILE, PURPOSE), FORM | {"Content-Encoding": "deflate, gzip"}),
    job("unknown_field", unknown_field=1),
    job("seed", seed=True),
    job("seed", seed="7"),
    job("letters", suffix="客服"),
    job("resources.gpu_memory_gb", resources={"gpu_memory_gb": True}),
    job(
        "expires_after.checkpoints.seconds", expires_after={"checkpoints": {"anchor": "created_at", "seconds": "3600"}}
    ),
    announced("bytes", bytes="10"),
    announced("bytes", bytes=True),
    job("method", method="supervised"),
    job("method.type", method={"type": "magic"}),
    job("method.type", method={}),
    job("method.supervised", method={"type": "supervised", "supervised": 7}),
    supervised("n_epochs", n_epochs=0),
    supervised("n_epochs", n_epochs="many"),
    supervised("n_epochs", n_epochs=10**30),
    supervised("batch_size", batch_size=-1),
    supervised("learning_rate_multiplier", learning_rate_multiplier="fast"),
    supervised("no_such", no_such=1),
    supervised("lora.rank", lora={"rank": 0}),
    post(
        JOBS,
        "learning_rate_multiplier",
        '{"model":"tiny","training_file":"{file}","hyperparameters":{"learning_rate_multiplier":Infinity}}',
    ),
    post(
        JOBS,
        "learning_rate_multiplier",
        '{"model":"tiny","training_file":"{file}","hyperparameters":{"learning_rate_multiplier":NaN}}',
    ),
    hook("name", name=""),
    hook("url", url="no url"),
    hook("url", url="ftp://example.com"),
    hook("url", url="http://user:password@example.com/"),
    hook("url", url="https://" + "a" * 3000),
    hook("event_types", event_types=[]),
    hook("event_types", event_types=["batch.completed"]),
    hook("event_types", event_types="all"),
    hook("name", name="a\0b"),
    hook("surprise", surprise=1),
    post(f"{HOOKS}/{{hook}}", "event_types", {"event_types": [1]}),
    post(f"{HOOKS}/{{hook}}/test", "event_type", {"event_type": "none"}),
    post(f"{HOOKS}/{{hook}}/rotate_secret", "keep_old_secret", {"keep_old_secret_active_for_24_hours": "perhaps"}),
    post(f"{HOOKS}/{{hook}}/rotate_secret", "keep_old_secret", {"keep_old_secret_active_for_24_hours": "yes"}),
    post(f"{HOOKS}/{{hook}}/replay", "from", {"from": True, "to": 5}),
    post(f"{HOOKS}/{{hook}}/replay", "event_ids", {}),
    post(f"{HOOKS}/{{hook}}/replay", "from", {"from": "x", "to": 1}),
    post(f"{HOOKS}/{{hook}}/replay", "from", {"from": 1e300, "to": 1}),
    post(PROJECTS, "name", {}),
    post(PROJECTS, "name", {"name": ""}),
    post(PROJECTS, "name", {"name": "a\nb"}),
    post(PROJECTS, "name", {"name": "x" * 65}),
    post(f"{PROJECTS}/{{project}}/api_keys", "scopes", {"name": "n", "scopes": ["root"]}),
    post(f"{PROJECTS}/{{project}}/api_keys", "scopes", {"name": "n", "scopes": []}),
    post(f"{PROJECTS}/{{project}}/api_keys", "expires_in", {"name": "n", "expires_in": 1}),
    post(f"{PROJECTS}/{{project}}/api_keys", "expires_in", {"name": "n", "expires_in": 10**30}),
    post(PERMISSIONS, "project_ids", {"project_ids": []}),
    post(PERMISSIONS, "project_ids", {"project_ids": "x"}),
]
_CHAT = [
    post("/chat/completions", "JSON", "{"),
    post("/chat/completions", "model", {"messages": [{"role": "user", "content": "x"}]}),
    post("/chat/completions", "messages", {"model": "tiny"}),
    post("/chat/completions", "messages", {"model": "tiny", "messages": []}),
    post("/chat/completions", "messages", {"model": "tiny", "messages": "hi"}),
    post("/chat/completions", "role", {"model": "tiny", "messages": [{"role": "robot", "content": "x"}]}),
    post("/chat/completions", "gpt-4o", {"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}, 404),
    post(
        "/chat/completions",
        "temperature",
        {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "temperature": 9},
    ),
    post(
        "/chat/completions",
        "max_tokens",
        {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": -1},
    ),
    post(
        "/chat/completions",
        "max_tokens",
        {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": "9"},
    ),
    Bad("GET", "/chat/completions", 405, "GET"),
    post("/fine_tuning/alpha/graders/run", "JSON", "{"),
    post("/fine_tuning/alpha/graders/run", "grader", {"model_sample": "x"}),
    post("/fine_tuning/alpha/graders/run", "model_sample", {"grader": CHECK}),
    post("/fine_tuning/alpha/graders/run", "item", {"grader": CHECK, "model_sample": "x", "item": "text"}),
    post("/fine_tuning/alpha/graders/validate", "operation", {"grader": {**CHECK, "operation": "is"}}),
    post("/fine_tuning/alpha/graders/validate", "BURNISH_PYTHON_GRADERS", {"grader": CODE}),
    Bad("GET", "/fine_tuning/alpha/graders/run", 405, "GET"),
]
_GOOD_JOB = json.dumps({"model": "tiny", "training_file": "{file}"})
_HEADERS = [
    Bad("GET", FILES, 401, "", headers={"Authorization": ""}),
    Bad("GET", FILES, 401, "", headers={"Authorization": "Bearer sk-wrong"}),
    Bad("GET", FILES, 401, "", headers={"Authorization": "Basic dTpw"}),
    Bad("GET", FILES, 401, "", headers={"Authorization": "Bearer " + "x" * 5000}),
    Bad("POST", JOBS, 400, "Idempotency-Key", _GOOD_JOB, JSON | {"Idempotency-Key": ""}),
    Bad("POST", JOBS, 400, "Idempotency-Key", _GOOD_JOB, JSON | {"Idempotency-Key": "k" * 256}),
    Bad("POST", JOBS, 400, "Idempotency-Key", _GOOD_JOB, JSON | {"Idempotency-Key": "a\tb"}),
    Bad("POST", FILES, 400, "Idempotency-Key", form(FILE, PURPOSE), FORM | {"Idempotency-Key": "k" * 256}),
    Bad("GET", f"{FILES}/{{file}}/content", 416, "range", headers={"Range": "bytes=99999999-"}),
    Bad("GET", f"{FILES}/{{file}}/content", 416, "range", headers={"Range": "bytes=-0"}),
    Bad("GET", f"{JOBS}/{{job}}/events?stream=maybe", 400, "stream"),
]
_STATES = [
    Bad("POST", f"{JOBS}/{{ended}}/cancel", 409, "{ended}"),
    Bad("POST", f"{JOBS}/{{ended}}/pause", 409, "{ended}"),
    Bad("POST", f"{JOBS}/{{ended}}/resume", 409, "{ended}"),
    Bad("POST", f"{JOBS}/{{job}}/resume", 409, "{job}"),
    Bad("DELETE", f"{JOBS}/{{job}}", 409, "{job}"),
    Bad("GET", f"{JOBS}/{{job}}/adapter", 409, "{job}"),
    Bad("GET", f"{JOBS}/{{job}}/report", 409, "{job}"),
    Bad("POST", f"{UPLOADS}/{{cancelled}}/cancel", 409, "{cancelled}"),
    post(f"{UPLOADS}/{{cancelled}}/complete", "{cancelled}", {"part_ids": ["part_x"]}, 409),
    Bad("POST", f"{UPLOADS}/{{cancelled}}/parts", 409, "{cancelled}", form(('name="data"; filename="x"', b"x")), FORM),
    job("{ended}", 409, model="{ended}"),
    post(PROJECTS, "name", {"name": "{name}"}, 409),
]

REQUESTS = [*_UNKNOWN, *_METHODS, *_LISTS, *_UPLOADS, *_BODIES, *_CHAT, *_HEADERS, *_STATES]
