"""`python -m trainer.programs.fetch_base REPO REVISION ROOT OUT_JSON weights|files`: fetch a model of the hub, pinned.

REVISION is a branch, a tag, a commit, or empty for `main`. The files of the commit that it means now go into a folder
under ROOT, without its weights for `files`. OUT_JSON gets a `HubFetch`. Exit 0 if it was written, 1 fault, 2 bad input.
"""

from __future__ import annotations

import sys
from pathlib import Path

from trainer.contract.base_model import HubFetch, hub_folder_name
from trainer.contract.result import ExitCode
from trainer.kit.errors import TrainerError
from trainer.programs.shell import run_program


def main(arguments: list[str]) -> int:
    """Fetch one model."""
    if len(arguments) != 5 or arguments[4] not in ("weights", "files"):
        print("usage: python -m trainer.programs.fetch_base REPO REVISION ROOT OUT_JSON weights|files", file=sys.stderr)
        return ExitCode.BAD_INPUT
    repo, revision, root, output, extent = arguments

    def work() -> ExitCode:
        from trainer.engine.models.hub import download_hub_files, pin_hub_revision

        try:
            commit = pin_hub_revision(repo, revision or None)
            folder = Path(root) / hub_folder_name(repo, commit, weights=extent == "weights")
            download_hub_files(repo, commit, folder, weights=extent == "weights")
            fetch = HubFetch(folder=folder, revision=commit)
        except TrainerError as error:
            fetch = HubFetch(problem=error.message)
        Path(output).write_text(fetch.model_dump_json(), encoding="utf-8")
        return ExitCode.DONE

    return run_program(work, HF_HUB_OFFLINE="0")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
