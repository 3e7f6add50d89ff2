"""Makes an export by a script instead of by torch: `scripted_export.py MODE FOLDER`."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from trainer.contract.export import ExportCheck, ExportSpec
from trainer.contract.result import ExitCode, Manifest, hash_files, write_manifest

if __name__ == "__main__":
    mode, folder = sys.argv[1], Path(sys.argv[2])
    spec = ExportSpec.model_validate_json((folder / "export.json").read_bytes())
    assert (folder / "source").is_dir()
    assert (folder / "base" / "config.json").is_file() is (spec.kind != "model")
    assert not (folder / "source" / "optimizer.pt").exists()
    if mode == "refuse":
        print("unsupported_export: 这个模型不能写成 GGUF。", file=sys.stderr)
        sys.exit(ExitCode.BAD_INPUT)
    if mode == "fault":
        print("export_mismatch: The export does not give the trained model's logits.", file=sys.stderr)
        sys.exit(ExitCode.FAULT)
    if mode == "mute":
        sys.exit(7)
    if mode == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    while mode == "wait":
        time.sleep(0.02)
    output = folder / "output"
    output.mkdir()
    if spec.format == "gguf":
        (output / spec.filename).write_bytes(b"GGUF" + os.environ.get("CUDA_VISIBLE_DEVICES", "all").encode())
    else:
        (output / "config.json").write_text("{}")
        (output / "model.safetensors").write_bytes(bytes(range(256)) * 64)
        write_manifest(output, Manifest(files=hash_files(output, output.iterdir()), facts={"model": spec.name}))
    check = ExportCheck(rows=5, merge_difference=0.0, file_difference=0.0, rounding_error=0.01, tokenizer_rows=3)
    (folder / "result.json").write_text(check.model_dump_json())
