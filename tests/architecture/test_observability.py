"""What docs/observability.md, the dashboard and the alerts say of metrics is what the code has."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.kit.metrics import DECLARED

ROOT = Path(__file__).parents[2]
SAMPLES = {
    "counter": ("",),
    "gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
}
NAMES = {f"{declared.name}{end}": declared for declared in DECLARED for end in SAMPLES[declared.kind]}


def dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((ROOT / "deploy/grafana/burnish.json").read_text("utf-8"))
    return read


def expressions() -> list[str]:
    panels = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]
    alerts = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text("utf-8"))
    rules = [rule for group in alerts["groups"] for rule in group["rules"]]
    assert all(rule["annotations"]["summary"] and rule["labels"]["severity"] for rule in rules)
    assert len(rules) == len({rule["alert"] for rule in rules})
    return [target["expr"] for panel in panels for target in panel["targets"]] + [rule["expr"] for rule in rules]


def test_the_table_of_metrics_is_the_codes() -> None:
    page = (ROOT / "docs/observability.md").read_text("utf-8")
    rows = re.findall(r"^\| `(burnish_\w+)` \| (\w+) \| ([^|]+) \| ([^|]+) \| [^|]+ \|$", page, re.M)
    told = {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels)), tuple(of.split(", "))) for name, kind, labels, of in rows
    }
    assert told == {declared.name: (declared.kind, declared.labels, declared.roles) for declared in DECLARED}
    assert len(rows) == len(told)


def test_what_dashboard_and_alerts_ask_for_exists() -> None:
    for expression in expressions():
        named = re.findall(r"burnish_\w+", expression)
        assert named, expression
        assert set(named) <= set(NAMES), expression
        for labels in re.findall(r"(burnish_\w+)\{([^}]*)\}", expression):
            asked = set(re.findall(r"(\w+)\s*[=!]~?", labels[1]))
            assert asked <= set(NAMES[labels[0]].labels), expression


def test_the_dashboard_shows_every_metric_once_at_least() -> None:
    panels = dashboard()["panels"]
    text = json.dumps([panel.get("targets") for panel in panels])
    assert [declared.name for declared in DECLARED if declared.name not in text] == []
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= 24 for place in places)


def test_prometheus_scrapes_where_the_containers_listen() -> None:
    (job,) = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text("utf-8"))["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    services = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text("utf-8"))["services"]
    for name in found["names"]:
        assert services[name]["environment"]["BURNISH_METRICS_ADDRESS"] == f"0.0.0.0:{found['port']}"
        assert "inside" in services[name]["networks"]


@pytest.mark.slow
def test_the_trainer_loads_neither_metrics_nor_traces() -> None:
    code = (
        "import sys, trainer.run, trainer.contract.events\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'prometheus_client', 'opentelemetry'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
