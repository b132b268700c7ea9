#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Banyan beside llama.cpp and OpenVINO GenAI, on this machine: makes docs/benchmarks.md and its plots.

    bench/side_by_side.py [--rounds 3] [--threads N] [--longest 8192] [--model FILE.gguf]

In each round every program measures every cell in turn, up to 1,024 tokens three times and once beyond, so that a slow
minute of the machine falls on all of them; a figure is the median of all its samples. llama.cpp runs with flash attention on and off, and the better of the two
medians counts. Each instruction set has its own llama.cpp, compiled for it; OpenVINO GenAI cannot be capped and is
measured with the best one only. For sequences that share a prompt llama.cpp runs with a KV cache for all (-kvu) and with
one each, and the better counts; OpenVINO GenAI caches prefixes. Needs `make build peers` and gnuplot.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

import chunk_attention
import speculation

ROOT = pathlib.Path(__file__).resolve().parent.parent
BANYAN = ROOT / "build" / "banyan"
PEERS = ROOT / "build" / "peers"
LENGTHS = (128, 512, 1024, 2048, 4096, 8192)
DEPTHS = (0, 1024, 4096, 8192)
GENERATED = 32
SHARED = {1024: (1, 4, 8, 16, 32), 4096: (1, 8, 32)}  # sequences by the tokens of the prompt that they share
GENERATED_TOGETHER = 16
NAMES = {"banyan": "Banyan", "paged": "Banyan, `--method paged`", "deterministic": "Banyan, `--deterministic`", "llama": "llama.cpp", "openvino": "OpenVINO GenAI"}
COLOURS = {"banyan": "#1b7837", "llama": "#b2182b", "openvino": "#2166ac"}  # of the plots


def progress(text):
    print(f"\r\033[K{text}" if sys.stderr.isatty() else text, end="" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)


def output(command, isa):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "BANYAN_ISA": isa}, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr[-1000:]}")
    return done.stdout


class OpenVino:
    """One process for all cells: it takes long to load."""

    def __init__(self, model, threads, *more):
        command = [PEERS / "ov" / "bin" / "python", ROOT / "bench" / "openvino_speed.py", model, str(threads), *more]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.ask({"prompt": 16})  # loaded by then, so that it does not disturb the others

    def measure(self, kind, size):
        question = {"prompt": size} if kind == "prefill" else {"depth": size, "gen": GENERATED}
        return [self.ask(question) for _ in range(repeats(size))]

    def ask(self, question):
        print(json.dumps(question), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def shape(kind, size):
    """The same words for banyan bench prefill and llama-bench."""
    return ["-p", size, "-n", 0, "-d", 0] if kind == "prefill" else ["-p", 0, "-n", GENERATED, "-d", size]


def repeats(size):
    return 3 if size <= 1024 else 1


def measure_banyan(args, isa, kind, size, *more):
    text = output([BANYAN, "bench", "prefill", "--json", "-m", args.model, "-t", args.threads, "-r", repeats(size), *shape(kind, size), *more], isa)
    return json.loads(text)["samples_ts"]


def llama_bench(isa):
    """llama.cpp for an instruction set. Its own AMX code does not run everywhere, so it is built without."""
    return PEERS / f"llama-{'avx512' if isa == 'amx' else isa}" / "bin" / "llama-bench"


def measure_llama(args, isa, kind, size, flash):
    bench = llama_bench(isa)
    # Warming up reads a prompt once more: minutes for long ones, beside which first touches of memory are little.
    warm = [] if size <= 1024 else ["--no-warmup"]
    text = output([bench, "-m", args.model, "-t", args.threads, "-r", repeats(size), "-fa", flash, "-o", "json", *warm, *shape(kind, size)], isa)
    return json.loads(text[text.index("["):])[0]["samples_ts"]


def measure_all(args, isa, with_openvino):
    """Speeds by program and cell, the medians of their samples."""
    ways = {
        "banyan": lambda kind, size: measure_banyan(args, isa, kind, size),
        "deterministic": lambda kind, size: measure_banyan(args, isa, kind, size, "--deterministic"),
        "llama, fa 0": lambda kind, size: measure_llama(args, isa, kind, size, 0),
        "llama, fa 1": lambda kind, size: measure_llama(args, isa, kind, size, 1),
    }
    openvino = OpenVino(args.model, args.threads) if with_openvino else None
    if openvino:
        ways["openvino"] = openvino.measure
    cells = [("prefill", n) for n in LENGTHS if n <= args.longest] + [("generate", n) for n in DEPTHS if n <= args.longest]
    samples = {(way, cell): [] for way in ways for cell in cells}
    for number in range(args.rounds):
        for cell in cells:
            for way, measure in ways.items():
                progress(f"{isa}: round {number + 1} of {args.rounds}, {cell[0]} {cell[1]}, {way}")
                samples[way, cell].extend(measure(*cell))
    progress("")
    if openvino:
        openvino.close()
    return cells, best_of(samples)


def measure_shared(args, isa, with_openvino):
    """Tokens a second of sequences that share a prompt, as measure_all()."""
    llama = llama_bench(isa).with_name("llama-batched-bench")
    openvino = OpenVino(args.model, args.threads, "--share") if with_openvino else None
    samples = {}
    cells = [(shared_kind(prompt), n) for prompt, numbers in SHARED.items() for n in numbers]

    def take(way, kind, rows):
        for row in rows:
            samples.setdefault((way, (kind, row["pl"])), []).append(row["speed_tg"])

    for number in range(args.rounds):
        for prompt, numbers in SHARED.items():
            kind = shared_kind(prompt)
            together = ["-npp", prompt, "-ntg", GENERATED_TOGETHER, "-npl", ",".join(map(str, numbers)), "-pps"]
            own = max(numbers) * (prompt + GENERATED_TOGETHER + 64)
            progress(f"{isa}: round {number + 1} of {args.rounds}, {kind}")
            text = output([BANYAN, "bench", "decode", "--json", "-m", args.model, "-t", args.threads, "--method", "auto,paged", *together], isa)
            rows = [json.loads(line) for line in text.splitlines()]
            take("banyan", kind, [row for row in rows if row["method"] == "auto"])
            take("paged", kind, [row for row in rows if row["method"] == "paged"])
            for way, more in (("llama, split", ["-c", own]), ("llama, unified", ["-c", prompt + max(numbers) * 64 + 512, "-kvu"])):
                text = output([llama, "-m", args.model, "-t", args.threads, "-b", 2048, "-ub", 512, "--output-format", "jsonl", *more, *together], isa)
                take(way, kind, [json.loads(line) for line in text.splitlines() if line.startswith("{")])
            for n in numbers if openvino else ():
                speed = openvino.ask({"shared": prompt, "sequences": n, "gen": GENERATED_TOGETHER})
                take("openvino", kind, [{"pl": n, "speed_tg": speed}])
    progress("")
    if openvino:
        openvino.close()
    return cells, best_of(samples)


def best_of(samples):
    """Medians by program and cell, of llama.cpp's settings the better one."""
    best = {}
    for (way, cell), values in samples.items():
        key = way.split(",")[0], cell
        best[key] = max(best.get(key, 0), statistics.median(values))
    return best


def shared_kind(prompt):
    return f"{prompt:,} tokens shared"


def axis_of(kind):
    return {"prefill": "prompt tokens", "generate": "tokens before"}.get(kind, "sequences")


def table(kind, cells, found):
    programs = [name for name in NAMES if any(way == name and cell[0] == kind for way, cell in found)]
    title = axis_of(kind)
    lines = [f"| {title} | " + " | ".join(NAMES[name] for name in programs) + " | over llama.cpp |", "|---:" * (len(programs) + 2) + "|"]
    for cell in cells:
        if cell[0] == kind:
            speeds = [found[name, cell] for name in programs]
            over = found["banyan", cell] / found["llama", cell]
            lines.append(f"| {cell[1]:,} | " + " | ".join(f"{speed:,.0f}" for speed in speeds) + f" | {over:.2f} x |")
    return "\n".join(lines)


def plot(path, kind, title, cells, found):
    programs = [name for name in COLOURS if any(way == name and cell[0] == kind for way, cell in found)]
    sizes = [size for which, size in cells if which == kind]
    blocks = ""
    for name in programs:
        rows = "\n".join(f"{place} {found[name, (kind, size)]}" for place, size in enumerate(sizes))
        blocks += f"${name} << END\n{rows}\nEND\n"
    tics = ", ".join(f'"{size:,}" {place}' for place, size in enumerate(sizes))
    curves = ", ".join(f'${name} with linespoints lw 2 pt 7 ps 0.6 lc rgb "{COLOURS[name]}" title "{NAMES[name]}"' for name in programs)
    script = f"""set terminal svg size 640,360 font "sans,12" background "#ffffff"
set output "{path}"
set title "{title}"
set xlabel "{axis_of(kind)}"
set ylabel "tokens a second"
set yrange [0:*]
set xtics ({tics})
set grid ytics lc rgb "#dddddd"
set key outside bottom center horizontal
{blocks}plot {curves}
"""
    subprocess.run(["gnuplot"], input=script, text=True, check=True)


def machine(args):
    text = output([BANYAN, "bench", "attention", "--rows", 1, "--private", 16, "--shared", 0, "--json", "-t", args.threads], os.environ.get("BANYAN_ISA", ""))
    return json.loads(text.splitlines()[0])


def main():
    parser = argparse.ArgumentParser(description="Banyan beside llama.cpp and OpenVINO GenAI")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--longest", type=int, default=8192, help="longest prompt and depth")
    parser.add_argument("--model", default="", help="GGUF file (default: Banyan's own)")
    args = parser.parse_args()
    if not args.model:
        args.model = json.loads(output([BANYAN, "inspect", "--json"], ""))["path"]
    figures = machine(args)
    best = figures["isa"]
    parts = [f"""# Benchmarks

Made by `make bench` ({args.threads} threads; medians of {3 * args.rounds} samples up to 1,024 tokens, of {args.rounds} beyond). {figures['cpu']}: memory reads {figures['bandwidth_gbps']:.1f} GB/s, \
multiply-adds {figures['peak_gflops']:.0f} GFLOP/s ({best}). Model: {pathlib.Path(args.model).name}. Tokens a second, more is better. llama.cpp at \
the better of its flash-attention settings, compiled for the instruction set named; generated are {GENERATED} tokens after the tokens before.
"""]
    for isa in dict.fromkeys((best, "avx2")):
        if not llama_bench(isa).exists():
            sys.exit(f"llama.cpp for {isa} is not there; run: BANYAN_ISA={isa} make peers")
        cells, found = measure_all(args, isa, isa == best)
        parts.append(f"\n## {isa}\n")
        for kind, title in (("prefill", "Reading a prompt"), ("generate", "Generating")):
            plot(ROOT / "docs" / f"benchmarks-{isa}-{kind}.svg", kind, f"{title} ({isa})", cells, found)
            parts.append(f"\n### {title}\n\n![{title}](benchmarks-{isa}-{kind}.svg)\n\n{table(kind, cells, found)}\n")
        cells, found = measure_shared(args, isa, isa == best)
        for prompt in SHARED:
            kind = shared_kind(prompt)
            title = f"Generating together, {kind}"
            plot(ROOT / "docs" / f"benchmarks-{isa}-shared-{prompt}.svg", kind, f"{title} ({isa})", cells, found)
            parts.append(f"\n### {title}\n\n![{title}](benchmarks-{isa}-shared-{prompt}.svg)\n\n{table(kind, cells, found)}\n")
        # What was measured so far stands, should the rest be interrupted.
        (ROOT / "docs" / "benchmarks.md").write_text("".join(parts), encoding="utf-8")
    parts.append(chunk_attention.section(args.threads))
    parts.append(speculation.section(args.threads))
    (ROOT / "docs" / "benchmarks.md").write_text("".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
