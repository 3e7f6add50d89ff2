"""What llama.cpp makes of a GGUF file, as JSON: `llama_cpp.py FILE CONVERSATION_JSON PROMPT_JSON`.

A program of its own, because it logs. The prompt is the conversation as a text that the template made.
"""

from __future__ import annotations

import json
import sys

import xllamacpp

if __name__ == "__main__":
    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.n_ctx = 512
    params.n_parallel = 1
    params.warmup = False
    params.cpuparams.n_threads = 1
    server = xllamacpp.Server(params)
    chat = server.handle_chat_completions({"messages": json.loads(sys.argv[2]), "max_tokens": 1})
    asked = {"prompt": json.loads(sys.argv[3]), "max_tokens": 8, "temperature": 0, "logprobs": 5, "ignore_eos": True}
    written = server.handle_completions(asked)
    tokens = written["choices"][0]["logprobs"]["content"]
    lengths = [chat["usage"]["prompt_tokens"], written["usage"]["prompt_tokens"]]
    print("RESULT", json.dumps({"prompt_tokens": lengths, "tokens": tokens}))
