"""The compact head is the plain head: the same loss, the same gradients, the same hits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from torch.nn import functional
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer
from trl.trainer.utils import add_fused_lm_head

from tests.trainer.equivalence import Record, assert_same
from trainer.contract.methods.base import LoraParameters
from trainer.contract.methods.supervised import SupervisedHyperparameters
from trainer.engine.data.batches import collate_rows
from trainer.engine.data.tokens import IGNORED, TokenizedRow
from trainer.engine.models.adapters import add_adapter
from trainer.engine.models.load import load_model, load_tokenizer
from trainer.engine.scoring.evaluate import score_rows
from trainer.engine.scoring.head import trained_scores
from trainer.kit.auto import Workload, resolve_auto

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def row(line: int, length: int, first_trained: int, seed: int) -> TokenizedRow:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 259, (length,), generator=generator).tolist()
    ids[-1] = 2  # the end of the turn, which is the padding as well
    return TokenizedRow(line, tuple(ids), tuple(place >= first_trained for place in range(length)))


ROWS = [row(1, 12, 8, 1), row(2, 31, 20, 2), row(3, 5, 1, 3)]


def _adapted(base: Path) -> PeftModel:
    shape = Workload(lengths=(8,), hidden_size=64, device="cpu", dtype="float32", max_length=64)
    resolved = resolve_auto(SupervisedHyperparameters(), shape, 3, lora=LoraParameters(rank=4))
    return add_adapter(load_model(base, "float32"), resolved)


@pytest.fixture
def model(tiny_base: Path) -> PeftModel:
    model = _adapted(tiny_base)
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def gradients(model: PeftModel, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def plain_loss(model: PeftModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].float()
    return functional.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED)


def test_padding_is_masked_by_length_and_the_end_token_is_trained() -> None:
    batch = collate_rows(ROWS, pad_id=2)
    assert batch["attention_mask"].sum(1).tolist() == [12, 31, 5]
    assert (batch["labels"] != IGNORED).sum(1).tolist() == [4, 11, 4]
    assert batch["labels"][0, 11] == 2
    assert batch["labels"][0, 12] == IGNORED


def test_loss_and_gradients_are_trl_s(
    model: PeftModel, tiny_base: Path, tmp_path: Path, record_property: Record
) -> None:
    batch = collate_rows(ROWS, pad_id=2)
    log_probs, _ = trained_scores(model, batch, compact=True)
    loss = -log_probs.sum() / log_probs.numel()
    ours = gradients(model, loss)
    prepared: dict[str, Any] = {"skip_prepare_dataset": True}
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            report_to="none",
            max_length=None,
            dataset_kwargs=prepared,
            activation_checkpointing=False,
        ),
        train_dataset=Dataset.from_dict({"input_ids": [list(row.input_ids) for row in ROWS]}),
        processing_class=load_tokenizer(tiny_base),
    )
    reference: Any = trainer.compute_loss(model, dict(batch))
    assert_same(record_property, loss, reference, ours, gradients(model, reference))


@pytest.mark.parametrize("compact", [True, False], ids=["compact", "fused"])
def test_loss_and_gradient_equal_the_plain_head(model: PeftModel, compact: bool) -> None:
    batch = collate_rows(ROWS, pad_id=2)
    expected = plain_loss(model, batch)
    expected_gradient = gradients(model, expected)
    if not compact:
        add_fused_lm_head(model.get_base_model(), outputs=("log_probs", "is_top1"))
    log_probs, hits = trained_scores(model, batch, compact=compact)
    loss = -log_probs.sum() / log_probs.numel()
    gradient = gradients(model, loss)
    assert log_probs.shape == hits.shape == (4 + 11 + 4,)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert functional.cosine_similarity(gradient, expected_gradient, dim=0) > 0.99999
    assert torch.allclose(gradient, expected_gradient, rtol=1e-3, atol=1e-6)


def test_hits_are_the_greedy_ones(model: PeftModel) -> None:
    batch = collate_rows(ROWS, pad_id=2)
    _, hits = trained_scores(model, batch, compact=True)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    mask = batch["labels"][:, 1:] != IGNORED
    assert torch.equal(hits, (logits.argmax(-1) == batch["labels"][:, 1:])[mask])


def test_corpus_scores_do_not_depend_on_batches_and_base_is_the_disabled_adapter(
    model: PeftModel, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, hits = score_rows(model, ROWS, 2)
    monkeypatch.setitem(__import__("trainer.kit.auto", fromlist=["x"]).TOKENS_A_PASS, "cpu", 1)
    apart, hits_apart = score_rows(model, ROWS, 2)
    assert apart.lines == (1, 2, 3)
    assert together.sums == pytest.approx(apart.sums, rel=1e-5)
    assert hits == hits_apart
    assert together.weights == (4.0, 11.0, 4.0)
    batch = collate_rows(ROWS, pad_id=2)
    assert together.value == pytest.approx(float(plain_loss(model, batch).detach()), rel=1e-5)
    with model.disable_adapter():
        base, _ = score_rows(model, ROWS, 2)
    fresh, _ = score_rows(_adapted(tiny_base), ROWS, 2)
    assert base.sums == pytest.approx(fresh.sums, rel=1e-6)
    assert model.training
