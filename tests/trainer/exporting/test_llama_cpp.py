"""llama.cpp itself reads the exports: the same prompt by the template, the same probabilities as transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.fixtures.tiny_model import make_tiny_model
from tests.trainer.exporting.models import lay_out, make_adapter, make_scratch
from trainer.exporting import export_model

pytestmark = pytest.mark.integration

SAID = [{"role": "user", "content": "How high did the river rise in 1998? 河水上涨了多少? don't  guess 🙂"}]
SCRIPT = Path(__file__).with_name("llama_cpp.py")


def ask(file: Path, prompt: str) -> dict[str, Any]:
    command = [sys.executable, str(SCRIPT), str(file), json.dumps(SAID), json.dumps(prompt)]
    child = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    found = [line for line in child.stdout.splitlines() if line.startswith("RESULT ")]
    assert found, child.stderr[-3000:]
    return json.loads(found[0].removeprefix("RESULT "))


def sharpened(folder: Path) -> Path:
    """Make the layers' weights large: an untrained model repeats its last token whatever they are."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "proj" in name:
                parameter.mul_(12)
    model.save_pretrained(str(folder))
    return folder


def expected(folder: Path) -> tuple[str, int, list[int], torch.Tensor]:
    """Return the prompt and its length, the greedy answer, and the log-probabilities of its tokens."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    text = tokenizer.apply_chat_template(SAID, add_generation_prompt=True, tokenize=False)
    assert isinstance(text, str)
    ids: list[int] = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    prompt, logprobs = len(ids), []
    for _ in range(8):
        with torch.no_grad():
            scores = model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        scores[tokenizer.eos_token_id] = -torch.inf
        ids.append(int(scores.argmax()))
        logprobs.append(scores.max())
    return text, prompt, ids[prompt:], torch.stack(logprobs)


@pytest.mark.parametrize("kind", ["adapter", "byte", "bpe"])
@pytest.mark.parametrize(("precision", "tolerance"), [("f32", 0.005), ("q8_0", 0.2)])
def test_llama_cpp_gives_the_same_answer(tmp_path: Path, kind: Any, precision: str, tolerance: float) -> None:
    if kind == "adapter":
        base = sharpened(make_tiny_model(tmp_path / "base"))
        source = make_adapter(base, tmp_path / "adapter")
        merged = lay_out(tmp_path / "merged", source, base=base, to="merged", precision="f32")
        export_model(merged, tmp_path / "merged")
        whole = tmp_path / "merged" / "output"
        spec = lay_out(tmp_path / "e", source, base=base, to="gguf", precision=precision)
    else:
        whole = sharpened(make_scratch(tmp_path / "scratch", kind))
        spec = lay_out(tmp_path / "e", whole, kind="model", to="gguf", precision=precision)
    export_model(spec, tmp_path / "e")
    text, prompt, answer, logprobs = expected(whole)
    found = ask(tmp_path / "e" / "output" / spec.filename, text)
    assert found["prompt_tokens"] == [prompt, prompt]
    # Of tokens that are parts of a character, its server tells some only with the character's end.
    told = [(token["id"], token["logprob"]) for token in found["tokens"]]
    assert len(told) >= 3
    wanted = iter(zip(answer, logprobs.tolist(), strict=True))
    for token, logprob in told[:1] if precision == "q8_0" else told:  # rounding may tip a near tie later on
        ours = next((value for number, value in wanted if number == token), None)
        assert ours == pytest.approx(logprob, abs=tolerance)
