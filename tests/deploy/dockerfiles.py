"""The instructions of a Dockerfile, for tests."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    """One instruction: its name in capitals, and the rest of its logical line."""

    name: str
    value: str

    @property
    def words(self) -> list[str]:
        """The value, split as a shell would."""
        return shlex.split(self.value)


def read_dockerfile(path: Path) -> list[Instruction]:
    """Read the instructions: comments left out, continued lines joined."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    logical = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    parts = [line.strip().partition(" ") for line in logical if line.strip()]
    return [Instruction(name.upper(), value.strip()) for name, _, value in parts]


def stages(instructions: list[Instruction]) -> list[list[Instruction]]:
    """Split the instructions at each FROM."""
    found: list[list[Instruction]] = []
    for instruction in instructions:
        if instruction.name == "FROM":
            found.append([])
        found[-1].append(instruction)
    return found
