"""The rendered documentation, in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

from tests.fixtures.service import RunningApi


def test_the_page_loads_nothing_from_other_sites(api: RunningApi) -> None:
    root = api.url.removesuffix("/v1")
    page = httpx.get(f"{root}/docs")
    assert page.status_code == 200
    addresses = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page.text)
    assert [address for address in addresses if address.startswith("/docs/static/")]
    for address in addresses:
        assert not re.match(r"(https?:)?//", address), address
        if not address.startswith("data:"):
            assert httpx.get(urljoin(root, address)).status_code == 200
    assert "script-src 'self'" in page.headers["content-security-policy"]


@pytest.mark.integration
def test_a_browser_shows_every_group(api: RunningApi, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium here: the page was not rendered")
    shown = subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            f"--user-data-dir={tmp_path}",
            "--virtual-time-budget=10000",
            "--dump-dom",
            api.url.removesuffix("/v1") + "/docs",
        ],
        capture_output=True,
        timeout=120,
        check=True,
    ).stdout.decode()
    for group in ("Files", "Uploads", "Fine-tuning", "Models", "Administration", "Health"):
        assert f'data-tag="{group}"' in shown
