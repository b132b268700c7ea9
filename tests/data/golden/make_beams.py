#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes llama/beams.json: the beams that Hugging Face transformers finds.

    make_beams.py FOLDER > llama/beams.json     FOLDER: model.safetensors and config.json of llama
"""

import json
import sys

import torch
import transformers

SETTINGS = [(4, 1.0, False, 12), (8, 1.0, False, 16), (3, 0.0, True, 10), (5, 2.0, "never", 10), (6, 1.0, False, 10)]
NAMES = {False: "hopeless", True: "at-once", "never": "never"}
END = 2

torch.set_num_threads(1)
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32,
                                                          attn_implementation="eager").eval()


def beams(prompt, width, penalty, early, n):
    with torch.no_grad():
        found = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                               num_beams=width, num_return_sequences=width, length_penalty=penalty,
                               early_stopping=early, max_new_tokens=n, do_sample=False, eos_token_id=END,
                               pad_token_id=0, return_dict_in_generate=True, output_scores=True)
    for tokens, score in zip(found.sequences.tolist(), found.sequences_scores.tolist()):
        tokens = tokens[len(prompt):]
        yield {"tokens": tokens[:tokens.index(END) + 1] if END in tokens else tokens, "score": round(score, 6)}


cases = []
for first in range(60):
    prompt = [3 + (first + i * 7) % 300 for i in range(12)]
    for width, penalty, early, n in SETTINGS:
        found = list(beams(prompt, width, penalty, early, n))
        # Rounding must not decide; a few plain ones, and those where a text ends.
        apart = min(a["score"] - b["score"] for a, b in zip(found, found[1:])) >= 1e-4
        if apart and (first < 2 or any(one["tokens"][-1] == END for one in found)):
            cases.append(json.dumps({"prompt": prompt, "beams": width, "length_penalty": penalty,
                                     "early_stop": NAMES[early], "max_tokens": n, "hypotheses": found},
                                    separators=(",", ":")))
what = (f"beams that generate() of transformers {transformers.__version__} (torch {torch.__version__}) finds with "
        "model.gguf's weights in f32, by make_beams.py; token 2 ends a text")
print('{"what": ' + json.dumps(what) + ',\n"cases": [\n' + ",\n".join(cases) + "\n]}")
