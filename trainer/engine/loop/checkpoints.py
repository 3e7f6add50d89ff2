"""Checkpoints: complete folders with a manifest of their own, of which the last three are kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from trainer.contract.result import (
    CHECKPOINTS_FOLDER,
    MANIFEST_NAME,
    ExitCode,
    Manifest,
    flush_to_disk,
    hash_files,
    read_manifest,
    write_manifest,
)
from trainer.kit.errors import TrainerError
from trainer.kit.progress import TrainingProgress

KEPT = 3
# A pickle that resuming never reads: it has no place in a folder that travels.
UNWANTED = ("training_args.bin",)


def clean_adapter_config(folder: Path, base_id: str) -> None:
    """Name the base by its id, never by this machine's path, and drop the hints at this program's classes.

    A folder with full weights has no such file and stays as it is.
    """
    path = folder / "adapter_config.json"
    if not path.is_file():
        return
    config = json.loads(path.read_text(encoding="utf-8"))
    config.update(base_model_name_or_path=base_id, auto_mapping=None, revision=None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False), encoding="utf-8")


def finish_checkpoint(incoming: Path, workdir: Path, *, step: int, progress: TrainingProgress, base_id: str) -> str:
    """Complete the folder that the training loop wrote and move it to `checkpoints/step-N`.

    Returns its path relative to `workdir`; from then on its manifest is complete. Older checkpoints are removed.
    """
    for name in UNWANTED:
        (incoming / name).unlink(missing_ok=True)
    clean_adapter_config(incoming, base_id)
    progress.save(incoming)
    # Before the manifest is written: one that outlives a loss of power must not name files that did not.
    for path in incoming.rglob("*"):
        flush_to_disk(path)
    files = hash_files(incoming, (path for path in incoming.rglob("*") if path.is_file()))
    facts = {"step": step, **progress.latest_metrics()}
    write_manifest(incoming, Manifest(files=files, trained_tokens=progress.tokens_seen, facts=facts))
    target = workdir / CHECKPOINTS_FOLDER / f"step-{step}"
    target.parent.mkdir(exist_ok=True)
    # A run that was resumed from an older checkpoint reaches this step again.
    shutil.rmtree(target, ignore_errors=True)
    # The folder is there whole or not at all: nobody reads one that is being written.
    incoming.rename(target)
    flush_to_disk(target.parent)
    _remove_old_checkpoints(target.parent)
    return target.relative_to(workdir).as_posix()


def verified_checkpoint(folder: Path) -> Path:
    """Return the folder to resume from. Raises TrainerError (`checkpoint_broken`) if its manifest does not hold.

    A file that the manifest does not name is one that nobody verified: the library would load it by its name.
    """
    try:
        manifest = read_manifest(folder)
        known = {MANIFEST_NAME, *(entry.path for entry in manifest.files)}
        # Links that lead nowhere count too: `is_file` would pass over them.
        found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
        problems = manifest.verify_files(folder)
        problems += [f"{path} is not in the manifest" for path in sorted(found) if path not in known]
    except (OSError, ValueError) as error:
        problems = [f"its manifest cannot be read ({str(error).splitlines()[0]})"]
    if problems:
        raise TrainerError(
            "checkpoint_broken",
            f"The checkpoint to resume from is damaged: {'; '.join(problems)}. Start the job anew.",
            exit_code=ExitCode.FAULT,
        )
    return folder


def _remove_old_checkpoints(folder: Path) -> None:
    # By number: as text, step-10 comes before step-9.
    steps = sorted(folder.glob("step-*"), key=lambda path: int(path.name.partition("-")[2]))
    for old in steps[:-KEPT]:
        shutil.rmtree(old)
