"""Where adapters go, family by family: never on routers, towers for images, or layers that are read past."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from tests.fixtures.scale import sampled
from tests.fixtures.tiny_families import make_tiny_config, make_tiny_family
from tests.trainer.family_matrix import families_to_try
from tests.trainer.workdirs import jsonl, lay_out, training_rows
from trainer.contract.family import AdapterTargets
from trainer.contract.job import JobSpec
from trainer.contract.methods import METHODS_BY_TYPE
from trainer.contract.methods.base import LoraParameters, Resolved
from trainer.engine.models import family_table
from trainer.engine.models.adapters import adapter_shape, add_adapter, lora_targets
from trainer.engine.models.dtype import layer_seconds
from trainer.engine.models.families import (
    adapter_warnings,
    cache_kind,
    describe_family,
    empty_model,
    find_experts,
    find_targets,
    require_trainable,
)
from trainer.engine.models.family_table import FAMILIES
from trainer.engine.models.load import context_length, inner_size, load_model
from trainer.kit.errors import TrainerError
from trainer.kit.event_sink import EventSink
from trainer.kit.job_context import JobContext
from trainer.kit.stop import StopFlag
from trainer.recipes import recipe_for

DENSE = ["llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3_text", "phi3", "gpt2", "gpt_neox", "olmo2", "smollm3"]
CHOSEN = ["qwen3_moe", "llama4_text", "mistral3", "mamba", "falcon_h1", "gpt_oss", "phimoe", "jamba", "deepseek_v3"]


def resolved(**lora: object) -> Resolved:
    """Hyperparameters of which the adapter's shape and the seed matter here."""
    return Resolved.model_construct(lora=LoraParameters.model_validate({"rank": 2, **lora}), seed=3)


def names_of(model: nn.Module, end: str) -> set[str]:
    return {name for name, _ in model.named_modules() if name.endswith(end)}


def reasons(targets: AdapterTargets) -> dict[str, str]:
    return {group.name.rpartition("*.")[2]: group.reason for group in targets.left_out}


@pytest.mark.parametrize("kind", sampled([*CHOSEN, *families_to_try(besides=CHOSEN)], first=len(CHOSEN)))
def test_the_table_says_what_a_model_of_the_family_has(kind: str) -> None:
    card = describe_family(make_tiny_config(kind))
    family = FAMILIES[kind]
    assert card.known
    assert set(card.linear) <= set(family.linear)
    assert set(card.experts) <= set(family.experts)
    assert card.linear
    assert all(fit.works for fit in card.methods.values())
    assert card.methods.keys() == METHODS_BY_TYPE.keys()


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("kind", DENSE)
def test_the_first_bases_families_have_the_layers_that_peft_s_all_linear_has(kind: str) -> None:
    model = empty_model(make_tiny_config(kind))
    ours = find_targets(model).modules
    with torch.device("meta"):
        theirs = get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    wrapped = [
        name.removeprefix("base_model.model.") for name, part in theirs.named_modules() if hasattr(part, "lora_A")
    ]
    assert sorted(ours) == sorted(wrapped)


@pytest.mark.parametrize(
    ("kind", "layer", "said"),
    [
        ("llama4_text", "router", "a router"),
        ("phimoe", "router", "a router"),
        ("qwen2_moe", "shared_expert_gate", "a router"),
        ("mamba", "mixer.x_proj", "without calling the layer"),
        ("falcon_h1", "mamba.out_proj", "without calling the layer"),
        ("nemotron_h", "mixer.out_proj", "without calling the layer"),
        ("deepseek_v32", "indexer.wq_b", "without calling the layer"),
        ("gpt_oss", "experts.gate_up_proj", "experts"),
        ("qwen3_moe", "experts.down_proj", "experts"),
    ],
)
def test_what_gets_no_adapter_is_said_with_the_reason(kind: str, layer: str, said: str) -> None:
    model = empty_model(make_tiny_config(kind))
    targets = find_targets(model)
    assert not any(name.endswith(f".{layer}") for name in targets.modules)
    left_out = [group for group in targets.summary.left_out if group.name.endswith(f".{layer}")]
    assert left_out
    assert all(said in group.reason for group in left_out)


@pytest.mark.parametrize("kind", ["mistral3", "qwen2_5_vl", "qwen3_vl", "gemma3", "llava"])
def test_training_on_text_leaves_what_reads_images_alone(kind: str) -> None:
    card = describe_family(make_tiny_config(kind))
    assert card.reads_images
    assert any("images" in note for note in card.notes)
    adapted = [group.name for group in card.targets.adapted]
    assert all("vision" not in name and "visual" not in name and "projector" not in name for name in adapted)
    towers = [group.name for group in card.targets.left_out if "not a part of the language model" in group.reason]
    assert any("vision" in name or "visual" in name for name in towers)


def test_names_that_find_a_tower_s_layers_too_adapt_the_language_model_alone(tmp_path: Path) -> None:
    base = make_tiny_family("mistral3", tmp_path / "b")
    model = add_adapter(load_model(base, "float32"), resolved(target_modules=["q_proj", "v_proj"]))
    adapted = {name for name, part in model.named_modules() if hasattr(part, "lora_A")}
    assert len(adapted) == 4
    assert all(".language_model." in name for name in adapted)
    model.save_pretrained(str(tmp_path / "a"), save_embedding_layers=False)
    asked = LoraParameters(rank=2, alpha=32, target_modules=["q_proj", "v_proj"])
    assert adapter_shape(asked, tmp_path / "a").rank == 2
    with pytest.raises(TrainerError, match="target_modules"):
        adapter_shape(asked.model_copy(update={"target_modules": ["q_proj", "k_proj"]}), tmp_path / "a")


def test_names_that_peft_finds_alone_stay_as_they_were_asked(tiny_base: Path) -> None:
    model = add_adapter(load_model(tiny_base, "float32"), resolved(target_modules=["q_proj", "v_proj"]))
    config = model.peft_config["default"]
    assert isinstance(config, LoraConfig)
    assert set(config.target_modules or ()) == {"q_proj", "v_proj"}


@pytest.mark.parametrize(
    ("kind", "lora", "param", "said"),
    [
        (
            "llama4_text",
            {"target_modules": ["router"]},
            "lora.target_modules",
            "router cannot get an adapter: a router",
        ),
        ("mamba", {"target_modules": ["out_proj"]}, "lora.target_modules", "out_proj cannot get an adapter"),
        ("mistral3", {"target_modules": ["linear_1"]}, "lora.target_modules", "not a part of the language model"),
        ("llama", {"target_modules": ["nonsense"]}, "lora.target_modules", "those it has are: down_proj, gate_proj"),
        ("llama", {"experts": True}, "lora.experts", "no experts that are stacked"),
        ("qwen3_moe", {"experts": True, "dropout": 0.1}, "lora.dropout", "cannot be combined with lora.dropout"),
        ("qwen3_moe", {"experts": True, "use_dora": True}, "lora.use_dora", "cannot be combined with lora.use_dora"),
    ],
)
def test_what_cannot_be_adapted_is_refused(kind: str, lora: dict[str, object], param: str, said: str) -> None:
    with pytest.raises(TrainerError) as caught:
        lora_targets(empty_model(make_tiny_config(kind)), LoraParameters.model_validate(lora))
    assert caught.value.code == "invalid_hyperparameters"
    assert caught.value.param == param
    assert said in caught.value.message


@pytest.mark.parametrize("kind", ["qwen3_moe", "gpt_oss", "granitemoe", "nemotron_h"])
def test_experts_are_adapted_if_asked_for(kind: str, tmp_path: Path) -> None:
    base = make_tiny_family(kind, tmp_path / "b")
    plain = load_model(base, "float32")
    experts = set(find_experts(plain))
    assert experts
    model = add_adapter(plain, resolved(experts=True))
    wrapped = {name for name, part in model.named_parameters() if "lora_B" in name and ".experts." in name}
    assert len(wrapped) == len(experts)
    model.save_pretrained(str(tmp_path / "a"), save_embedding_layers=False)
    assert adapter_shape("auto", tmp_path / "a").experts
    config = plain.config
    targets = lora_targets(empty_model(config), LoraParameters(experts=True)).summary
    assert "export the merged model" in adapter_warnings(config, targets, experts=True)[0]


def test_experts_without_an_adapter_are_a_warning() -> None:
    config = make_tiny_config("gpt_oss")
    targets = find_targets(empty_model(config)).summary
    (warning,) = adapter_warnings(config, targets, experts=False)
    assert "of the base's parameters, get no adapter: lora.experts" in warning


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("qwen3_moe", "llama4_text", "mistral3"):
        monkeypatch.delitem(family_table.FAMILIES, name)


@pytest.mark.usefixtures("unknown")
@pytest.mark.parametrize("kind", ["qwen3_moe", "llama4_text", "mistral3"])
def test_a_family_that_is_not_in_the_table_is_found_by_inspection_and_said_so(kind: str) -> None:
    config = make_tiny_config(kind)
    card = describe_family(config)
    assert not card.known
    assert cache_kind(config) == "none"
    assert any("found by inspection" in note for note in card.notes)
    assert set(card.linear) >= {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert card.routers == (("router",) if kind == "llama4_text" else ())
    assert bool(card.experts) == (kind != "mistral3")
    assert card.reads_images == (kind == "mistral3")
    assert "found by inspection" in adapter_warnings(config, card.targets, experts=False)[0]


@pytest.mark.parametrize("kind", [name for name, family in FAMILIES.items() if family.refused][:8])
def test_a_refused_family_has_a_sentence_for_each_method(kind: str) -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = CONFIG_MAPPING[kind]()
    card = describe_family(config)
    assert not any(fit.works for fit in card.methods.values())
    with pytest.raises(TrainerError) as caught:
        require_trainable(config)
    assert caught.value.message == card.methods["supervised"].reason
    assert f"family {config.model_type} cannot be trained here" in caught.value.message


def test_reading_a_description_draws_no_weight() -> None:
    before = torch.random.get_rng_state()
    model = empty_model(make_tiny_config("llama"))
    assert isinstance(model, PreTrainedModel)
    assert model.device.type == "meta"
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_family_that_cannot_recompute_activations_is_told_so(tmp_path: Path) -> None:
    base = make_tiny_family("openai-gpt", tmp_path / "b")

    def settle(name: str, **hyperparameters: object) -> bool:
        given = {"dtype": "float32", "lora": {"rank": 2}, "n_epochs": 1, **hyperparameters}
        folder = lay_out(tmp_path / name, base, jsonl(training_rows(3)), hyperparameters=given)
        spec = JobSpec.model_validate_json((folder / "job.json").read_bytes())
        recipe = recipe_for(JobContext(folder, spec, EventSink(folder), StopFlag(), warn=lambda _: None))
        recipe.data.read_data()
        recipe.settle_hyperparameters()
        return recipe.resolved.gradient_checkpointing

    assert settle("auto") is False
    with pytest.raises(TrainerError, match="cannot recompute the activations of a openai-gpt model"):
        settle("asked", gradient_checkpointing=True)


@pytest.mark.parametrize("kind", sampled([*CHOSEN, *families_to_try(besides=CHOSEN)], first=len(CHOSEN)))
def test_a_layer_of_the_family_s_size_can_be_timed(kind: str) -> None:
    config = make_tiny_config(kind)
    assert layer_seconds(config, "float32") > 0
    assert inner_size(config) >= 1
    assert 16 <= context_length(config) <= 10**9
