from __future__ import annotations

import base64
from pathlib import Path

import pytest

from service.kit.settings import Settings, SettingsError
from service.webhooks.target import DeliveryTarget, configured_target

GOOD = "https://example.com/hooks?team=数据"


def secret_of(length: int) -> str:
    return "whsec_" + base64.b64encode(bytes(length)).decode()


def configured(tmp_path: Path, url: str | None, secret: str | None) -> DeliveryTarget | None:
    return configured_target(Settings.model_validate({"data": tmp_path, "webhook_url": url, "webhook_secret": secret}))


@pytest.mark.parametrize("length", [24, 32, 64])
@pytest.mark.parametrize("url", [GOOD, "http://127.0.0.1:9000/", "http://[::1]:9000"])
def test_good_endpoints(tmp_path: Path, url: str, length: int) -> None:
    assert configured(tmp_path, url, secret_of(length)) == DeliveryTarget(url, (secret_of(length),))


def test_none_is_configured(tmp_path: Path) -> None:
    assert configured(tmp_path, None, None) is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com/hook",
        "ftp://example.com",
        "https://",
        "http://[::1",
        "http://h:99999/",
        "http://h/ x",
        "http://h/\n",
    ],
)
def test_bad_addresses(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match="BURNISH_WEBHOOK_URL is not the address"):
        configured(tmp_path, url, secret_of(32))


def test_credentials_in_the_address(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="user or a password") as caught:
        configured(tmp_path, "https://me:hunter2@example.com", secret_of(32))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        secret_of(23),
        secret_of(65),
        secret_of(32).removeprefix("whsec_"),
        secret_of(32)[:-1],
        "whsec_密钥" * 9,
    ],
)
def test_bad_secrets(tmp_path: Path, secret: str) -> None:
    with pytest.raises(SettingsError, match="BURNISH_WEBHOOK_SECRET must be") as caught:
        configured(tmp_path, GOOD, secret)
    assert not secret or secret == "whsec_" or secret not in str(caught.value)


def test_one_without_the_other(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no secret"):
        configured(tmp_path, GOOD, None)
    with pytest.raises(SettingsError, match="set both or neither"):
        configured(tmp_path, None, secret_of(32))


SECRET_URL = "https://me:hunter2@hooks.example:8443/钩子/a?token=令牌&b=1#part"


def test_what_is_kept_of_the_operators_receiver_has_no_secret() -> None:
    target = DeliveryTarget(SECRET_URL, (secret_of(32),))
    assert target.shown_url == "https://hooks.example:8443/钩子/a"
    assert "hunter2" not in repr(target)
    assert "令牌" not in repr(target)
    told = f"answered 302, a redirect to {SECRET_URL}: redirects are not followed"
    assert (
        target.censor_text(told)
        == "answered 302, a redirect to https://hooks.example:8443/钩子/a redirects are not followed"
    )
    assert target.censor_text("a redirect to /钩子?token=令牌 and on") == "a redirect to /钩子 and on"
    assert target.censor_text("no answer within 15 s") == "no answer within 15 s"


def test_a_project_sees_the_url_of_its_own_endpoint_whole() -> None:
    target = DeliveryTarget(SECRET_URL, (secret_of(32),), "whe_a", "proj_a")
    assert target.shown_url == SECRET_URL
    assert target.censor_text(SECRET_URL) == SECRET_URL
