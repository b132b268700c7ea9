#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""ChunkAttention's table of its attention kernel, with this machine's figures beside it: a part of docs/benchmarks.md.

    bench/chunk_attention.py [THREADS]

32 sequences of np tokens of which the first ns are shared, 32 heads of 128, f16. Needs `make build`.
"""
import json
import pathlib
import subprocess
import sys

BANYAN = pathlib.Path(__file__).resolve().parent.parent / "build" / "banyan"
# Microseconds on an A100, ChunkAttention (arXiv 2402.15220), table 3: PagedAttention of vLLM, ChunkAttention.
PUBLISHED = {(1024, 0): (356, 332.5), (1024, 1024): (355, 56), (2048, 0): (703, 655), (2048, 2048): (704, 110), (4096, 0): (1401, 1302), (4096, 4096): (1399.5, 206.2)}


def measure(threads, shared, private, kv_heads):
    """Milliseconds by method."""
    command = [BANYAN, "bench", "attention", "--json", "-t", threads, "--rows", 32, "--shared", shared, "--private", private, "--heads", 32,
               "--kv-heads", kv_heads, "--head-dim", 128, "--method", "auto,paged"]
    text = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, check=True).stdout
    return {row["method"]: row["ms"] for row in map(json.loads, text.splitlines()) if "method" in row}


def section(threads):
    lines = ["\n## Attention alone, as ChunkAttention measured it\n",
             "32 sequences of np tokens, the first ns of them shared; 32 heads of 128, f16, one layer. Copies: every sequence has its own KV. Paged: one",
             "copy, read for each sequence. The last columns are the speeds over copies, here and as published (A100, vLLM's PagedAttention).\n",
             "| np | ns | KV heads | copies, ms | paged, ms | auto, ms | auto over copies | published |", "|---:" * 8 + "|"]
    for kv_heads in (32, 8):
        for (prompt, shared), (paged, chunk) in PUBLISHED.items():
            if shared == 0:
                copies = measure(threads, 0, prompt, kv_heads)
            own = measure(threads, shared, prompt - shared, kv_heads) if shared else copies
            published = f"{paged / chunk:.1f} x" if kv_heads == 32 else ""
            lines.append(f"| {prompt:,} | {shared:,} | {kv_heads} | {copies['paged']:.2f} | {own['paged']:.2f} | {own['auto']:.2f} "
                         f"| {copies['paged'] / own['auto']:.1f} x | {published} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(section(sys.argv[1] if len(sys.argv) > 1 else 2))
