from __future__ import annotations

import subprocess
import sys

import pytest

from tests.trainer.workdirs import REPOSITORY


@pytest.mark.slow
def test_contract_graders_kit_and_report_load_without_torch() -> None:
    code = (
        "import pkgutil, sys, importlib, trainer.contract, trainer.graders, trainer.kit, trainer.report\n"
        "for package in (trainer.contract, trainer.graders, trainer.kit, trainer.report):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "print([n for n in ('torch', 'transformers', 'trl', 'peft', 'datasets', 'matplotlib') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
