"""The guard on a real socket: what is asked for by name is connected to by the address that was checked."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from service.kit.networks import AllowedNetworks
from service.webhooks.guard import AddressRefused, Unresolvable, WebhookGuard, make_guarded_client
from service.webhooks.post import DeliveryOutcome, post_event
from service.webhooks.target import DeliveryTarget
from tests.service.webhooks.conftest import SECRET, Receiver

LOOPBACK = AllowedNetworks.parse("127.0.0.1/32")


class Names:
    """A name service that gives its answers one after the other, the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int, _project: str) -> Sequence[str]:
        self.asked.append((host, port))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not answer:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return answer


def send(guard: WebhookGuard, url: str, times: int = 1, **options: object) -> list[DeliveryOutcome]:
    async def run() -> list[DeliveryOutcome]:
        async with make_guarded_client(guard, 10, **options) as client:
            return [
                await post_event(client, DeliveryTarget(url, (SECRET,), "whe_a"), "evt_a", b"{}", timeout=10)
                for _ in range(times)
            ]

    return asyncio.run(run())


def named(receiver: Receiver, host: str) -> str:
    return f"http://{host}:{urlsplit(receiver.url).port}/hook?a=1"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.1.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "::",
        "fe80::1%1",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",
        "64:ff9b::7f00:1",
    ],
)
def test_a_name_that_leads_inside_is_refused(receiver: Receiver, address: str) -> None:
    (outcome,) = send(WebhookGuard(AllowedNetworks(), Names([address])), named(receiver, "hooks.example"))
    assert outcome.status_code is None
    assert outcome.error is not None
    assert "hooks.example leads to an address that is not public" in outcome.error
    assert "BURNISH_WEBHOOK_ALLOWED_NETWORKS" in outcome.error
    assert receiver.received == []


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("168.63.129.16", "is not public, whatever the operator allows"),
        ("169.254.169.254", "is not public, whatever the operator allows"),
        ("::ffff:168.63.129.16", "is not public, whatever the operator allows"),
        ("fd00:ec2::254", "is not public, whatever the operator allows"),
        ("203.0.113.7", "closed to webhooks by BURNISH_WEBHOOK_DENIED_NETWORKS"),
    ],
)
def test_no_allowance_opens_what_is_denied(receiver: Receiver, address: str, reason: str) -> None:
    allowed = AllowedNetworks.parse("0.0.0.0/0, ::/0, hooks.example", denied_text="203.0.113.0/24")
    (outcome,) = send(WebhookGuard(allowed, Names([address])), named(receiver, "hooks.example"))
    assert outcome.error is not None
    assert reason in outcome.error
    assert receiver.received == []


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"],
)
def test_an_address_in_any_spelling_is_refused(receiver: Receiver, host: str) -> None:
    (outcome,) = send(WebhookGuard(AllowedNetworks()), named(receiver, host))
    assert outcome.error is not None
    assert "not public" in outcome.error
    assert receiver.received == []


def test_one_bad_address_among_good_ones_is_enough(receiver: Receiver) -> None:
    names = Names(["8.8.8.8", "127.0.0.1"])
    (outcome,) = send(WebhookGuard(AllowedNetworks(), names), named(receiver, "hooks.example"))
    assert outcome.error is not None
    assert "not public" in outcome.error


def test_the_name_service_is_queried_once(receiver: Receiver) -> None:
    """Rebinding: had the connection asked for itself, it would have got the second, bad address."""
    names = Names(["127.0.0.1"], ["10.255.255.1"])
    url = named(receiver, "hooks.example")
    first, second = send(WebhookGuard(LOOPBACK, names), url, times=2)
    assert (first.status_code, first.error) == (204, None)
    assert second.error is not None
    assert "not public" in second.error
    assert [host for host, _ in names.asked] == ["hooks.example"] * 2
    (request,) = receiver.received
    assert request.headers["host"] == urlsplit(url).netloc
    assert request.path == "/hook?a=1"
    assert request.body == b"{}"


def test_the_system_resolver_is_not_used_after_the_guard(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = socket.getaddrinfo

    def spy(host: str, *args: object, **options: object) -> object:
        asked.append(host)
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", spy)
    (outcome,) = send(WebhookGuard(LOOPBACK, Names(["127.0.0.1"])), named(receiver, "hooks.example"))
    assert outcome.error is None
    assert set(asked) <= {"127.0.0.1"}


def test_the_next_address_is_tried_where_one_takes_no_connections(receiver: Receiver) -> None:
    guard = WebhookGuard(AllowedNetworks.parse("127.0.0.0/8"), Names(["127.0.0.99", "127.0.0.1"]))
    (outcome,) = send(guard, named(receiver, "hooks.example"))
    assert outcome.error is None


def test_a_name_that_the_operator_trusts_may_lead_anywhere(receiver: Receiver) -> None:
    guard = WebhookGuard(AllowedNetworks.parse("hooks.example"), Names(["127.0.0.1"]))
    (outcome,) = send(guard, named(receiver, "Hooks.Example"))
    assert outcome.error is None
    (refused,) = send(guard, named(receiver, "other.example"))
    assert refused.error is not None


def test_a_name_without_an_address_is_a_sentence(receiver: Receiver) -> None:
    (outcome,) = send(WebhookGuard(LOOPBACK, Names([])), named(receiver, "nowhere.example"))
    assert outcome.error is not None
    assert "nowhere.example has no address" in outcome.error


@pytest.mark.parametrize(
    ("answer", "kind"), [(["10.0.0.1"], AddressRefused), ([], Unresolvable), (["fe80::1%eth0"], AddressRefused)]
)
def test_the_guard_alone(answer: list[str], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        asyncio.run(WebhookGuard(AllowedNetworks(), Names(answer)).addresses_of(httpx.URL("https://hooks.example/")))


def test_the_environments_proxy_is_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    (outcome,) = send(WebhookGuard(LOOPBACK, Names(["127.0.0.1"])), named(receiver, "hooks.example"))
    assert outcome.error is None


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for hooks.example alone, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hooks.example")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hooks.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = tmp_path / "cert.pem", tmp_path / "key.pem"
    paths[0].write_bytes(made.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


def test_tls_names_and_checks_the_urls_host(certificate: tuple[Path, Path]) -> None:
    asked: list[str | None] = []
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(*certificate)
    server_side.sni_callback = lambda _socket, name, _context: asked.append(name)
    trust = ssl.create_default_context(cafile=str(certificate[0]))
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for _ in range(2):
                connection, _ = listening.accept()
                try:
                    with server_side.wrap_socket(connection, server_side=True) as secure:
                        received = b""
                        while b"\r\n\r\n{" not in received and (more := secure.recv(65536)):
                            received += more  # closed with a byte unread, the connection would be reset
                        secure.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
                except OSError:
                    pass  # the client did not like the certificate

        thread = threading.Thread(target=serve)
        thread.start()
        port = listening.getsockname()[1]
        guard = WebhookGuard(LOOPBACK, Names(["127.0.0.1"]))
        (good,) = send(guard, f"https://hooks.example:{port}/", verify=trust)
        (bad,) = send(guard, f"https://other.example:{port}/", verify=trust)
        thread.join(30)
    assert (good.status_code, good.error) == (204, None)
    assert bad.error is not None
    assert "CERTIFICATE_VERIFY_FAILED" in bad.error
    assert asked == ["hooks.example", "other.example"]
