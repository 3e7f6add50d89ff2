from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.kit import metrics
from service.kit.metrics import DECLARED, serve_metrics
from service.kit.settings import Settings, SettingsError
from tests.fixtures.processes import free_port

ROLES = {"api", "controller", "worker", "engine"}
LABELS = {"version", "role", "operation", "outcome", "route", "method", "status", "kind", "state", "priority", "wait"}
LABELS |= {"of", "topic", "step", "reason"}
"""None of them can take a value that a user chose."""


def families(address: str) -> dict[str, str]:
    answer = httpx.get(f"http://{address}/metrics", trust_env=False)
    assert answer.status_code == 200
    return {family.name: family.type for family in text_string_to_metric_families(answer.text)}


def test_the_names_follow_prometheus() -> None:
    assert len({declared.name for declared in DECLARED}) == len(DECLARED)
    for declared in DECLARED:
        assert re.fullmatch(r"burnish_[a-z_]+", declared.name)
        assert (declared.kind == "counter") == declared.name.endswith("_total"), declared.name
        assert declared.kind != "histogram" or declared.name.endswith("_seconds")
        assert set(declared.labels) <= LABELS
        assert set(declared.roles) <= ROLES


@pytest.mark.parametrize("role", sorted(ROLES))
def test_a_process_shows_its_own_metrics_and_those_of_every_process(role: str, tmp_path: Path) -> None:
    port = free_port()
    serve_metrics(Settings(data=tmp_path, metrics_address=f"127.0.0.1:{port}"), role, role)
    shown = families(f"127.0.0.1:{port}")
    expected = {declared.name.removesuffix("_total") for declared in DECLARED if role in declared.roles}
    assert {name for name in shown if name.startswith("burnish_")} == expected
    assert {"process_cpu_seconds", "process_resident_memory_bytes"} <= set(shown)
    assert not (tmp_path / "metrics").exists()


def test_any_free_port_is_noted_for_prometheus(tmp_path: Path) -> None:
    serve_metrics(Settings(data=tmp_path, metrics_address="127.0.0.1:0"), "worker", "工人/1")
    (path,) = (tmp_path / "metrics").glob("*.json")
    ((target,),) = [group["targets"] for group in json.loads(path.read_text("utf-8"))]
    assert json.loads(path.read_text("utf-8"))[0]["labels"] == {"role": "worker", "process": "工人/1"}
    assert "burnish_training_tokens" in families(target)
    metrics.forget_notes(tmp_path)
    assert not list((tmp_path / "metrics").iterdir())


def test_without_an_address_nothing_listens(tmp_path: Path) -> None:
    for address in (None, "off"):
        assert Settings(data=tmp_path, metrics_address=address).metrics is None
        serve_metrics(Settings(data=tmp_path, metrics_address=address), "api", "api")
    assert not (tmp_path / "metrics").exists()


def test_an_address_in_use_is_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(SettingsError, match="BURNISH_METRICS_ADDRESS: nothing can listen on"):
            serve_metrics(Settings(data=tmp_path, metrics_address=address), "api", "api")


@pytest.mark.parametrize("address", ["9464", "host", "host:port", "host:70000", ":9464", "", "[::1"])
def test_a_bad_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        Settings(metrics_address=address)


def test_ipv6_has_brackets() -> None:
    assert Settings(metrics_address="[::1]:9464").metrics == ("::1", 9464)
