# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start vllm with dummy weights at the dimensions of OlmOCR's language model and answer 20 requests, twice.

    python tests/gpu/start_vllm.py FOLDER

Run by the Python of an activated environment. FOLDER gets the model's config.json; no weights, no tokenizer.
The last line is RESULT and what was measured; the log lines of vllm before it say which backend it used.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

# Qwen2.5-VL-7B's language model.
CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "use_cache": True,
}
LOADS = {"temperature": {"temperature": 0.1}, "top-k 50, top-p 0.9": {"temperature": 0.8, "top_k": 50, "top_p": 0.9}}
REQUESTS, PROMPT_TOKENS, OUTPUT_TOKENS = 20, 2000, 64


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    began = time.monotonic()
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    engine = LLM(
        model=str(folder),
        load_format="dummy",
        skip_tokenizer_init=True,
        max_model_len=8192,
        gpu_memory_utilization=0.6,
    )
    result: dict = {"ready_seconds": round(time.monotonic() - began, 1)}
    result["sampler"] = os.environ.get("VLLM_USE_FLASHINFER_SAMPLER")
    prompts = [
        TokensPrompt(prompt_token_ids=[(7 * place + 13 * request) % 150000 for place in range(PROMPT_TOKENS)])
        for request in range(REQUESTS)
    ]
    for name, sampling in LOADS.items():
        parameters = SamplingParams(max_tokens=OUTPUT_TOKENS, ignore_eos=True, detokenize=False, **sampling)
        started = time.monotonic()
        replies = engine.generate(prompts, parameters, use_tqdm=False)
        tokens = sum(len(reply.outputs[0].token_ids) for reply in replies)
        result[name] = {"tokens": tokens, "seconds": round(time.monotonic() - started, 2)}
    sys.stdout.write(f"RESULT {json.dumps(result)}\n")


if __name__ == "__main__":
    main()
