from __future__ import annotations

import json
import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic import AliasChoices

from service.__main__ import cli
from service.api.app import create_app
from service.engine.app import create_engine_app
from service.engine.local import LocalEngine
from service.kit.settings import Settings
from service.storage import open_storage
from tests.fixtures.compose import DEPLOY, OWN_SERVICES, ROOT, compose_commands, compose_file

SERVICES: dict[str, dict[str, Any]] = compose_file()["services"]
SERVERS = ("database", "queue", "storage")
VARIABLE = re.compile(r"\$\{(\w+)(:[?-][^}]*)?\}")
SECRETS = {"BURNISH_SECRET_KEY", "POSTGRES_PASSWORD", "VALKEY_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"}
IMAGES_OWN_VARIABLES = {
    "database": {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD", "POSTGRES_INITDB_ARGS"},
    "queue": {"REDISCLI_AUTH"},
    "storage": {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"},
}


def settings_variables() -> set[str]:
    names: set[str] = set()
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        names |= (
            {str(choice) for choice in alias.choices}
            if isinstance(alias, AliasChoices)
            else {f"BURNISH_{name.upper()}"}
        )
    return names


def seconds(duration: str) -> int:
    match = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", duration)
    assert match, duration
    return 60 * int(match[1] or 0) + int(match[2] or 0)


def test_all_services_are_known_to_these_tests() -> None:
    assert set(SERVICES) == {*OWN_SERVICES, *SERVERS, "bucket"}


@pytest.mark.parametrize(("service", "command"), compose_commands().items())
def test_each_command_is_one_that_the_command_line_takes(service: str, command: list[str]) -> None:
    program, name, *arguments = command
    assert (program, name) == ("burnish-server", service)
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    context = found.make_context(name, list(arguments))  # parses, does not run
    if service == "api":
        assert context.params == {"host": "0.0.0.0", "port": 8000, "share_port": False, "name": None}


def test_the_commands_of_the_guide_exist() -> None:
    guide = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    commands = {" ".join(words.split()) for words in re.findall(r"burnish-server ((?:[a-z]+(?![a-z./-]) ?)+)", guide)}
    assert {"keys create", *OWN_SERVICES} <= commands
    for command in commands:
        found: click.Command | None = cli
        for word in command.split():
            assert isinstance(found, click.Group), f"burnish-server {command}"
            found = found.get_command(click.Context(found), word)
        assert found is not None, f"burnish-server {command}"


@pytest.mark.parametrize("service", OWN_SERVICES)
def test_every_variable_is_a_setting(service: str) -> None:
    assert set(SERVICES[service]["environment"]) <= settings_variables() | {"TMPDIR", "OTEL_EXPORTER_OTLP_ENDPOINT"}


@pytest.mark.parametrize("service", [*SERVERS, "bucket"])
def test_the_servers_get_their_images_own_variables(service: str) -> None:
    assert set(SERVICES[service].get("environment", {})) == IMAGES_OWN_VARIABLES.get(service, set())


@pytest.mark.slow
@pytest.mark.parametrize("service", OWN_SERVICES)
def test_the_environment_makes_settings_that_work(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in settings_variables():
        monkeypatch.delenv(name, raising=False)
    for name, value in SERVICES[service]["environment"].items():
        if value is not None:
            monkeypatch.setenv(name, VARIABLE.sub("s" * 64, value))
    settings = Settings.model_validate({})
    assert settings.database == f"postgresql://burnish:{'s' * 64}@database:5432/burnish"
    if service == "migrate":
        assert settings.secret_key is None
        return
    assert settings.redis == f"redis://:{'s' * 64}@queue:6379/0"
    assert settings.hmac_key() == b"s" * 64
    assert settings.storage_access_key
    assert settings.storage_secret_key
    open_storage(
        settings.storage,
        access_key=settings.storage_access_key.get_secret_value(),
        secret_key=settings.storage_secret_key.get_secret_value(),
    )


def test_the_urls_point_at_services_of_the_file() -> None:
    environment = SERVICES["api"]["environment"]
    text = " ".join(environment[f"BURNISH_{name}_URL"] for name in ("DATABASE", "REDIS", "STORAGE"))
    assert set(re.findall(r"(?:@|http://)([a-z]+):", text)) == set(SERVERS)
    assert "-s3.port=8333" in SERVICES["storage"]["command"]
    bucket = environment["BURNISH_STORAGE_URL"].split("/")[2]
    assert f"s3.bucket.create -name {bucket}'" in SERVICES["bucket"]["command"][0]


def test_secrets_are_required_and_have_no_default() -> None:
    used = VARIABLE.findall((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    required = {name for name, rest in used if rest.startswith(":?")}
    assert required == SECRETS
    assert {name for name, rest in used if not rest.startswith(":?")} == {"API_PORT", "TORCH_INDEX_URL"}
    assert all(len(rest) > 20 for name, rest in used if name in SECRETS), "the sentence tells what to do"


def test_the_example_of_secrets_is_complete_and_holds_none() -> None:
    lines = (DEPLOY / ".env.example").read_text(encoding="utf-8").splitlines()
    assert {line for line in lines if line and not line.startswith("#")} == {f"{name}=" for name in SECRETS}
    optional = {match[1] for line in lines if (match := re.match(r"#([A-Z_0-9]+)=", line))}
    passed_on = {
        name for service in OWN_SERVICES for name, value in SERVICES[service]["environment"].items() if value is None
    }
    assert optional - {"API_PORT"} == passed_on
    assert ".env" in (DEPLOY / ".gitignore").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_is_pinned_and_confined(service: str) -> None:
    said = SERVICES[service]
    assert re.fullmatch(r"[a-z/-]+:\d+\.\d+[a-z0-9.-]*", said["image"])
    user, group = said["user"].split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert said["read_only"] is True
    assert said["cap_drop"] == ["ALL"]
    assert said["security_opt"] == ["no-new-privileges:true"]
    assert any(place.split(":")[0] == "/tmp" for place in said["tmpfs"])
    assert not {"privileged", "pid", "cap_add", "env_file"} & set(said)
    assert all(not volume.startswith((".", "/")) for volume in said.get("volumes", []))


def test_only_the_api_has_a_port_and_only_on_loopback() -> None:
    assert [name for name, said in SERVICES.items() if "ports" in said] == ["api"]
    assert SERVICES["api"]["ports"] == ["127.0.0.1:${API_PORT:-8000}:8000"]
    assert compose_file()["networks"]["inside"] == {"internal": True}
    outside = {name for name, said in SERVICES.items() if "outside" in said.get("networks", [])}
    assert outside == {"api", "controller"}


@pytest.mark.slow
def test_health_checks_ask_paths_that_the_api_has() -> None:
    assert {name for name, said in SERVICES.items() if "healthcheck" in said} == {"api", "engine", *SERVERS}
    script = SERVICES["api"]["healthcheck"]["test"][-1]
    compile(script, "healthcheck", "exec")
    paths = set(create_app(None).openapi()["paths"])
    assert "http://127.0.0.1:8000/readyz" in script
    assert {"/healthz", "/readyz"} <= paths
    of_engine = SERVICES["engine"]["healthcheck"]["test"][-1]
    compile(of_engine, "healthcheck", "exec")
    address = SERVICES["api"]["environment"]["BURNISH_ENGINE_URL"]
    assert f"{address}/healthz".replace("engine", "127.0.0.1") in of_engine
    engine = create_engine_app(b"", Settings(), LocalEngine)  # pyright: ignore[reportArgumentType] - opened when it is served
    assert "/healthz" in {getattr(route, "path", None) for route in engine.routes}


def test_the_servers_and_the_schema_come_first() -> None:
    finished, healthy = "service_completed_successfully", "service_healthy"
    for service in ("api", "controller", "worker", "engine"):
        conditions = {name: said["condition"] for name, said in SERVICES[service]["depends_on"].items()}
        assert conditions == {"migrate": finished, "bucket": finished, **dict.fromkeys(SERVERS, healthy)}
    assert SERVICES["migrate"]["depends_on"] == {"database": {"condition": healthy}}
    assert SERVICES["bucket"]["depends_on"] == {"storage": {"condition": healthy}}
    assert {name for name, said in SERVICES.items() if said["restart"] == "no"} == {"migrate", "bucket"}


def test_the_worker_keeps_its_data_and_has_time_for_a_checkpoint() -> None:
    worker = SERVICES["worker"]
    assert worker["volumes"] == [f"worker:{worker['environment']['BURNISH_DATA']}"]
    assert seconds(worker["stop_grace_period"]) >= float(worker["environment"]["BURNISH_STOP_SECONDS"]) + 30
    declared = {volume.split(":")[0] for said in SERVICES.values() for volume in said.get("volumes", [])}
    assert declared == set(compose_file()["volumes"])


def test_a_gpu_is_opt_in() -> None:
    assert "nvidia" not in json.dumps(SERVICES)
    override = compose_file("compose.gpu.yaml")["services"]
    assert list(override) == ["worker", "engine"]
    assert override["engine"] == override["worker"]
    (device,) = override["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


@pytest.mark.integration
def test_the_s3_server_accepts_every_option_in_use() -> None:
    weed = Path(sysconfig.get_path("scripts")) / "weed"
    command = SERVICES["storage"]["command"]
    assert command[1] == "server"
    answer = subprocess.run([weed, "server", "-h"], capture_output=True, text=True, check=False)
    known = set(re.findall(r"^  (-[\w.]+)", answer.stdout + answer.stderr, re.MULTILINE))
    assert {option.split("=")[0] for option in command[2:]} <= known
