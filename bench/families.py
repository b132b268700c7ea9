#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How well each family uses the machine, at equal shape: makes docs/families-speed.md.

    bench/families.py [--rounds 7] [--threads 2] [--families llama,mixtral] [--models FOLDER] [--out FILE]

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
counted: they are what a family may cost beyond its products.

A machine's speed drifts by more than families differ. So each sample of a family stands next to one of Llama, in
changing order, and what is compared is their ratio: the table has the median of these pairs and their quartiles. The
other figures are medians of all samples.
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


def measure(pair, threads):
    """Tokens a second of models that take turns, by model and cell: medians of three samples."""
    speeds = {model: {} for model in pair}
    for cells, shape in ((("prompt", "first"), ("-p", PROMPT)), (("deep",), ("-p", 0, "-d", DEPTH))):
        for model in pair:
            text = output(BANYAN, "bench", "prefill", "--json", "-m", model.path, "-t", threads, "-r", 3, "-n", GENERATED, *shape)
            for cell, line in zip(cells, text.splitlines()):
                speeds[model][cell] = statistics.median(json.loads(line)["samples_ts"])
    return speeds


def shares(model, machine, speeds):
    middle = GENERATED / 2  # tokens behind the depth, on average
    return {"prompt": speeds["prompt"] / PROMPT * model.roof_seconds(machine, PROMPT, 0),
            "first": speeds["first"] * model.roof_seconds(machine, 0, int(middle)),
            "deep": speeds["deep"] * model.roof_seconds(machine, 0, int(DEPTH + middle))}


def table(models, machine, speeds, ratios):
    heads = [f"{title}: t/s | of the roof | of Llama's" for title in CELLS.values()]
    lines = ["| family | weights | million | " + " | ".join(heads) + " |", "|---|---|---:" + "|---:" * 9 + "|"]
    short = []
    for model in models:
        found = {cell: statistics.median(sample[cell] for sample in speeds[model]) for cell in CELLS}
        own = shares(model, machine, found)
        row = [model.name, model.format, f"{model.parameters() / 1e6:.0f}"]
        for cell in CELLS:
            row += [f"{found[cell]:,.0f}", f"{own[cell]:.2f}"]
            if model not in ratios:  # Llama itself
                row.append("1")
                continue
            low, middle, high = statistics.quantiles((ratio[cell] for ratio in ratios[model]), n=4, method="inclusive")
            row.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
            if middle < ENOUGH:
                short.append(f"{model.name} ({CELLS[cell]}: {middle:.2f})")
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines), short


def main():
    parser = argparse.ArgumentParser(description="each family's share of the roof")
    parser.add_argument("--rounds", type=int, default=7, help="at least 2")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--families", default="", help="some of them, after Llama")
    parser.add_argument("--models", default="", help="a folder to keep the models in, for the next time")
    parser.add_argument("--out", default=str(ROOT / "docs" / "families-speed.md"))
    args = parser.parse_args()
    if args.rounds < 2 or args.families == "llama":
        parser.error("quartiles need two rounds, and Llama a family beside it")
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
        llamas = {model.format: model for model in models if model.name == "llama"}
        pairs = [(model, llamas[model.format]) for model in models if model.name != "llama"]
        speeds = {model: [] for model in models}
        ratios = {model: [] for model, _llama in pairs}
        for number in range(args.rounds):
            for pair in pairs:
                model = pair[0]
                print(f"round {number + 1} of {args.rounds}, {model.name} {model.format}", file=sys.stderr, flush=True)
                found = measure(pair if number % 2 == 0 else pair[::-1], args.threads)
                for each in pair:
                    speeds[each].append(found[each])
                own, base = (shares(each, machine, found[each]) for each in pair)
                ratios[model].append({cell: own[cell] / base[cell] for cell in CELLS})
    text, short = table(models, machine, speeds, ratios)
    below = f"Below {ENOUGH} of Llama's: {', '.join(short)}." if short else f"All are at {ENOUGH} of Llama's share or above."
    pathlib.Path(args.out).write_text(f"""# Speed of the families

Made by `bench/families.py`, whose head says what is counted ({args.rounds} rounds, {args.threads} threads). {machine['cpu']}, \
{machine['isa']}: memory reads {machine['bandwidth_gbps']:.1f} GB/s, multiply-adds {machine['peak_gflops']:.0f} GFLOP/s, \
{machine['peak_gexps']:.1f} billion exponentials a second. Random models of equal shape; tokens a second (t/s), their share of \
what the machine's peaks would allow, and that share over Llama's with weights of the same type, measured next to it: the median \
of {args.rounds} pairs, and their quartiles.

{text}

{below}
""", encoding="utf-8")
    print(below)


if __name__ == "__main__":
    main()
