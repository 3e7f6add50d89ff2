"""New models: Llama's layers with dropout, which is transformers' Phi-3."""

from __future__ import annotations

from typing import cast

from transformers import AutoModelForCausalLM, Phi3Config, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from trainer.contract.methods.pretraining import Architecture
from trainer.engine.models.load import pick_device


def make_config(shape: Architecture, tokenizer: PreTrainedTokenizerBase) -> Phi3Config:
    """Return the configuration of a new model with tied embeddings; SwiGLU is 8/3 of the width, a multiple of 8.

    At equal size and steps this learns faster than GPT-2's layers with learned positions.
    """
    return Phi3Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=-(-shape.width * 8 // 24) * 8,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.context,
        original_max_position_embeddings=shape.context,
        resid_pdrop=shape.dropout,
        attention_dropout=shape.dropout,
        tie_word_embeddings=True,
        bos_token_id=cast(int | None, tokenizer.bos_token_id),
        eos_token_id=cast(int | None, tokenizer.eos_token_id),
        pad_token_id=cast(int | None, tokenizer.pad_token_id),
    )


def make_model(config: Phi3Config, seed: int) -> PreTrainedModel:
    """Return a model of random float32 weights, drawn from the seed, on the device."""
    set_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    model.config.use_cache = False
    return model.to(pick_device())
