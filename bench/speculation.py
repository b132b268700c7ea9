#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What speculation brings, on this machine: prints a table for docs/benchmarks.md.

    bench/speculation.py [--rounds 3] [--threads 2] [--texts FOLDER] [--sets copy,poem] [--model FILE] [--draft FILE]

Sets of prompts whose answers repeat what was there (texts and code that are written again, greedily: summaries and
edits by a model that follows instructions do the same) and of prompts whose answers do not. Each prompt is answered
without speculation and with each kind of it in turns; speeds are those of generating, prompts left out. A set's ratio is
the median of its prompts' ratios, each of which is the median over rounds. Needs `make build` and the shared texts.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
BANYAN = ROOT / "build" / "banyan"
TOKENS = 128
GREEDY = ["--temp", "0"]


def again(text, shown, given):
    """A text to be written again, begun already."""
    return f"Repeat the following text exactly.\n{text[:shown]}\nThe text again:\n{text[:given]}"


def prompt_sets(texts):
    """{name: [(prompt, options)]}"""
    books = [(texts / name).read_text(encoding="utf-8") for name in ("frankenstein.txt", "war-and-peace.txt", "wikitext2-valid.txt")]
    code = [(ROOT / "src" / name).read_text(encoding="utf-8") for name in ("engine/step_time.cc", "sample/stop.cc", "base/bytes.cc")]
    tasks = ["Write a poem about a river.", "Explain how a bicycle stays upright.", "Tell me a story about a lighthouse keeper."]
    return {
        "text copied": [(again(book[20000:], 1500, 120), ["--raw", *GREEDY]) for book in books],
        "code copied": [(again(file, 1800, 150), ["--raw", *GREEDY]) for file in code],
        "text copied, --temp 0.5": [(again(book[40000:], 1500, 120), ["--raw", "--temp", "0.5", "-s", "1"]) for book in books],
        "text continued, greedy": [(book[60000:62000], ["--raw", *GREEDY]) for book in books],
        "text continued, --temp 0.9": [(book[60000:62000], ["--raw", "--temp", "0.9", "-s", "1"]) for book in books],
        "answers, greedy": [(task, GREEDY) for task in tasks],
        "answers, --temp 0.9": [(task, ["--temp", "0.9", "-s", "1"]) for task in tasks],
    }


def answer(args, prompt, options, kind):
    command = [BANYAN, "run", "--json", "-t", args.threads, "-f", prompt, "-n", TOKENS, "--ignore-eos", *options, "--spec", kind]
    command += ["-m", args.model] if args.model else []
    command += ["-md", args.draft] if args.draft and kind in ("auto", "draft") else []
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr[-1000:]}")
    return json.loads(done.stdout)


def measure(args, prompts, kinds, folder):
    """By kind: (median tokens/s, ratio to none, tokens a step, share of drafted tokens that were accepted)."""
    found = {kind: [] for kind in kinds}
    for number, (prompt, options) in enumerate(prompts):
        file = folder / f"{number}.txt"
        file.write_text(prompt, encoding="utf-8")
        rounds = []
        for turn in range(args.rounds):
            order = [kinds[(turn + i) % len(kinds)] for i in range(len(kinds))]
            rounds.append({kind: answer(args, file, options, kind) for kind in order})
        for kind in kinds:
            speeds = [one[kind]["timings"]["predicted_per_second"] for one in rounds]
            ratios = [speed / one["off"]["timings"]["predicted_per_second"] for speed, one in zip(speeds, rounds)]
            facts = rounds[-1][kind]["speculation"]
            found[kind].append((statistics.median(speeds), statistics.median(ratios), 1 + facts["accepted"] / max(1, facts["steps"]),
                                facts["accepted"] / max(1, facts["drafted"])))
    return {kind: [statistics.median(column) for column in zip(*values)] for kind, values in found.items()}


def table(args):
    kinds = ["off", "lookup", "auto"] + (["draft"] if args.draft else [])
    yield "| set | plain, tokens/s | " + " | ".join(f"{kind}, x plain | tokens a step | accepted" for kind in kinds[1:]) + " |"
    yield "|---|" + "---:|" * (1 + 3 * (len(kinds) - 1))
    with tempfile.TemporaryDirectory() as folder:
        for name, prompts in prompt_sets(args.texts).items():
            if args.sets and not any(part in name for part in args.sets.split(",")):
                continue
            if args.deterministic:
                prompts = [(prompt, [*options, "--deterministic"]) for prompt, options in prompts]
            found = measure(args, prompts, kinds, pathlib.Path(folder))
            cells = [f"{ratio:.2f} x | {steps:.2f} | {100 * share:.0f} %" for _, ratio, steps, share in list(found.values())[1:]]
            yield f"| {name} | {found['off'][0]:.0f} | " + " | ".join(cells) + " |"


def parse(words=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--texts", type=pathlib.Path, default=ROOT.parent / "shared" / "data" / "texts")
    parser.add_argument("--sets", default="", help="parts of names, separated by commas; all if empty")
    parser.add_argument("--model", default="")
    parser.add_argument("--draft", default="")
    parser.add_argument("--deterministic", action="store_true")
    return parser.parse_args(words)


def section(threads):
    """The part of docs/benchmarks.md; empty where the shared texts are not there."""
    args = parse(["--threads", str(threads)])
    if not args.texts.exists():
        return ""
    return "\n".join(["\n## Speculation\n",
                      f"{TOKENS} tokens each, medians of three prompts. Sets that are copied repeat what was there, the others do not have to.\n",
                      *table(args)]) + "\n"


if __name__ == "__main__":
    for line in table(parse()):
        print(line, flush=True)
