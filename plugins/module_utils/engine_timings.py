# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold one vllm engine ready and time requests through it.

This file is a program: it is run by the Python of the environment under test and imports nothing of this collection.
It reads one JSON line from standard input, makes the engine that it describes, answers with one line, and then times
the requests of each further line. Answers alone go to standard output; what vllm says goes to standard error.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time


def dummy_model(folder: str) -> str:
    """The language model of OlmOCR (Qwen2.5-VL-7B) by its dimensions alone; the weights are vllm's dummies."""
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "max_position_embeddings": 32768,
        "rope_theta": 1000000.0,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": 151643,
        "eos_token_id": 151645,
    }
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    return folder


def make_engine(request: dict):  # type: ignore[no-untyped-def]
    from vllm import LLM

    options = {
        "max_model_len": request["max_model_len"],
        "max_num_seqs": request["max_num_seqs"],
        "gpu_memory_utilization": request["gpu_memory_utilization"],
        "kv_cache_memory_bytes": request["kv_cache_memory_bytes"],
        "enable_prefix_caching": False,
        "dtype": "bfloat16",
        "seed": 0,
    }
    if request["model"]:
        # Pictures are left out: what is compared is the language model's attention and sampling.
        return LLM(model=request["model"], limit_mm_per_prompt={"image": 0, "video": 0}, **options)
    model = dummy_model(request["folder"])
    return LLM(model=model, load_format="dummy", skip_tokenizer_init=True, **options)


def timed(engine, request: dict) -> dict:  # type: ignore[no-untyped-def]
    """Send the requests at once, and wait until the last one is answered."""
    from vllm import SamplingParams

    chance = random.Random(request["seed"])  # noqa: S311
    prompts = [
        {"prompt_token_ids": [chance.randrange(1000, 150000) for _token in range(request["prompt_tokens"])]}
        for _request in range(request["requests"])
    ]
    sampling = SamplingParams(
        max_tokens=request["output_tokens"], ignore_eos=True, detokenize=False, **request["sampling"]
    )
    started = time.perf_counter()
    outputs = engine.generate(prompts, sampling, use_tqdm=False)
    seconds = time.perf_counter() - started
    tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    expected = request["requests"] * request["output_tokens"]
    if tokens != expected:
        raise ValueError(f"expected {expected} tokens, got {tokens}")
    return {"seconds": seconds, "tokens": tokens, "tokens_per_second": tokens / seconds}


def main() -> int:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    engine = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if engine is None:
                engine = make_engine(request)
                answer: dict = {"ready": True}
            else:
                answer = timed(engine, request)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:1000]}
        answers.write(json.dumps(answer) + "\n")
        if engine is None:
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
