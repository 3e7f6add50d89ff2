"""`python`: a source with `def grade(sample, item)`, which returns the reward."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from trainer.graders.base import MAX_TEXT, Failure, Scene
from trainer.graders.leaf import Leaf


class PythonGrader(Leaf):
    """Runs in a process of its own, shut in; see `sandbox.py`. `image_tag`, OpenAI's images, changes nothing."""

    type: Literal["python"] = "python"
    source: str = Field(min_length=1)
    image_tag: str | None = Field(default=None, max_length=128)

    @field_validator("source")
    @classmethod
    def _limit_source(cls, value: str) -> str:
        size = len(value.encode("utf-8", "surrogatepass"))
        if size > MAX_TEXT:
            raise ValueError(f"it has {size} bytes; {MAX_TEXT} are the most")
        return value

    def compute_reward(self, scene: Scene) -> float:
        """Return what the function returns. Raises Failure."""
        if scene.tools.run_python is None:
            raise Failure("python_grader_server_error", "Python graders are not switched on here", kind="disabled")
        return scene.tools.run_python(self.source, scene.sample.template_namespace(), scene.item)
