"""Exports give the trained model's logits, loaded by code that knows nothing of ours."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tests.fixtures.tiny_families import make_tiny_family
from tests.fixtures.tiny_model import CHAT_TEMPLATE
from tests.trainer.exporting.models import lay_out, logits, make_adapter, make_scratch
from trainer.contract.export import ExportCheck
from trainer.contract.methods.base import LoraParameters, Resolved
from trainer.contract.result import ExitCode, read_manifest
from trainer.engine.adapter_export import export_adapter
from trainer.engine.models.adapters import add_adapter
from trainer.engine.models.load import language_class, load_config, load_model, load_tokenizer
from trainer.exporting import export_model
from trainer.exporting.gguf_families import FAMILIES
from trainer.kit.errors import TrainerError

SAID = "The river rose. 河水上涨了。"
CLOSE = {"f32": 1e-4, "f16": 0.02, "bf16": 0.15, "q8_0": 0.25}


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    return make_adapter(tiny_base, tmp_path_factory.mktemp("export") / "adapter")


def expected(base: Path, adapter: Path) -> torch.Tensor:
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), str(adapter))
    return logits(model, AutoTokenizer.from_pretrained(base), SAID)


def loaded_gguf(folder: Path, name: str) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(str(folder), gguf_file=name, dtype=torch.float32)
    return logits(model, AutoTokenizer.from_pretrained(str(folder), gguf_file=name), SAID)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["f32", "f16", "bf16"])
def test_merged_weights_load_by_transformers_alone(
    tmp_path: Path, tiny_base: Path, adapter: Path, precision: str
) -> None:
    spec = lay_out(tmp_path / "e", adapter, base=tiny_base, to="merged", precision=precision)
    check = export_model(spec, tmp_path / "e")
    output = tmp_path / "e" / "output"
    model = AutoModelForCausalLM.from_pretrained(output, dtype="auto")
    assert model.dtype == {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[precision]
    tokenizer = AutoTokenizer.from_pretrained(output)
    assert tokenizer.chat_template == CHAT_TEMPLATE
    wanted = expected(tiny_base, adapter)
    difference = float((logits(model.float(), tokenizer, SAID) - wanted).abs().max())
    assert difference <= CLOSE[precision]
    plain = logits(AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32), tokenizer, SAID)
    assert float((plain - wanted).abs().max()) > 10 * max(difference, 0.01), "the adapter changes what is compared"
    assert read_manifest(output).verify_files(output) == []
    assert check.rounding_error <= {"f32": 1e-5, "f16": 0.002, "bf16": 0.02}[precision]
    assert model.config.use_cache is True
    assert not [path for path in output.iterdir() if str(tmp_path) in path.read_bytes().decode("utf-8", "ignore")]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["f32", "f16", "bf16", "q8_0"])
def test_gguf_gives_the_same_logits(tmp_path: Path, tiny_base: Path, adapter: Path, precision: str) -> None:
    spec = lay_out(tmp_path / "e", adapter, base=tiny_base, to="gguf", precision=precision)
    check = export_model(spec, tmp_path / "e")
    output = tmp_path / "e" / "output"
    assert [path.name for path in output.iterdir()] == [spec.filename]
    found = loaded_gguf(output, spec.filename)
    assert float((found - expected(tiny_base, adapter)).abs().max()) <= CLOSE[precision]
    assert check.file_difference <= 1e-4
    reader: Any = gguf.GGUFReader(output / spec.filename)
    assert reader.fields["general.name"].contents() == "ft:tiny:org:desk:abc"
    assert reader.fields["tokenizer.chat_template"].contents() == CHAT_TEMPLATE
    assert reader.fields["tokenizer.ggml.eos_token_id"].contents() == 2
    kinds = {tensor.tensor_type.name for tensor in reader.tensors if len(tensor.shape) == 2}
    assert kinds == {precision.upper()}


def test_q8_0_is_about_half_of_f16(tmp_path: Path, tiny_base: Path, adapter: Path) -> None:
    sizes: dict[str, int] = {}
    for precision in ("f16", "q8_0"):
        spec = lay_out(tmp_path / precision, adapter, base=tiny_base, to="gguf", precision=precision)
        export_model(spec, tmp_path / precision)
        reader: Any = gguf.GGUFReader(tmp_path / precision / "output" / spec.filename)
        sizes[precision] = sum(tensor.n_bytes for tensor in reader.tensors)
    assert sizes["q8_0"] < 0.56 * sizes["f16"]


def test_a_dora_adapter_is_merged_with_its_magnitudes(tmp_path: Path, tiny_base: Path) -> None:
    adapter = make_adapter(tiny_base, tmp_path / "dora", dora=True)
    spec = lay_out(tmp_path / "e", adapter, base=tiny_base, to="gguf", precision="f32")
    export_model(spec, tmp_path / "e")
    found = loaded_gguf(tmp_path / "e" / "output", spec.filename)
    assert float((found - expected(tiny_base, adapter)).abs().max()) <= CLOSE["f32"]


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", ["byte", "bpe"])
def test_a_model_from_scratch_becomes_gguf(tmp_path: Path, tokenizer: Any) -> None:
    source = make_scratch(tmp_path / "scratch", tokenizer)
    spec = lay_out(tmp_path / "e", source, kind="model", to="gguf", precision="f32")
    export_model(spec, tmp_path / "e")
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    wanted = logits(model, AutoTokenizer.from_pretrained(source), SAID)
    assert float((loaded_gguf(tmp_path / "e" / "output", spec.filename) - wanted).abs().max()) <= CLOSE["f32"]


def test_a_tokenizer_of_characters_is_refused_as_gguf_and_fine_as_merged(tmp_path: Path) -> None:
    source = make_scratch(tmp_path / "scratch", "char")
    spec = lay_out(tmp_path / "gguf", source, kind="model", to="gguf", precision="f16")
    with pytest.raises(TrainerError, match="WordLevel, and only byte-level BPE") as caught:
        export_model(spec, tmp_path / "gguf")
    assert (caught.value.code, caught.value.exit_code) == ("unsupported_export", ExitCode.BAD_INPUT)
    export_model(lay_out(tmp_path / "merged", source, kind="model", to="merged", precision="f32"), tmp_path / "merged")
    assert AutoTokenizer.from_pretrained(tmp_path / "merged" / "output")("河水")["input_ids"]


@pytest.mark.slow
def test_a_reward_model_is_merged_with_its_head(tmp_path: Path, tiny_base: Path) -> None:
    adapter = make_adapter(tiny_base, tmp_path / "reward", reward=True)
    spec = lay_out(tmp_path / "e", adapter, base=tiny_base, kind="reward", to="merged", precision="f32")
    export_model(spec, tmp_path / "e")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "e" / "output")
    auto = AutoModelForSequenceClassification
    classifier = auto.from_pretrained(tiny_base, dtype=torch.float32, num_labels=1, pad_token_id=tokenizer.pad_token_id)
    wanted = logits(PeftModel.from_pretrained(classifier, str(adapter)), tokenizer, SAID)
    found = logits(auto.from_pretrained(tmp_path / "e" / "output", dtype=torch.float32), tokenizer, SAID)
    assert float((found - wanted).abs().max()) <= 1e-4
    assert float(wanted.abs().max()) > 0.01
    spec = lay_out(tmp_path / "gguf", adapter, base=tiny_base, kind="reward", to="gguf", precision="f16")
    with pytest.raises(TrainerError, match="score head"):
        export_model(spec, tmp_path / "gguf")


def test_a_file_with_other_weights_is_never_a_result(
    tmp_path: Path, tiny_base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of q and k in transformers' order: what llama.cpp would turn wrongly."""
    monkeypatch.setitem(FAMILIES, "llama", dataclasses.replace(FAMILIES["llama"], rotates_pairs=False))
    spec = lay_out(tmp_path / "e", adapter, base=tiny_base, to="gguf", precision="f32")
    with pytest.raises(TrainerError, match="does not give the trained model's logits") as caught:
        export_model(spec, tmp_path / "e")
    assert (caught.value.code, caught.value.exit_code) == ("export_mismatch", ExitCode.FAULT)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "type linear"),
    ],
)
def test_what_gguf_would_lose_is_refused(tmp_path: Path, tiny_base: Path, change: dict[str, Any], reason: str) -> None:
    source = tmp_path / "model"
    source.mkdir()
    for path in tiny_base.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, **change}))
    spec = lay_out(tmp_path / "e", source, kind="model", to="gguf", precision="f32")
    with pytest.raises(TrainerError, match=reason) as caught:
        export_model(spec, tmp_path / "e")
    assert caught.value.code == "unsupported_export"


def test_the_check_is_kept_next_to_the_export(tmp_path: Path, tiny_base: Path, adapter: Path) -> None:
    from trainer.programs.export import main

    lay_out(tmp_path / "e", adapter, base=tiny_base, to="gguf", precision="q8_0")
    assert main([str(tmp_path / "e")]) == ExitCode.DONE
    check = ExportCheck.model_validate_json((tmp_path / "e" / "result.json").read_bytes())
    assert check.rows == 5
    assert 0 < check.rounding_error < 0.05


def test_a_program_that_is_called_wrongly_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from trainer.programs.export import main

    assert main([]) == ExitCode.BAD_INPUT
    assert main([str(tmp_path)]) == ExitCode.BAD_INPUT
    assert "does not describe an export" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mistral3", "gemma3", "qwen3_moe", "llama4_text"])
def test_other_families_are_merged_and_load_again(kind: str, tmp_path: Path) -> None:
    base = make_tiny_family(kind, tmp_path / "base")
    model = load_model(base, "float32")
    experts = kind == "qwen3_moe"
    lora = LoraParameters(rank=2, experts=experts)
    adapted = add_adapter(model, Resolved.model_construct(lora=lora, seed=1))
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    export_adapter(adapted, load_tokenizer(base), tmp_path / "adapter", base_id="tiny", card="card")
    spec = lay_out(tmp_path / "e", tmp_path / "adapter", base=base, to="merged", precision="f32")
    check = export_model(spec, tmp_path / "e")
    assert check.file_difference <= 1e-4
    output = tmp_path / "e" / "output"
    auto = language_class(load_config(output))
    assert auto.__name__ in (output / "README.md").read_text()
    merged, tokenizer = auto.from_pretrained(output, dtype=torch.float32), AutoTokenizer.from_pretrained(output)
    wanted = logits(PeftModel.from_pretrained(load_model(base, "float32"), str(tmp_path / "adapter")), tokenizer, SAID)
    assert float((logits(merged, tokenizer, SAID) - wanted).abs().max()) <= 1e-4
    assert merged.config.get_text_config().use_cache is True
