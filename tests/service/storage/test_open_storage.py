from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from service.storage import InvalidStorageUrl, open_storage

BAD_URLS = {
    "": "neither file:// nor s3://",
    "/var/blobs": "neither file:// nor s3://",
    "http://bucket": "neither file:// nor s3://",
    "file://": "no absolute folder",
    "file:///": "no absolute folder",
    "file://host/blobs": "no absolute folder",
    "file:///blobs?x=1": "no absolute folder",
    "file:///a%00b": "NUL",
    "s3://": "names no bucket",
    "s3:///prefix": "names no bucket",
    "s3://bucket:80/x": "names no bucket",
    "s3://bucket/a//b": "prefix",
    "s3://bucket/../b": "prefix",
    "s3://bucket?endpoint_url=nowhere": "endpoint_url",
    "s3://bucket?secret_key=hunter2": "unknown option 'secret_key'",
    "s3://key:hunter2@bucket": "holds credentials",
    "s3://bucket?endpoint_url=http://key:hunter2@host": "holds credentials",
    "s3://[bucket": "not a URL",
}


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_bad_url_is_one_sentence_without_its_secrets(url: str) -> None:
    with pytest.raises(InvalidStorageUrl, match=BAD_URLS[url]) as caught:
        open_storage(url)
    assert "hunter2" not in str(caught.value)


def test_one_key_without_the_other_is_refused() -> None:
    with pytest.raises(InvalidStorageUrl, match="come together"):
        open_storage("s3://bucket", access_key="a")


def test_a_path_with_spaces_and_chinese_is_decoded(tmp_path: Path) -> None:
    open_storage((tmp_path / "数 据").as_uri()).put("a", [b"x"])
    assert (tmp_path / "数 据" / "a").read_bytes() == b"x"


def test_a_local_set_up_never_loads_boto3(tmp_path: Path) -> None:
    code = (
        "import sys; from service.storage import open_storage; open_storage(sys.argv[1]).check();"
        "assert not {'boto3', 'botocore'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path.as_uri()], check=True)
