"""One entry for each family of transformers' causal language models, and of those that read images too.

A family that is not here is found by inspection. `tests/trainer/engine/models/test_family_table.py` holds the entries
against tiny models of each family.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainer.contract.family import CacheKind


@dataclass(frozen=True)
class Family:
    """What a family needs. `linear` are the last names of the layers that take an adapter.

    `routers` and `left_out` are ends and parts of names that never do: those that choose experts, and those whose
    weights the family reads without calling the layer, on some machine at least. `experts` are the ends of the names
    of stacked experts. `refused` is why models of the family are not trained.
    """

    linear: tuple[str, ...] = ()
    routers: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    experts: tuple[str, ...] = ()
    cache: CacheKind = "keys"
    refused: str = ""


def _names(words: str) -> tuple[str, ...]:
    return tuple(words.split())


_ATTENTION = ("k_proj", "o_proj", "q_proj", "v_proj")
_PLAIN = (*_ATTENTION, "down_proj", "up_proj")
_GATED = (*_PLAIN, "gate_proj")
_JOINED = (*_ATTENTION, "down_proj", "gate_up_proj")
_LATENT = _names("kv_a_proj_with_mqa kv_b_proj o_proj q_a_proj q_b_proj q_proj down_proj gate_proj up_proj")
_QWEN_LINEAR = (*_GATED, "in_proj_a", "in_proj_b", "in_proj_qkv", "in_proj_z", "out_proj")
_GEMMA = (*_GATED, "per_layer_input_gate", "per_layer_model_projection", "per_layer_projection")
_NEOX = ("dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value")
_GPT2 = ("c_attn", "c_fc", "c_proj")
_OPT = ("fc1", "fc2", "k_proj", "out_proj", "q_proj", "v_proj")
_EXPERTS = ("experts.down_proj", "experts.gate_up_proj")

_ENCODER = "they are encoders, which fill gaps in a text and do not write one from left to right"
_DECODER = "they are one half of a model that reads with the other half, an encoder"
_IMAGES = "they write about an image, and read no text without one"
_PREFIX = "they read a prompt in both directions, where a conversation is trained from left to right"
_LENGTHS = "they read texts of a few fixed lengths only"
_BYTES = "they read bytes in patches, which no chat template is made for"
_DRAFT = "they are draft models, which read the hidden states of another model"
_DIFFUSION = "they write all places of a text at once, and not from left to right"
_ROBOT = "they write a robot's movements"

FAMILIES: dict[str, Family] = {
    "afmoe": Family(_GATED, experts=_EXPERTS),
    "apertus": Family(_PLAIN),
    "arcee": Family(_PLAIN),
    "aria": Family(_GATED, experts=_EXPERTS),
    "aria_text": Family(_GATED, experts=_EXPERTS),
    "axk1": Family(_LATENT, experts=_EXPERTS),
    "axk2": Family(
        _names("down_proj fc1 fc2 gate_proj kv_a_proj_with_mqa kv_b_proj o_proj q_a_proj q_gate_proj up_proj"),
        left_out=("indexer",),
        experts=_EXPERTS,
    ),
    "aya_vision": Family(_GATED),
    "bailing_hybrid": Family(
        _names(
            "b_proj down_proj f_proj g_proj gate_proj k_proj kv_a_proj_with_mqa kv_b_proj o_proj q_proj up_proj v_proj"
        ),
        experts=_EXPERTS,
    ),
    "bamba": Family(
        _names("down_proj gate_proj in_proj k_proj o_proj q_proj up_proj v_proj"), left_out=("mamba.out_proj",)
    ),
    "bart": Family(refused=_DECODER),
    "beam": Family(_GATED),
    "bert": Family(refused=_ENCODER),
    "bert-generation": Family(refused=_ENCODER),
    "big_bird": Family(refused=_ENCODER),
    "bigbird_pegasus": Family(refused=_DECODER),
    "biogpt": Family(_OPT),
    "bitnet": Family(_GATED),
    "blenderbot": Family(refused=_DECODER),
    "blenderbot-small": Family(refused=_DECODER),
    "blip": Family(refused=_IMAGES),
    "blip-2": Family(refused=_IMAGES),
    "bloom": Family(_NEOX),
    "blt": Family(refused=_BYTES),
    "camembert": Family(refused=_ENCODER),
    "codegen": Family(_names("fc_in fc_out out_proj qkv_proj")),
    "cohere": Family(_GATED),
    "cohere2": Family(_GATED),
    "cohere2_moe": Family(_GATED, experts=_EXPERTS),
    "cohere2_vision": Family(_GATED),
    "cosmos3_omni": Family(_GATED),
    "cpmant": Family(refused=_PREFIX),
    "ctrl": Family(_names("0 2 Wk Wq Wv dense")),
    "cwm": Family(_GATED),
    "data2vec-text": Family(refused=_ENCODER),
    "deepseek_v2": Family(_LATENT, experts=_EXPERTS),
    "deepseek_v3": Family(_LATENT, experts=_EXPERTS),
    "deepseek_v32": Family(_LATENT, left_out=("indexer",), experts=_EXPERTS),
    "deepseek_v4": Family(
        _names("down_proj gate_proj kv_proj o_b_proj q_a_proj q_b_proj up_proj"),
        left_out=("indexer", "compressor"),
        experts=_EXPERTS,
        cache="none",
    ),
    "deepseek_vl": Family(_GATED),
    "deepseek_vl_hybrid": Family(_GATED),
    "diffllama": Family(_GATED),
    "diffusion_gemma": Family(refused=_DIFFUSION),
    "doge": Family(_names("down_proj dt_proj gate_proj k_proj o_proj q_proj up_proj v_proj")),
    "dots1": Family(_GATED, experts=_EXPERTS),
    "dots3_note_text": Family(
        _names("down_proj g_proj gate_proj kv_a_proj_with_mqa kv_b_proj o_proj q_a_proj q_b_proj up_proj"),
        left_out=("indexer",),
        experts=_EXPERTS,
    ),
    "electra": Family(refused=_ENCODER),
    "emu3": Family(_GATED),
    "ernie": Family(refused=_ENCODER),
    "ernie4_5": Family(_GATED),
    "ernie4_5_moe": Family(_GATED, experts=_EXPERTS),
    "exaone4": Family(_GATED),
    "exaone4_5": Family(_GATED),
    "exaone_moe": Family(_GATED, experts=_EXPERTS),
    "falcon": Family(_NEOX),
    "falcon_h1": Family(
        _names("down_proj gate_proj in_proj k_proj o_proj q_proj up_proj v_proj"), left_out=("mamba.out_proj",)
    ),
    "falcon_mamba": Family(("in_proj",), left_out=_names("x_proj dt_proj out_proj"), cache="state"),
    "flex_olmo": Family(_ATTENTION, experts=_EXPERTS),
    "flint": Family(_GATED),
    "florence2": Family(refused=_IMAGES),
    "fuyu": Family(_NEOX),
    "gemma": Family(_GATED),
    "gemma2": Family(_GATED),
    "gemma3": Family(_GATED),
    "gemma3_text": Family(_GATED),
    "gemma3n_text": Family(
        (*_GEMMA, *_names("0 1 2 correction_coefs linear_left linear_right prediction_coefs")),
        routers=("modality_router",),
        left_out=("correction_coefs",),
    ),
    "gemma4": Family(_GEMMA),
    "gemma4_assistant": Family(refused=_DRAFT),
    "gemma4_text": Family(_GEMMA),
    "gemma4_unified": Family(_GATED),
    "gemma4_unified_assistant": Family(refused=_DRAFT),
    "gemma4_unified_text": Family(_GATED),
    "git": Family(refused=_IMAGES),
    "glm": Family(_JOINED),
    "glm4": Family(_JOINED),
    "glm46v": Family(_JOINED),
    "glm4_moe": Family(_GATED, experts=_EXPERTS),
    "glm4_moe_lite": Family(_LATENT, experts=_EXPERTS),
    "glm4v": Family(_JOINED),
    "glm4v_moe": Family(_GATED, experts=_EXPERTS),
    "glm_moe_dsa": Family(_LATENT, left_out=("indexer",), experts=_EXPERTS),
    "glm_ocr": Family(_JOINED),
    "glmga": Family(_JOINED),
    "got_ocr2": Family(_GATED),
    "gpt2": Family(_GPT2),
    "gpt_bigcode": Family(_GPT2),
    "gpt_neo": Family(_names("c_fc c_proj k_proj out_proj q_proj v_proj")),
    "gpt_neox": Family(_NEOX),
    "gpt_neox_japanese": Family(_NEOX),
    "gpt_oss": Family(_ATTENTION, experts=_EXPERTS),
    "gptj": Family(_names("fc_in fc_out k_proj out_proj q_proj v_proj")),
    "granite": Family(_GATED),
    "granite_swa": Family(_GATED),
    "granitemoe": Family(_ATTENTION, experts=_EXPERTS),
    "granitemoe_swa": Family(_names("input_linear k_proj o_proj output_linear q_proj v_proj"), experts=_EXPERTS),
    "granitemoehybrid": Family(
        _names("in_proj input_linear k_proj o_proj output_linear q_proj v_proj"),
        left_out=("mamba.out_proj",),
        experts=_EXPERTS,
    ),
    "granitemoeshared": Family(_names("input_linear k_proj o_proj output_linear q_proj v_proj"), experts=_EXPERTS),
    "helium": Family(_GATED),
    "hrm_text": Family(_GATED, cache="none"),
    "hunyuan_v1_dense": Family(_GATED),
    "hunyuan_v1_moe": Family(_GATED, experts=_EXPERTS),
    "hy_v3": Family(_GATED, experts=_EXPERTS),
    "hy_v4": Family(_LATENT, left_out=("indexer",), experts=_EXPERTS),
    "hyperclovax": Family(_GATED),
    "hyperclovax_vision_v2": Family(_GATED),
    "idefics": Family(refused=_IMAGES),
    "idefics2": Family(_GATED),
    "idefics3": Family(_GATED),
    "inkling2_text": Family(
        _names("gate_proj k_proj o_proj q_proj r_proj sink_proj v_proj weight_proj"), experts=_EXPERTS
    ),
    "inkling_text": Family(_names("k_proj o_proj q_proj r_proj v_proj"), experts=_EXPERTS),
    "instructblip": Family(refused=_IMAGES),
    "instructblipvideo": Family(refused=_IMAGES),
    "internlm3": Family(_GATED),
    "internvl": Family(_GATED),
    "iquestcoder": Family(_GATED),
    "jais2": Family(_PLAIN),
    "jamba": Family(
        _names("down_proj gate_proj in_proj k_proj o_proj out_proj q_proj up_proj v_proj x_proj"),
        left_out=("dt_proj",),
        experts=_EXPERTS,
    ),
    "jetmoe": Family(("kv_proj",), experts=_names("input_linear.weight output_linear.weight")),
    "kimi_k25": Family(_LATENT, experts=_EXPERTS),
    "kimi_linear": Family(
        (*_GATED, *_names("b_proj f_a_proj f_b_proj g_a_proj g_b_proj kv_a_proj_with_mqa kv_b_proj")), experts=_EXPERTS
    ),
    "kolibri1": Family(_GATED, experts=_EXPERTS),
    "kosmos-2": Family(refused=_IMAGES),
    "kosmos-2.5": Family(refused=_IMAGES),
    "laguna": Family(_names("down_proj g_proj gate_proj k_proj o_proj q_proj up_proj v_proj"), experts=_EXPERTS),
    "lfm2": Family(_names("k_proj out_proj q_proj v_proj w1 w2 w3")),
    "lfm2_moe": Family(_names("in_proj k_proj out_proj q_proj v_proj w1 w2 w3"), experts=_EXPERTS),
    "lfm2_vl": Family(_names("k_proj out_proj q_proj v_proj w1 w2 w3")),
    "lfm3": Family(_names("g_proj in_proj k_proj o_proj out_proj q_proj v_proj w1 w2 w3")),
    "lfm3_vl": Family(_names("g_proj in_proj k_proj o_proj out_proj q_proj v_proj w1 w2 w3")),
    "lighton_ocr": Family(_GATED),
    "llama": Family(_GATED),
    "llama4": Family(_GATED, experts=_EXPERTS),
    "llama4_text": Family(_GATED, experts=_EXPERTS),
    "llava": Family(_GATED),
    "llava_next": Family(_GATED),
    "llava_next_video": Family(_GATED),
    "llava_onevision": Family(_GATED),
    "mamba": Family(("in_proj",), left_out=_names("x_proj dt_proj out_proj"), cache="state"),
    "mamba2": Family(("in_proj",), left_out=("out_proj",), cache="state"),
    "marian": Family(refused=_DECODER),
    "mbart": Family(refused=_DECODER),
    "megatron-bert": Family(refused=_ENCODER),
    "mellum": Family(_ATTENTION, experts=_EXPERTS),
    "mimo_v2_flash": Family(_GATED, experts=_EXPERTS),
    "minicpm3": Family(_LATENT),
    "minicpm_ocr": Family(_QWEN_LINEAR),
    "minicpmv4_6": Family(_QWEN_LINEAR),
    "minicpmv4_7": Family(_QWEN_LINEAR),
    "minimax": Family(_names("k_proj o_proj out_proj output_gate q_proj qkv_proj v_proj"), experts=_EXPERTS),
    "minimax_m2": Family(_ATTENTION, experts=_EXPERTS),
    "minimax_m3_vl": Family(_JOINED, experts=_EXPERTS),
    "minimax_m3_vl_text": Family(_JOINED, experts=_EXPERTS),
    "ministral": Family(_GATED),
    "ministral3": Family(_GATED),
    "mistral": Family(_GATED),
    "mistral3": Family(_GATED),
    "mistral4": Family(_LATENT, experts=_EXPERTS),
    "mistral_large4": Family(
        _names("down_proj gate_proj kv_a_proj_with_mqa kv_b_proj o_proj q_proj up_proj"),
        left_out=("indexer",),
        experts=_EXPERTS,
    ),
    "mixtral": Family(_ATTENTION, experts=_EXPERTS),
    "modernbert-decoder": Family(_names("Wi Wo k_proj q_proj v_proj")),
    "moshi": Family(refused=_DECODER),
    "moss_transcribe_diarize": Family(_GATED),
    "mpt": Family(_names("Wqkv down_proj out_proj up_proj")),
    "musicgen": Family(refused=_DECODER),
    "musicgen_melody": Family(refused=_DECODER),
    "mvp": Family(refused=_DECODER),
    "nanochat": Family(_names("fc1 fc2 k_proj o_proj q_proj v_proj")),
    "nemotron": Family(_PLAIN),
    "nemotron_h": Family(
        _names("down_proj in_proj k_proj o_proj q_proj up_proj v_proj"),
        left_out=("out_proj",),
        experts=_names("experts.down_proj experts.up_proj"),
    ),
    "olmo": Family(_GATED),
    "olmo2": Family(_GATED),
    "olmo3": Family(_GATED),
    "olmo_hybrid": Family(_names("a_proj b_proj down_proj g_proj gate_proj k_proj o_proj q_proj up_proj v_proj")),
    "olmoe": Family(_ATTENTION, experts=_EXPERTS),
    "openai-gpt": Family(_GPT2, cache="none"),
    "opt": Family(_OPT),
    "ovis2": Family(_GATED),
    "paddleocr_vl": Family(_GATED),
    "paligemma": Family(refused=_PREFIX),
    "pegasus": Family(refused=_DECODER),
    "persimmon": Family(_NEOX),
    "phi": Family(_names("dense fc1 fc2 k_proj q_proj v_proj")),
    "phi3": Family(_names("down_proj gate_up_proj o_proj qkv_proj")),
    "phi4_multimodal": Family(_names("down_proj gate_up_proj o_proj qkv_proj"), left_out=("embed_tokens_extend",)),
    "phimoe": Family(_ATTENTION, experts=_EXPERTS),
    "pi0": Family(refused=_ROBOT),
    "pix2struct": Family(refused=_IMAGES),
    "plbart": Family(refused=_DECODER),
    "pp_chart2table": Family(_GATED),
    "pp_formulanet": Family(refused=_IMAGES),
    "prophetnet": Family(refused=_DECODER),
    "qianfan_ocr": Family(_GATED),
    "qwen2": Family(_GATED),
    "qwen2_5_vl": Family(_GATED),
    "qwen2_moe": Family(_GATED, experts=_EXPERTS),
    "qwen2_vl": Family(_GATED),
    "qwen3": Family(_GATED),
    "qwen3_5": Family(_QWEN_LINEAR),
    "qwen3_5_moe": Family(_QWEN_LINEAR, experts=_EXPERTS),
    "qwen3_5_moe_text": Family(_QWEN_LINEAR, experts=_EXPERTS),
    "qwen3_5_text": Family(_QWEN_LINEAR),
    "qwen3_moe": Family(_ATTENTION, experts=_EXPERTS),
    "qwen3_next": Family(
        _names("down_proj gate_proj in_proj_ba in_proj_qkvz k_proj o_proj out_proj q_proj up_proj v_proj"),
        experts=_EXPERTS,
    ),
    "qwen3_vl": Family(_GATED),
    "qwen3_vl_moe": Family(_ATTENTION, experts=_EXPERTS),
    "recurrent_gemma": Family((*_GATED, "linear_out", "linear_x", "linear_y"), cache="none"),
    "reformer": Family(refused=_LENGTHS),
    "rembert": Family(refused=_ENCODER),
    "roberta": Family(refused=_ENCODER),
    "roberta-prelayernorm": Family(refused=_ENCODER),
    "roc_bert": Family(refused=_ENCODER),
    "roformer": Family(refused=_ENCODER),
    "rwkv": Family(_names("key output receptance value"), cache="none"),
    "seed_oss": Family(_GATED),
    "shieldgemma2": Family(_GATED),
    "smollm3": Family(_GATED),
    "smolvlm": Family(_GATED),
    "solar_open": Family(_GATED, experts=_EXPERTS),
    "stablelm": Family(_GATED),
    "starcoder2": Family(_names("c_fc c_proj k_proj o_proj q_proj v_proj")),
    "t5gemma2": Family(refused=_DECODER),
    "trocr": Family(refused=_DECODER),
    "udop": Family(refused=_IMAGES),
    "unlimited_ocr": Family(_GATED, experts=_EXPERTS),
    "vaultgemma": Family(_GATED),
    "video_llama_3": Family(_GATED),
    "video_llava": Family(_GATED),
    "vipllava": Family(_GATED),
    "vision-encoder-decoder": Family(refused=_IMAGES),
    "whisper": Family(refused=_DECODER),
    "xglm": Family(_OPT),
    "xlm": Family(refused=_ENCODER),
    "xlm-roberta": Family(refused=_ENCODER),
    "xlm-roberta-xl": Family(refused=_ENCODER),
    "xlnet": Family(refused=_ENCODER),
    "xlstm": Family(
        _names("fgate_preact igate_preact k ogate_preact out_proj proj_down proj_up proj_up_gate q v"), cache="none"
    ),
    "xmod": Family(refused=_ENCODER),
    "youtu": Family(_LATENT),
    "zamba": Family(_names("down_proj gate_proj in_proj k_proj linear o_proj out_proj q_proj up_proj v_proj")),
    "zamba2": Family(
        _names("down_proj gate_up_proj in_proj k_proj linear o_proj out_proj q_proj v_proj"),
        left_out=_names("gate_up_proj_adapter_list linear_q_adapter_list linear_k_adapter_list linear_v_adapter_list"),
    ),
    "zaya": Family(
        _names("down_proj fc1 fc2 k_proj o_proj out_proj q_proj v_proj_current v_proj_delayed"), experts=_EXPERTS
    ),
}
# Published under two names: with the parts for images and sound, and as the text model inside.
FAMILIES["gemma3n"] = FAMILIES["gemma3n_text"]
FAMILIES["dots3_note"] = FAMILIES["dots3_note_text"]
