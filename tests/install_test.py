#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The installed library as a stranger meets it: found by CMake and by pkg-config, used from C, C++
and Python, with the answers that the program gives.

    install_test.py BUILD_FOLDER
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
MODEL = str(CACHE / "banyan" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf")
QUESTION = "What is the capital of France?"
WARNINGS = ["-pedantic", "-Wall", "-Wextra", "-Werror"]
STANDARD = {".c": ["cc", "-std=c99"], ".cc": ["c++", "-std=c++17"]}


def run(*command, **environment):
    done = subprocess.run(command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise AssertionError(f"{command} gave {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


class InstalledLibrary(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        run("cmake", "--install", BUILD, "--prefix", str(cls.folder / "first"))
        # Whoever made it may have packed it for elsewhere.
        cls.prefix = cls.folder / "prefix"
        (cls.folder / "first").rename(cls.prefix)
        cls.library = next(cls.prefix.rglob("libbanyan.so.1"))
        cls.answer = json.loads(run(str(cls.prefix / "bin" / "banyan"), "run", "--json", "--temp",
                                    "0", "-m", MODEL, "-p", QUESTION))["text"]

    def check_example(self, program):
        self.assertEqual(run(program, MODEL, QUESTION).split("\n")[0], self.answer)

    def compile(self, source):
        program = str(self.folder / (source.name + ".program"))
        flags = run("pkg-config", "--cflags", "--libs", "banyan",
                    PKG_CONFIG_PATH=str(self.library.parent / "pkgconfig")).split()
        run(*STANDARD[source.suffix], *WARNINGS, str(source), "-o", program, *flags,
            f"-Wl,-rpath,{self.library.parent}")
        return program

    def test_is_found_by_cmake(self):
        build = str(self.folder / "build")
        run("cmake", "-G", "Ninja", "-S", str(EXAMPLES), "-B", build,
            f"-DCMAKE_PREFIX_PATH={self.prefix}")
        run("cmake", "--build", build)
        self.check_example(build + "/example_c")
        self.check_example(build + "/example_cc")
        self.assertIn("\nsorted: 0123456789\n", run(build + "/sort_digits", MODEL, "7302519486"))

    def test_is_found_by_pkg_config(self):
        self.check_example(self.compile(EXAMPLES / "example.c"))
        self.check_example(self.compile(EXAMPLES / "example.cc"))

    def test_the_c_header_is_cpp_too(self):
        source = self.folder / "both.cc"
        source.write_text("#include <banyan/banyan.h>\nint main() { return !*banyan_version(); }\n")
        run(self.compile(source))

    def test_python_and_what_it_reuses(self):
        printed = run(sys.executable, str(EXAMPLES / "example.py"), MODEL, QUESTION, "And of Italy?",
                      BANYAN_LIBRARY=str(self.library)).split("\n")
        self.assertEqual(printed[0], self.answer)
        reused = [int(n) for n in re.findall(r"(\d+) of \d+ prompt tokens reused", "\n".join(printed))]
        self.assertEqual(reused[0], 0)
        self.assertGreater(reused[1], 30)

    def test_python_binding(self):
        script = """
import banyan, sys
model = banyan.Model(sys.argv[1], context=256, compute=1)
tokens = model.tokenize("The sea is wide.")
assert model.detokenize(tokens) == "The sea is wide.", tokens
embedding = model.embed(tokens, banyan.POOLING_MEAN)
assert abs(sum(x * x for x in embedding) - 1) < 1e-5
pieces = []
reply = model.generate(tokens, lambda token, text: pieces.append(text), ["."], max_tokens=50, seed=3)
assert "".join(pieces) == reply.text and "." not in reply.text, reply.text
assert len(reply.logprobs) == len(reply.tokens) <= 50
assert model.generate(tokens, lambda token, text: False).finish_reason == "cancelled"
several = model.generate(tokens, max_tokens=8, temperature=1, seed=3, n=2, best_of=3)
assert len(several.samples) == 2 and several.samples[0].text == several.text
assert several.samples[0].mean_logprob >= several.samples[1].mean_logprob
assert model.generate(tokens, max_tokens=1, salt=5).cache_why == "other_tenant"
assert model.generate(tokens, max_tokens=1, salt=5).reused_tokens == len(tokens) - 1
drafts = banyan.Model(sys.argv[1], context=256, deterministic=1,
                      speculation=banyan.SPECULATION_DRAFT, draft_model_path=sys.argv[1])
drafted = drafts.generate(tokens, max_tokens=30, temperature=0, ignore_eos=1)
assert drafted.accepted_tokens > 0 and drafted.decode_steps + drafted.accepted_tokens == 29
for call, error in ((lambda: banyan.Model("/no/such"), banyan.Error),
                    (lambda: model.generate([1] * 300), banyan.Error),
                    (lambda: model.generate(tokens, no_option=1), TypeError),
                    (lambda: model.generate(tokens, lambda *_: 1 / 0), ZeroDivisionError)):
    try:
        call()
        sys.exit("no " + error.__name__)
    except error as e:
        print(e)
"""
        printed = run(sys.executable, "-c", script, MODEL, BANYAN_LIBRARY=str(self.library),
                      PYTHONPATH=str(EXAMPLES))
        self.assertIn("/no/such", printed)
        self.assertIn("context of 256", printed)

    def test_readme(self):
        block = re.search(r"```cpp\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
        source = self.folder / "readme.cc"
        source.write_text(block.replace('"model.gguf"', json.dumps(MODEL)))
        self.assertEqual(run(self.compile(source)), self.answer + "\n")

    def test_exports_what_the_header_declares_and_nothing_else(self):
        header = (self.prefix / "include" / "banyan" / "banyan.h").read_text()
        declared = set(re.findall(r"^\w[\w *]*\b(banyan_\w+)\(", header, re.MULTILINE))
        symbols = run("nm", "--dynamic", "--defined-only", str(self.library)).split("\n")
        exported = {line.split()[2].split("@")[0] for line in symbols if line}
        self.assertGreater(len(declared), 15)
        self.assertEqual(exported, declared | {"BANYAN_1"})
        self.assertIn("libbanyan.so.1", run("objdump", "-p", str(self.library)))


if __name__ == "__main__":
    BUILD = sys.argv.pop(1)
    if not pathlib.Path(MODEL).exists():
        print(f"skipped: {MODEL} is not on this machine: make test")
        sys.exit(77)
    unittest.main(verbosity=2)
