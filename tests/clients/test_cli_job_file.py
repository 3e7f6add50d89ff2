"""`-f job.yaml`: all arguments of an order in a file, faults with their lines, options above it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from burnish.job_arguments import CreateJob
from tests.clients.scripted import Answer, Server, a_file, a_job, refusal
from tests.clients.test_cli import JOBS, Run, run

__all__ = ["run"]

WHOLE = """\
# 全部
model: ft:tiny:org::1
training_file: 数据/train.jsonl
validation_file: file-2
method: dpo
hyperparameters:
  n_epochs: 2
  batch_size: auto
  learning_rate_multiplier: 1e-1
  beta: 1e-2
  lora: {rank: 8, target_modules: [q_proj, v_proj]}
suffix: 2024-05-01
seed: 7
metadata: {团队: 客服}
lora: {alpha: 16}
priority: high
timeout: 3600
budget: {max_steps: 10, max_gpu_minutes: 5}
resources:
  gpus: 1
  labels: [a100]
expires_after:
  checkpoints: {anchor: created_at, seconds: 86400}
keep_checkpoints: 3
integrations:
  - type: wandb
    wandb: {project: p, tags: [x]}
idempotency_key: 今天-1
"""


def write(text: str, folder: Path) -> str:
    path = folder / "job.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_everything_that_an_order_takes(run: Run, server: Server, tmp_path: Path) -> None:
    (tmp_path / "数据").mkdir()
    (tmp_path / "数据" / "train.jsonl").write_text("{}")
    server.on("POST", "/v1/files", Answer(a_file(9)))
    server.on("POST", JOBS, Answer(a_job("queued")))
    text = WHOLE.replace("今天-1", "today-1")
    assert {line.split(":")[0] for line in text.splitlines() if line[0].isalpha()} == set(get_type_hints(CreateJob))
    assert run("jobs", "create", "--file", write(text, tmp_path)) == (0, "ftjob-1\n", "")
    assert server.seen[-1].headers["idempotency-key"] == "today-1"
    assert server.seen[-1].json() == {
        "model": "ft:tiny:org::1",
        "training_file": "file-9",
        "validation_file": "file-2",
        "method": {
            "type": "dpo",
            "dpo": {
                "hyperparameters": {
                    "n_epochs": 2,
                    "batch_size": "auto",
                    "learning_rate_multiplier": 0.1,
                    "beta": 0.01,
                    "lora": {"rank": 8, "target_modules": ["q_proj", "v_proj"]},
                }
            },
        },
        "suffix": "2024-05-01",
        "seed": 7,
        "metadata": {"团队": "客服"},
        "lora": {"alpha": 16},
        "priority": "high",
        "timeout": 3600,
        "budget": {"max_steps": 10, "max_gpu_minutes": 5},
        "resources": {"gpus": 1, "labels": ["a100"]},
        "expires_after": {"checkpoints": {"anchor": "created_at", "seconds": 86400}},
        "keep_checkpoints": 3,
        "integrations": [{"type": "wandb", "wandb": {"project": "p", "tags": ["x"]}}],
    }


def test_options_go_before_the_file(run: Run, server: Server, tmp_path: Path) -> None:
    server.on("POST", JOBS, Answer(a_job("queued")))
    path = write(WHOLE.replace("数据/train.jsonl", "file-1").replace("今天-1", "k"), tmp_path)
    options = (
        "--model tiny --epochs 5 --set beta=0.5 --lora-rank 2 --metadata run=1 --max-steps 20 --priority -3 "
        "--expire-artifacts 7d --expire-checkpoints 90 --keep-checkpoints 1 --idempotency-key mine --timeout 2h"
    )
    assert run("jobs", "create", "-f", path, *options.split())[0] == 0
    sent = server.seen[-1].json()
    hyperparameters = sent["method"]["dpo"]["hyperparameters"]
    assert (sent["model"], sent["priority"], sent["keep_checkpoints"], sent["timeout"]) == ("tiny", -3, 1, 7200)
    assert (hyperparameters["n_epochs"], hyperparameters["beta"], hyperparameters["batch_size"]) == (5, 0.5, "auto")
    assert hyperparameters["lora"] == {"rank": 2, "target_modules": ["q_proj", "v_proj"]}
    assert sent["metadata"] == {"团队": "客服", "run": "1"}
    assert sent["budget"] == {"max_steps": 20, "max_gpu_minutes": 5}
    assert sent["expires_after"] == {
        "checkpoints": {"anchor": "created_at", "seconds": 90},
        "artifacts": {"anchor": "created_at", "seconds": 7 * 86400},
    }
    assert server.seen[-1].headers["idempotency-key"] == "mine"


BLOCK = "model: tiny\ntraining_file: file-1\nmethod:\n  type: dpo\n  dpo:\n    hyperparameters: {beta: 0.1}\n"


def test_the_wires_own_method_block(run: Run, server: Server, tmp_path: Path) -> None:
    server.on("POST", JOBS, Answer(a_job("queued")))
    path = write(BLOCK, tmp_path)
    assert run("jobs", "create", "-f", path, "--method", "dpo", "--epochs", "3")[0] == 0
    hyperparameters = {"beta": 0.1, "n_epochs": 3}
    assert server.seen[-1].json()["method"] == {"type": "dpo", "dpo": {"hyperparameters": hyperparameters}}
    status, _, err = run("jobs", "create", "-f", path, "--method", "supervised")
    assert (status, err) == (2, "Error: job.yaml describes the method dpo, which --method cannot change.\n")
    status, _, err = run("jobs", "create", "-f", write(BLOCK + "hyperparameters: {n_epochs: 1}\n", tmp_path))
    assert (status, "keep them in one place" in err) == (2, True)


def test_a_file_from_a_pipe(run: Run, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.on("POST", JOBS, Answer(a_job("queued")))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"model": "tiny", "training_file": "file-1"}')))
    assert run("jobs", "create", "-f", "-")[0] == 0
    assert server.seen[-1].json() == {"model": "tiny", "training_file": "file-1"}


def test_a_preview_of_a_file(run: Run, server: Server, tmp_path: Path) -> None:
    server.on(
        "POST", f"{JOBS}/preview", refusal(400, "beta must be positive.", param="method.dpo.hyperparameters.beta")
    )
    assert run("jobs", "preview", "-f", write(BLOCK, tmp_path)) == (
        5,
        "",
        "Error: beta must be positive. (job.yaml, line 6) (request req_7)\n",
    )
    flat = "model: tiny\ntraining_file: file-1\nmethod: dpo\n\nhyperparameters:\n  beta: -1\n"
    assert "(job.yaml, line 6)" in run("jobs", "preview", "-f", write(flat, tmp_path))[2]
    assert "(job.yaml" not in run("jobs", "preview", "-f", write(flat, tmp_path), "--method", "dpo")[2]


GOOD = "model: tiny\ntraining_file: file-1\n"


def doubled(first: str, line: str) -> str:
    """Return a file of a few lines, each of which stands for nine times the one above."""
    rest = (line.format(name=name, below=below) for below, name in zip("abcdefgh", "bcdefghi", strict=True))
    return f"a: &a {first}\n" + "".join(rest)


LAUGHS = doubled("[x, x, x]", "{name}: &{name} [" + "*{below}, " * 9 + "]\n")
MERGES = doubled("{x: 1, y: 2}", "{name}: &{name} {{<<: [" + "*{below}, " * 9 + "]}}\n")
STAIRS = f"a: &a {'[' * 20}x{']' * 20}\nb: {'[' * 15}*a{']' * 15}\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + "modle: x\n", ["line 3: modle is not known here; model is."]),
        (GOOD + "modle:\n", ["line 3: modle is not known here; model is."]),
        (GOOD + "suffix:\nseed: '3'\n", ["line 4: seed should be a valid integer."]),
        (GOOD + "seed: '3'\n", ["line 3: seed should be a valid integer."]),
        (GOOD + "seed: true\n", ["line 3: seed should be a valid integer."]),
        (GOOD + "suffix: 2\n", ["line 3: suffix should be a valid string."]),
        (GOOD + "priority: urgent\n", ["line 3: priority should be a valid integer; or should be 'low', 'normal' or"]),
        (GOOD + "budget:\n  max_step: 1\n", ["line 4: budget.max_step is not known here; max_steps is."]),
        (GOOD + "budget: 7\n", ["line 3: budget should be a valid dictionary."]),
        (GOOD + "resources: {gpus: 4}\n", ["line 3: resources.gpus should be 0 or 1."]),
        (GOOD + "hyperparameters:\n  beta: 1\n  n_epochs: two\n", ["line 5: hyperparameters.n_epochs should be"]),
        (GOOD + "hyperparameters:\n  lora:\n    rnk: 8\n", ["line 5: hyperparameters.lora.rnk is not known here."]),
        (GOOD + "metadata:\n  次: 7\n", ["line 4: metadata.次 should be a valid string."]),
        (GOOD + "integrations:\n- type: wandb\n  wandb: {}\n", ["line 5: integrations.0.wandb lacks project."]),
        (GOOD + "integrations: [{type: other, wandb: {project: p}}]\n", ["line 3: integrations.0.type should be 'wan"]),
        (GOOD + "expires_after: {artifacts: 7d}\n", ["line 3: expires_after.artifacts should be a valid dictionary."]),
        (GOOD + "model: other\n", ["line 3: model stands here a second time."]),
        (GOOD + "seed: x\nkeep_checkpoints: x\n", ["line 3: seed should", "line 4: keep_checkpoints should"]),
        ("model: [\n", ["line 2: this is not YAML: "]),
        ("a: b: c\n", ["line 1: this is not YAML: mapping values are not allowed here."]),
        ("\tmodel: x\n", ["line 1: this is not YAML: "]),
        ("- model\n", ["must hold names with values"]),
        ("", ["must hold names with values"]),
        (GOOD + "---\nmodel: x\n", ["line 3: this is not YAML: "]),
        (
            GOOD + "hyperparameters: !!python/object/apply:os.system [ls]\n",
            ["line 3: JSON has no form for !!python/object/apply:os.system."],
        ),
        (GOOD + "hyperparameters: !mine [ls]\n", ["line 3: could not determine"]),
        (GOOD + "hyperparameters: {x: .nan}\n", ["no form for"]),
        (GOOD + "hyperparameters: {x: !!binary aGk=}\n", ["no form for"]),
        ("x: " + "[" * 3000, ["nested too deeply"]),
        (GOOD + "metadata: &a\n  我: *a\n", ["line 4: *a stands for something that it is a part of."]),
        (GOOD + "metadata: &a {<<: *a}\n", ["line 3: *a stands for something that it is a part of."]),
        (GOOD + "metadata: *a\n", ["line 3: this is not YAML: found undefined alias 'a'."]),
        (LAUGHS, ["line 5: with what its aliases stand for, the file has more than 10000 values."]),
        (MERGES, ["line 5: with what its aliases stand for, the file has more than 10000 values."]),
        (STAIRS, ["line 2: it is nested too deeply: 32 levels are allowed."]),
        ("x: [" + "1, " * 20_000 + "]", ["line 1: ", "more than 10000 values"]),
        ("x: " + "{a: " * 3000, ["nested too deeply"]),
        (GOOD + "seed: " + "9" * 5000 + "\n", ["line 3: a number has more than 100 characters"]),
        (GOOD + "seed: 1" + ":1" * 400_000 + "\n", ["line 3: a number has more than 100 characters"]),
        (GOOD + "seed: 0x" + "f" * 400_000 + "\n", ["line 3: a number has more than 100 characters"]),
        (GOOD + "metadata:\n  1: x\n", ["line 4: the key 1 is not text: write it in quotes."]),
        (GOOD + "metadata:\n  2024-05-01: x\n  on: x\n", ["line 5: the key on is not text: write it in quotes."]),
        (GOOD + "metadata: {[a, b]: x}\n", ["line 3: a key is not text"]),
        (GOOD + "metadata: {? {a: b} : x}\n", ["line 3: a key is not text"]),
        (GOOD + "? [model]\n: x\n", ["line 3: a key is not text"]),
        (GOOD + "suffix: !!timestamp 2024-05-01\n", ["line 3: JSON has no form for !!timestamp."]),
        (GOOD + "metadata: !!set {a, b}\n", ["line 3: JSON has no form for !!set."]),
        (GOOD + "hyperparameters:\n  x: -.INF\n", ["line 4: JSON has no form for -.INF."]),
        (GOOD + "hyperparameters:\n  x: 1e999\n", ["no form for"]),
        (GOOD + "hyperparameters: {lora: {rank: 1, rank: 2}}\n", ["line 3: rank stands here a second time."]),
        ("\x00", ["is not YAML"]),
        ("training_file: file-1\n", ["Missing option '--model'"]),
        ("model: tiny\ntraining_file: none.jsonl\n", ["none.jsonl' is neither a file here nor a file's id"]),
        ("model: tiny\ntraining_file: .\n", ["is neither a file here nor a file's id"]),
        ("# " + "x" * 2**20, ["is too large to describe a job"]),
    ],
)
def test_a_fault_names_its_line_and_nothing_is_sent(
    run: Run, server: Server, tmp_path: Path, text: str, said: list[str]
) -> None:
    status, out, err = run("jobs", "create", "-f", write(text, tmp_path))
    assert (status, out) == (2, "")
    assert "Error: " in err
    assert "Traceback" not in err
    for sentence in said:
        assert sentence in err
    assert server.seen == []


def test_aliases_are_read_as_what_they_stand_for(run: Run, server: Server, tmp_path: Path) -> None:
    server.on("POST", JOBS, Answer(a_job("queued")))
    text = GOOD + "metadata: &team {组: 客服}\nhyperparameters:\n  <<: {n_epochs: 2}\n  x: [*team, *team]\n  beta: 1\n"
    assert run("jobs", "create", "-f", write(text, tmp_path))[0] == 0
    assert server.seen[-1].json()["method"]["supervised"]["hyperparameters"] == {
        "n_epochs": 2,
        "x": [{"组": "客服"}, {"组": "客服"}],
        "beta": 1,
    }


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("x=" + "[" * 50_000, "is nested too deeply: 32 levels are allowed"),
        ("x=" + "[" * 40 + "]" * 40, "is nested too deeply: 32 levels are allowed"),
        (".".join("a" * 40) + "=1", "is nested too deeply: 32 levels are allowed"),
        ('x={"名": 1, "名": 2}', "has the key 名 twice in one object"),
    ],
)
def test_a_setting_that_is_not_plain_json(run: Run, server: Server, setting: str, said: str) -> None:
    status, out, err = run("jobs", "create", "--model", "t", "--training-file", "file-1", "--set", setting)
    assert (status, out, server.seen) == (2, "", [])
    assert said in err
    assert len(err) < 1000


def test_a_setting_that_is_not_json_is_text(run: Run, server: Server) -> None:
    server.on("POST", JOBS, Answer(a_job("queued")))
    options = ["--set", "x=NaN", "--set", "y=" + "9" * 5000, "--set", "z=你好"]
    assert run("jobs", "create", "--model", "t", "--training-file", "file-1", *options)[0] == 0
    sent = server.seen[-1].json()["method"]["supervised"]["hyperparameters"]
    assert sent == {"x": "NaN", "y": "9" * 5000, "z": "你好"}


def test_bytes_that_are_not_text(run: Run, server: Server, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_bytes(b"model: \xff\xfe")
    status, _, err = run("jobs", "create", "-f", str(tmp_path / "job.yaml"))
    assert (status, "job.yaml is not YAML: " in err) == (2, True)


@pytest.mark.parametrize("value", ["7y", "-1", "d", "", "1.5d"])
def test_an_age_that_is_none(run: Run, server: Server, value: str) -> None:
    order: list[Any] = ["jobs", "create", "--model", "t", "--training-file", "file-1"]
    status, _, err = run(*order, f"--expire-artifacts={value}")
    assert (status, "is not a valid duration" in err) == (2, True)


def test_the_flags_of_retention_and_integrations(run: Run, server: Server) -> None:
    server.on("POST", JOBS, Answer(a_job("queued")))
    options = "--keep-checkpoints 2 --expire-checkpoints 12h --wandb-project 项目 --result best --quantization 4bit"
    options += " --early-stopping-patience 3"
    run("jobs", "create", "--model", "t", "--training-file", "file-1", *options.split())
    sent = server.seen[-1].json()
    assert sent["keep_checkpoints"] == 2
    assert sent["expires_after"] == {"checkpoints": {"anchor": "created_at", "seconds": 43200}}
    assert sent["integrations"] == [{"type": "wandb", "wandb": {"project": "项目"}}]
    assert sent["method"]["supervised"]["hyperparameters"] == {
        "result": "best",
        "quantization": "4bit",
        "early_stopping_patience": 3,
    }
