#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""OpenVINO GenAI's speed on a GGUF file, for side_by_side.py; runs in the environment of `make peers`.

    openvino_speed.py MODEL.gguf THREADS [--share]

Reads lines of JSON, {"prompt": N} or {"depth": D, "gen": N}, or with --share (prefix caching) {"shared": D,
"sequences": S, "gen": N}, and answers each with tokens a second, those of all sequences together.
"""
import json
import sys
import time

import openvino_genai as genai


def main():
    model, threads = sys.argv[1:3]
    share = "--share" in sys.argv
    scheduler = genai.SchedulerConfig()
    scheduler.cache_size = 2
    scheduler.enable_prefix_caching = share
    scheduler.max_num_seqs = 64
    scheduler.max_num_batched_tokens = 512 if share else 2048
    pipe = genai.LLMPipeline(model, "CPU", scheduler_config=scheduler, INFERENCE_NUM_THREADS=int(threads))
    tokenizer = pipe.get_tokenizer()
    ids = tokenizer.encode("The river runs past old stones and new walls, and nobody asks it why. " * 700,
                           add_special_tokens=False).input_ids.data[0]

    def seconds(tokens, new, sequences=1, by_token=False):
        config = genai.GenerationConfig()
        config.ignore_eos = True
        config.apply_chat_template = False
        config.max_new_tokens = new
        text = tokenizer.decode(ids[:tokens].tolist())
        texts = [text] if not share else [f"{text} Question {i}:" for i in range(sequences)]
        started = time.perf_counter()
        result = pipe.generate(texts, config)
        if by_token:
            return result.perf_metrics.get_tpot().mean / 1000
        return time.perf_counter() - started

    seconds(256, 2)
    for line in sys.stdin:
        ask = json.loads(line)
        if "prompt" in ask:
            speed = ask["prompt"] / seconds(ask["prompt"], 1)
        elif "shared" in ask:
            depth, sequences = ask["shared"], ask["sequences"]
            seconds(depth, 1, sequences)  # into its cache
            once = min(seconds(depth, 1, sequences) for _ in range(2))
            again = min(seconds(depth, 1 + ask["gen"], sequences) for _ in range(2))
            speed = ask["gen"] * sequences / (again - once)
        else:
            # Its own clock for each token: beside a long prompt's time that of its answer is lost.
            speed = 1 / seconds(max(ask["depth"], 16), 1 + ask["gen"], by_token=True)
        print(json.dumps(speed), flush=True)


if __name__ == "__main__":
    main()
