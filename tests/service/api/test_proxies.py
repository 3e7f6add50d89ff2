"""Who called, behind proxies: only a trusted one is believed, and only in well-formed addresses."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import httpx
import pytest

from service.api.proxies import client_address
from service.kit.networks import parse_networks
from service.kit.settings import SettingsError, load_settings
from service.tables.audit import AuditRow
from tests.fixtures.service import RunningApi, make_context, run_api

TRUSTED = parse_networks("127.0.0.0/8, 10.0.0.0/8, fd00::/8")


def scope(peer: str | None, *forwarded: str) -> dict[str, Any]:
    headers = [(b"x-forwarded-for", value.encode("latin-1", "replace")) for value in forwarded]
    return {"client": peer and (peer, 5), "headers": headers}


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("127.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("127.0.0.1", ["203.0.113.7:8080"], "203.0.113.7"),
        ("127.0.0.1", ["[2001:DB8::7]:80"], "2001:db8::7"),
        ("127.0.0.1", ["2001:db8:0:0::7"], "2001:db8::7"),
        ("::ffff:127.0.0.1", ["::ffff:203.0.113.7"], "203.0.113.7"),
        ("127.0.0.1", ["1.1.1.1, 203.0.113.7, 10.1.2.3"], "203.0.113.7"),
        ("127.0.0.1", ["1.1.1.1", "203.0.113.7", "10.1.2.3"], "203.0.113.7"),
        ("fd00::1", ["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
        ("203.0.113.9", ["1.1.1.1"], "203.0.113.9"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", [""], "127.0.0.1"),
        ("127.0.0.1", ["1.1.1.1, 假的"], "127.0.0.1"),
        ("127.0.0.1", ["1.1.1.1, x, 10.0.0.9"], "10.0.0.9"),
        ("127.0.0.1", ["<script>\x1b[31m"], "127.0.0.1"),
        ("127.0.0.1", ["fe80::1%\x1b[31m"], "127.0.0.1"),
        ("127.0.0.1", ["1.1.1.1:x"], "127.0.0.1"),
        ("127.0.0.1", ["[::1"], "127.0.0.1"),
        ("127.0.0.1", ["unknown"], "127.0.0.1"),
        ("127.0.0.1", ["1.1.1"], "127.0.0.1"),
    ],
)
def test_the_first_that_no_trusted_proxy_is(peer: str, forwarded: list[str], expected: str) -> None:
    assert client_address(scope(peer, *forwarded), TRUSTED) == expected


def test_no_proxy_is_trusted_by_default() -> None:
    assert client_address(scope("127.0.0.1", "1.1.1.1"), ()) == "127.0.0.1"
    assert client_address(scope(None, "1.1.1.1"), TRUSTED) is None


def test_text_that_is_not_a_network_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURNISH_TRUSTED_PROXIES", "10.0.0.0/8, 代理.internal")
    with pytest.raises(SettingsError, match=r"BURNISH_TRUSTED_PROXIES: '代理\.internal' is not a network"):
        load_settings()


@pytest.fixture(params=["", "127.0.0.1/32"])
def behind(request: pytest.FixtureRequest, tmp_path: Any) -> Generator[RunningApi]:
    with run_api(make_context(tmp_path, trusted_proxies=request.param)) as running:
        yield running


def test_the_audit_log_has_the_address(behind: RunningApi) -> None:
    expected = "203.0.113.7" if behind.context.settings.trusted_proxies else "127.0.0.1"
    token = behind.key("operators")
    with httpx.Client(base_url=behind.url, headers={"Authorization": f"Bearer {token}"}) as client:
        client.delete(
            "/files/file-x", headers={"X-Forwarded-For": "9.9.9.9, 203.0.113.7", "X-Forwarded-Proto": "https"}
        )
    with behind.context.db.read() as session:
        assert [row.address for row in session.query(AuditRow)] == [expected]
