#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How well each family uses the machine, at equal shape: makes docs/families-speed.md.

    bench/families.py [--rounds 3] [--threads 2] [--families llama,mixtral] [--models FOLDER] [--out FILE]

The models are tools/make-model's: 12 layers of 768, 12 heads over 4 KV heads (GPT-NeoX and OPT: over 12), a
feed-forward block of 3 x 768 x 2048 weights (without a gate 2 x 768 x 3072; Mixtral: four experts of half the size,
two of them used), 16,000 tokens: 100 million parameters. Q4_0 where the family has a GGUF file, and bf16 for those
that have none, with Llama beside them. Windows, where there are any, are of 512 tokens.

Families differ in what they have to compute and read, so speeds are not compared as they are, but shares of the roof:
the time that the machine would need at its measured peaks, over the time taken. That time is the larger of

    bytes / bandwidth    and    flops / peak + exponentials / peak of exponentials

bytes: the matrices that a token needs (of experts those used; of a prompt all), and the K and V that its layers see.
flops: 2 for each weight and row, 4 x head size for each pair of a query head and a key that it sees; of the last layer
of a prompt only K and V, and its head for one row. exponentials: one for each such pair, another where scores are
capped, and one for each output of a feed-forward block's activation but ReLU. Norms, rotations and routing are not
counted: they are what a family may cost beyond its products. In each round every family measures every cell twice, in
turn; a figure is the median of all.
"""
import argparse
import importlib.machinery
import importlib.util
import json
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
BANYAN = ROOT / "build" / "banyan"
PROMPT, GENERATED, DEPTH = 512, 24, 1024
CELLS = {"prompt": f"prompt of {PROMPT}", "first": "decode at 0", "deep": f"decode at {DEPTH:,}"}
ENOUGH = 0.9  # of Llama's share


def make_model_tool():
    """tools/make-model as a module: it knows the families and their tensors."""
    loader = importlib.machinery.SourceFileLoader("make_model", str(ROOT / "tools" / "make-model"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("make_model", loader))
    sys.modules["make_model"] = module  # dataclasses look there
    loader.exec_module(module)
    return module


MAKER = make_model_tool()


class Model:
    def __init__(self, name, folder, in_gguf):
        self.name = name
        self.family = MAKER.FAMILIES[name]
        self.path = folder / (f"{name}.gguf" if in_gguf else name)
        self.format = "Q4_0" if in_gguf else "bf16"
        options = ["--type", self.format.lower(), "--layers", "12", "--hidden", "768", "--heads", "12", "--vocab", "16000"]
        options += [] if self.family.one_kv_head_each else ["--kv-heads", "4"]
        options += ["--ffn", "1024", "--experts", "4"] if self.family.experts else \
            ["--ffn", "2048" if self.family.gated else "3072"]
        if self.family.window and (self.family.window_in_gguf or not in_gguf):
            options += ["--window", "512"]
        self.arguments = [name, str(self.path), *options]
        self.shape, kind = MAKER.resolve(MAKER.parse(self.arguments), self.family)
        self.tensors = MAKER.Layout(self.family, self.shape, kind, in_gguf).tensors

    def make(self):
        if not self.path.exists() and MAKER.main(self.arguments) != 0:
            sys.exit(1)

    def parameters(self):
        return sum(math.prod(tensor.dims) for tensor in self.tensors)

    def matrices(self, measure, experts):
        """The sum of measure(tensor) over all layers' matrices, and of the head's; `experts`: those counted."""
        used = 0
        head = 0
        for tensor in self.tensors:
            role = tensor.runs[0].name
            if len(tensor.dims) == 1 or role == "positions" or (role == "embedding" and not self.shape.tied):
                continue
            if role in ("embedding", "output"):
                head += measure(tensor)
            else:
                used += measure(tensor) * (experts / self.shape.experts if ".expert." in role else 1)
        return used, head

    def window(self, layer):
        """Keys that a row of the layer sees at most."""
        s = self.shape
        slides = {"gemma2": layer % 2 == 0, "gemma3": layer % 6 != 5}.get(self.name, True)
        return s.window if s.window and slides else math.inf

    def roof_seconds(self, machine, prompt, depth):
        """Of reading a prompt (from nothing), or of generating a token at a depth."""
        s = self.shape
        rows = prompt or 1
        first = 0 if prompt else depth
        pairs = [sum(min(p + 1, self.window(layer)) for p in range(first, first + rows)) for layer in range(s.layers)]
        every = s.experts if prompt else s.experts_used
        layer_bytes, head_bytes = self.matrices(lambda t: t.n_bytes, every or 0)
        weights, head = self.matrices(lambda t: math.prod(t.dims), s.experts_used or 0)
        kv = 2 * s.kv_heads * s.head_dim
        seen = sum(min(first + rows, self.window(layer)) for layer in range(s.layers))
        n_bytes = layer_bytes + head_bytes + 2 * kv * seen
        blocks = s.layers
        flops = 2 * weights * rows + 2 * head
        if prompt:  # the last layer gives K and V, and one row
            blocks -= 1
            flops -= 2 * rows * (weights / s.layers - kv * s.hidden)
        all_pairs = sum(pairs[:blocks]) * s.heads
        flops += 4 * s.head_dim * all_pairs
        exps = all_pairs * (2 if self.family.soft_caps else 1)
        if self.family.activation != "relu":
            exps += blocks * rows * s.ffn * (s.experts_used or 1)
        return max(n_bytes / machine["bandwidth_gbps"], flops / machine["peak_gflops"] + exps / machine["peak_gexps"]) * 1e-9


def output(*command):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr[-1000:]}")
    return done.stdout


def measure(model, threads):
    """Samples of tokens a second, by cell."""
    def rows(*shape):
        text = output(BANYAN, "bench", "prefill", "--json", "-m", model.path, "-t", threads, "-r", 2, *shape)
        return [json.loads(line)["samples_ts"] for line in text.splitlines()]
    prompt, first = rows("-p", PROMPT, "-n", GENERATED)
    deep, = rows("-p", 0, "-n", GENERATED, "-d", DEPTH)
    return {"prompt": prompt, "first": first, "deep": deep}


def shares(model, machine, speeds):
    middle = GENERATED / 2  # tokens behind the depth, on average
    return {"prompt": speeds["prompt"] / PROMPT * model.roof_seconds(machine, PROMPT, 0),
            "first": speeds["first"] * model.roof_seconds(machine, 0, int(middle)),
            "deep": speeds["deep"] * model.roof_seconds(machine, 0, int(DEPTH + middle))}


def table(models, machine, found):
    heads = [f"{title}: t/s | of the roof | of Llama's" for title in CELLS.values()]
    lines = ["| family | weights | million | " + " | ".join(heads) + " |", "|---|---|---:" + "|---:" * 9 + "|"]
    base = {}
    short = []
    for model in models:
        speeds = found[model]
        own = shares(model, machine, speeds)
        base.setdefault(model.format, own)  # Llama comes first
        row = [model.name, model.format, f"{model.parameters() / 1e6:.0f}"]
        for cell in CELLS:
            ratio = own[cell] / base[model.format][cell]
            if ratio < ENOUGH:
                short.append(f"{model.name} ({CELLS[cell]}: {ratio:.2f})")
            row += [f"{speeds[cell]:,.0f}", f"{own[cell]:.2f}", f"{ratio:.2f}"]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines), short


def main():
    parser = argparse.ArgumentParser(description="each family's share of the roof")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--families", default="", help="some of them, after Llama")
    parser.add_argument("--models", default="", help="a folder to keep the models in, for the next time")
    parser.add_argument("--out", default=str(ROOT / "docs" / "families-speed.md"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(args.models or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        names = list(dict.fromkeys(["llama", *(args.families.split(",") if args.families else MAKER.FAMILIES)]))
        # Mistral's GGUF file is Llama's.
        in_gguf = {name: bool(MAKER.FAMILIES[name].gguf) and name != "mistral" for name in names}
        models = [Model(name, folder, True) for name in names if in_gguf[name]]
        others = [name for name in names if not in_gguf[name]]
        models += [Model(name, folder, False) for name in (["llama"] if others else []) + others]
        for model in models:
            model.make()
        figures = output(BANYAN, "bench", "attention", "--rows", 1, "--private", 16, "--shared", 0, "--json", "-t", args.threads)
        machine = json.loads(figures.splitlines()[0])
        samples = {model: {cell: [] for cell in CELLS} for model in models}
        for number in range(args.rounds):
            for model in models:
                print(f"round {number + 1} of {args.rounds}, {model.name} {model.format}", file=sys.stderr, flush=True)
                for cell, speeds in measure(model, args.threads).items():
                    samples[model][cell] += speeds
    found = {model: {cell: statistics.median(all_of) for cell, all_of in cells.items()} for model, cells in samples.items()}
    text, short = table(models, machine, found)
    below = f"Below {ENOUGH} of Llama's: {', '.join(short)}." if short else f"All are at {ENOUGH} of Llama's share or above."
    pathlib.Path(args.out).write_text(f"""# Speed of the families

Made by `bench/families.py`, whose head says what is counted (medians of {args.rounds} rounds, {args.threads} threads). {machine['cpu']}, \
{machine['isa']}: memory reads {machine['bandwidth_gbps']:.1f} GB/s, multiply-adds {machine['peak_gflops']:.0f} GFLOP/s, \
{machine['peak_gexps']:.1f} billion exponentials a second. Random models of equal shape; tokens a second (t/s), their share of \
what the machine's peaks would allow, and that share over Llama's with weights of the same type.

{text}

{below}
""", encoding="utf-8")
    print(below)


if __name__ == "__main__":
    main()
