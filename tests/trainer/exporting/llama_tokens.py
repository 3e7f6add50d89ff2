"""What llama.cpp makes of a GGUF file, as JSON: its tokens of texts, and its best tokens after ids.

A program of its own, because it logs. Standard input has `file`, `messages`, `texts`, the ids of `prompt`, and
the `lengths` of its beginnings to take.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from typing import Any

import xllamacpp

if __name__ == "__main__":
    question = json.load(sys.stdin)
    params = xllamacpp.CommonParams()
    params.model.path = question["file"]
    params.n_ctx = 512
    params.n_parallel = 1
    params.warmup = False
    params.cpuparams.n_threads = 1
    # Attention in 16 bits would hide small faults.
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server = xllamacpp.Server(params)

    def find_tokens(text: str) -> list[int]:
        body = json.dumps({"content": text, "add_special": False, "parse_special": True}).encode()
        request = urllib.request.Request(
            f"{server.listening_address}/tokenize", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)["tokens"]

    chat = server.handle_chat_completions({"messages": question["messages"], "max_tokens": 1})
    scores: list[dict[int, float] | None] = []
    for length in question["lengths"]:
        prompt = question["prompt"][:length]
        request: dict[str, Any] = {"prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": 40}
        answer = server.handle_completions(request)["choices"][0]["logprobs"]
        # Of a best token that is a part of a character, its server says nothing.
        scores.append(answer and {token["id"]: token["logprob"] for token in answer["content"][0]["top_logprobs"]})
    result = {
        "chat_tokens": chat["usage"]["prompt_tokens"],
        "texts": [find_tokens(text) for text in question["texts"]],
        "scores": scores,
    }
    print("RESULT", json.dumps(result))
