#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""DeFT's workloads, replayed with every plan: docs/trees.md and its plot.

    bench/trees.py [THREADS] [--quick]

One layer of 32 heads of 128, f16; 32 KV heads and 8. Reasoning: the first 600 steps of a recorded tree of thoughts with its own prompt, and
200 over longer ones. Speculation: every token of a draft tree is a row. Fans: one prompt, many answers. Then blocks of several sizes, and whole steps of
the default model. --quick: 100, 60 and 15 steps. Needs `make build`, the default model (`make run`) and the traces in shared/data/traces beside the repository.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
BANYAN = ROOT / "build" / "banyan"
TRACES = ROOT.parent / "shared" / "data" / "traces"
MODEL = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "banyan" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
METHODS = ["paged", "node", "node-chunk", "flatten", "auto"]
BLOCKS = [32, 64, 128, 256, 512]
SWEPT = ["sorting, own prompt", "draft of 64 over 4,000", "fan of 30 over 4,000"]
# Attention of a whole run on an A100 with Llama-3-8B (32/8 heads), in seconds: SGLang's paged Radix attention and DeFT-Flatten (arXiv 2404.00242, table
# of attention latency).
PUBLISHED = {"sorting": (39.37, 28.41), "keyword": (3.11, 2.57), "fan of 20": (5.99, 3.47), "fan of 30": (7.30, 4.07), "fan of 50": (9.96, 5.87),
             "draft of 32": (25.73, 13.15), "draft of 64": (40.47, 16.79), "draft of 128": (76.10, 24.46), "draft of 256": (145.43, 40.56)}


def fan(folder, width):
    file = pathlib.Path(folder) / f"fan{width}.json"
    file.write_text(json.dumps({"format": "treetrace-1", "kind": "fan", "name": f"fan of {width}", "source": "made here", "prompt": 4000, "width": width, "steps": 60}))
    return file


def workloads(folder, quick):
    """Name, name of the published figure or none, arguments."""
    steps = ["--steps", "100" if quick else "600"]
    some = ["--steps", "60" if quick else "200"]
    drafts = ["--steps", "15" if quick else "20"]
    for name, file in (("sorting", "sorting128ToT"), ("keyword", "keywordToT")):
        trace = TRACES / f"{file}.trace.json"
        yield f"{name}, own prompt", name, [trace, *steps]
        for prompt in (4000, 20000):
            yield f"{name}, prompt of {prompt:,}", None, [trace, "--prompt", prompt, *some]
    for size in (32, 64, 128, 256):
        yield f"draft of {size} over 4,000", f"draft of {size}", [TRACES / "spec.trace.json", "--tree", size, "--prompt", 4000, *drafts]
    for width in (20, 30, 50):
        yield f"fan of {width} over 4,000", f"fan of {width}", [fan(folder, width), *steps]


def replay(threads, arguments, methods=METHODS):
    """Rows by method, and by method and block."""
    command = [BANYAN, "bench", "tree", *arguments, "--json", "-t", threads, "--method", ",".join(methods)]
    text = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, check=True).stdout
    rows = [row for row in map(json.loads, text.splitlines()) if "method" in row]
    return {row["method"]: row for row in rows} | {(row["method"], row["block"]): row for row in rows if "block" in row}


def per_step(row, what):
    return f"{row[what + '_ms'] / row['steps']:.2f}"


def mebibytes(row):
    return f"{row['kv_bytes'] / 2**20:,.1f}"


def line(name, published, rows):
    auto = rows["auto"]
    times = " | ".join(per_step(rows[method], "attention") for method in METHODS)
    best = min(rows[method]["attention_ms"] for method in METHODS[:-1])
    plan = 100 * auto["plan_ms"] / auto["attention_ms"]
    there = f"{PUBLISHED[published][0] / PUBLISHED[published][1]:.1f} x" if published else ""
    return (f"| {name} | {auto['steps']:,} | {times} | {rows['paged']['attention_ms'] / auto['attention_ms']:.1f} x | {best / auto['attention_ms']:.2f} x "
            f"| {plan:.1f} % | {auto['attention_ms'] / auto['roof_ms']:.1f} x | {mebibytes(auto)} | {there} |")


def plot(path, found):
    """How many times as fast as `paged`: bars of flatten and auto for each workload."""
    data = "\n".join(f'"{name}" {rows["paged"]["attention_ms"] / rows["flatten"]["attention_ms"]:.3f} {rows["paged"]["attention_ms"] / rows["auto"]["attention_ms"]:.3f}'
                     for name, rows in found.items())
    script = f"""set terminal svg size 800,420 font "sans,12" background "#ffffff"
set output "{path}"
set title "Attention of trees, times as fast as paged (32 KV heads)"
set style data histogram
set style histogram clustered gap 1
set style fill solid 0.8 noborder
set xtics rotate by -35 scale 0
set grid ytics lc rgb "#dddddd"
set yrange [0:*]
set key top left
$data << EOD
{data}
EOD
plot $data using 2:xtic(1) title "flatten (DeFT's plan)" lc rgb "#999999", $data using 3 title "auto" lc rgb "#2a7f4f"
"""
    subprocess.run(["gnuplot"], input=script, text=True, check=True)


def machine(threads):
    command = [BANYAN, "bench", "attention", "--rows", "1", "--private", "16", "--shared", "0", "--json", "-t", str(threads)]
    figures = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[0])
    return f"{figures['cpu']}, {figures['isa']}, {threads} threads."


def blocks(threads, quick, folder):
    lines = ["## Blocks", "",
             "32 heads, 8 KV heads: `node-chunk` and `flatten` with blocks of so many positions (DeFT's are of 128), and `auto` in turns with them. Milliseconds of",
             "attention a step.",
             "", "| workload | method | " + " | ".join(map(str, BLOCKS)) + " | auto |", "|---|---|" + "---:|" * (len(BLOCKS) + 1)]
    for name, _, arguments in workloads(folder, quick):
        if name not in SWEPT:
            continue
        rows = replay(threads, [*arguments, "--block", ",".join(map(str, BLOCKS))], ["node-chunk", "flatten", "auto"])
        for method in ("node-chunk", "flatten"):
            times = " | ".join(per_step(rows[method, block], "attention") for block in BLOCKS)
            lines.append(f"| {name} | {method} | {times} | {per_step(rows['auto'], 'attention')} |")
            print(lines[-1], file=sys.stderr)
    return [*lines, ""]


def whole_steps(threads):
    arguments = [TRACES / "keywordToT.trace.json", "--tree", "0,1,2", "--prompt", 4000, "--steps", 40, "-m", MODEL]
    rows = replay(threads, arguments)
    lines = ["## Whole steps", "",
             f"Three trees of the keyword workload side by side, each over a prompt of 4,000, with {MODEL.name}: milliseconds a step of all that the model does. KV: MiB of",
             "panels at the peak, which no plan changes.",
             "", "| method | step | attention | products | plan | KV | paged over it |", "|---|" + "---:|" * 6]
    for method in METHODS:
        row = rows[method]
        times = " | ".join(per_step(row, what) for what in ("step", "attention", "weights", "plan"))
        lines.append(f"| {method} | {times} | {mebibytes(row)} | {rows['paged']['step_ms'] / row['step_ms']:.2f} x |")
        print(lines[-1], file=sys.stderr)
    return [*lines, ""]


def section(threads, quick):
    lines = ["# Attention of trees", "",
             "Made by `bench/trees.py`. DeFT's workloads (arXiv 2404.00242): one layer, 32 heads of 128, f16; milliseconds of attention a step, every plan on the same",
             "tree in turns, all by our executor, which packs the heads of a KV head for `paged` too. Plan: the time `auto` plans in, against its attention. Roof: `auto`'s",
             "time against the least that this machine needs. KV: MiB of panels at the peak. Published: DeFT-Flatten's attention against SGLang's paged one on an A100.",
             "One run a row: where others use the machine too, a row may be off by a third.",
             machine(threads), ""]
    with tempfile.TemporaryDirectory() as folder:
        for kv_heads in (32, 8):
            found = {}
            lines += [f"## {kv_heads} KV heads", ""]
            if kv_heads == 32:
                lines += ["![Times as fast as paged](trees.svg)", ""]
            lines += ["| workload | steps | " + " | ".join(METHODS) + " | auto over paged | auto over the best other | plan | over the roof | KV | published |",
                      "|---|" + "---:|" * (len(METHODS) + 7)]
            for name, published, arguments in workloads(folder, quick):
                found[name] = replay(threads, [*arguments, "--kv-heads", kv_heads])
                lines.append(line(name, published if kv_heads == 8 else None, found[name]))
                print(lines[-1], file=sys.stderr)
            lines.append("")
            if kv_heads == 32:
                plot(ROOT / "docs" / "trees.svg", found)
        lines += blocks(threads, quick, folder)
    lines += whole_steps(threads)
    return "\n".join(lines)


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--quick"]
    (ROOT / "docs" / "trees.md").write_text(section(words[0] if words else 2, "--quick" in sys.argv))
