"""TRL 1.12's PPOTrainer on the work of `ppo_memory`; runs in an environment of its own, without this project."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl.experimental.ppo import PPOConfig, PPOTrainer  # pyright: ignore[reportMissingImports] - TRL 1.12 only


def main(given: dict[str, Any]) -> None:
    """Train one iteration."""
    dtype = getattr(torch, given["dtype"])
    tokenizer: Any = AutoTokenizer.from_pretrained(given["base"], padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    rows = [
        {
            "input_ids": tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
            )
        }
        for prompt in given["prompts"]
    ]
    policy: Any = AutoModelForCausalLM.from_pretrained(given["base"], dtype=dtype)
    value, reward = (
        AutoModelForSequenceClassification.from_pretrained(given["base"], dtype=dtype, num_labels=1) for _ in range(2)
    )
    config = PPOConfig(
        output_dir=given["folder"],
        per_device_train_batch_size=given["batch"],
        gradient_accumulation_steps=given["rollout"] // given["batch"],
        num_mini_batches=1,
        num_ppo_epochs=2,
        total_episodes=given["rollout"],
        local_rollout_forward_batch_size=given["rollout"],
        response_length=given["new_tokens"],
        num_sample_generations=0,
        stop_token="eos",
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        gradient_checkpointing=False,
        save_strategy="no",
        report_to="none",
    )
    trainer = PPOTrainer(
        args=config,
        processing_class=tokenizer,
        model=policy,
        ref_model=None if given["lora"] else AutoModelForCausalLM.from_pretrained(given["base"], dtype=dtype),
        reward_model=reward,
        value_model=value,
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows),
        peft_config=None
        if given["lora"] is None
        else LoraConfig(
            r=given["lora"]["rank"],
            lora_alpha=given["lora"]["alpha"],
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )
    trainer.train()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
