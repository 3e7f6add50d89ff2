"""A program for `test_full_disk`: an API whose data folder is a small disk, which it fills. It prints what happened.

Arguments: the data folder, and the bytes that are kept for deleting.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select

from service.context import Context
from service.controller.garbage import delete_blobs
from service.kit.db import Database
from service.kit.errors import Unavailable
from service.kit.reserve import NAME, DiskReserve
from service.queue.memory import MemoryJobQueue
from service.tables.audit import AuditRow
from tests.fixtures.service import GOOD_JSONL, make_context, run_api, upload


def fill_disk(folder: Path) -> None:
    """Write until not a byte more fits."""
    with (folder / "filler").open("ab", buffering=0) as file, suppress(OSError):
        for size in (1 << 20, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(b"\0" * size)


def main(folder: Path, reserved: int) -> dict[str, Any]:
    told: dict[str, Any] = {}
    context = make_context(folder)
    reserve = DiskReserve(folder, reserved)
    reserve.fill()
    told["kept"] = (folder / NAME).exists()
    with run_api(context, reserve=reserve) as api, api.client() as client:
        files = [upload(client, GOOD_JSONL * 2000, filename=f"{n}.jsonl").json()["id"] for n in range(4)]
        other = upload(client, GOOD_JSONL, filename="数据.jsonl").json()["id"]
        job = client.post("/fine_tuning/jobs", json={"model": "tiny", "training_file": other}).json()["id"]
        fill_disk(folder)
        told["full"] = [upload(client).status_code]
        fill_disk(folder)
        told["read"] = [client.get("/files").status_code, client.get(f"/fine_tuning/jobs/{job}").status_code]
        told["deleted"] = [answer(client.delete(f"/files/{file_id}")) for file_id in files]
        told["cancelled"] = answer(client.post(f"/fine_tuning/jobs/{job}/cancel"))
        told["job deleted"] = answer(client.delete(f"/fine_tuning/jobs/{job}"))
        told["used up"] = reserve.is_used_up()
        body = {"model": "tiny", "training_file": other}
        told["meanwhile"] = [answer(upload(client)), answer(client.post("/fine_tuning/jobs", json=body))]
        told["meanwhile read"] = client.get(f"/files/{other}/content").status_code
        told["audited"] = audited(context)
        told["blobs"] = delete_blobs(context, MemoryJobQueue())
        (folder / "filler").unlink()
        reserve.fill()
        told["kept again"] = (folder / NAME).exists() and not reserve.is_used_up()
        told["after"] = upload(client, GOOD_JSONL * 3).status_code
    told["starts again"] = start_again(folder, reserve)
    return told


def start_again(folder: Path, reserve: DiskReserve) -> list[str]:
    """Open the database of a stopped service on a full disk, as it is and with the reserve given back."""
    fill_disk(folder)
    said: list[str] = []
    for release in (lambda: None, reserve.release_if_full):
        release()
        database = Database(f"sqlite:///{folder / 'burnish.db'}")
        try:
            database.check()
            said.append("ok")
        except Unavailable as error:
            said.append(str(error.code))
        finally:
            database.close()
    return said


def answer(response: httpx.Response) -> str:
    error = {} if response.is_success else response.json()["error"]
    return " ".join(str(part) for part in (response.status_code, error.get("code", "")) if part)


def audited(context: Context) -> list[str]:
    """Return how the deletions of files ended, as the audit log has it."""
    with context.db.read() as session:
        return list(session.scalars(select(AuditRow.outcome).where(AuditRow.type == "file.deleted")))


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
