from __future__ import annotations

import subprocess
import sys

from tests.trainer.workdirs import REPOSITORY


def test_the_contract_loads_without_torch() -> None:
    code = (
        "import sys, trainer.spec, trainer.events, trainer.result, trainer.methods, trainer.report.write, "
        "trainer.sources, trainer.auto, trainer.rows, trainer.progress; "
        "print([n for n in ('torch', 'transformers', 'trl', 'peft', 'datasets', 'matplotlib') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
