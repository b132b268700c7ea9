#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the tokenizer.json files of this folder and what Hugging Face's tokenizers says to TEXTS.

Needs tokenizers 0.23.3 and sentencepiece 0.2.3 (for a small charsmap). NAME.json is a whole
tokenizer; expected.json holds, for each, the ids of every text with its special tokens recognised
and, unless the library finds special tokens in plain text, without.
"""

import json
import pathlib
import random
import tempfile

import sentencepiece
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers,
                        pre_tokenizers, processors, trainers)

FOLDER = pathlib.Path(__file__).resolve().parent
GPT4 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+")
NO_HAN = r"[\p{L}\p{M}&&[^\p{Han}]]+|[\p{Han}\d]+|[^\w\s]|\s"
CORPUS = ["The banyan grows roots from its branches, and its roots become trunks.",
          "One tree looks like a whole wood; travellers have camped under one for 200 years.",
          "Prompts that begin alike share their beginning, as branches share a trunk.",
          "It's said that there's shade for 20,000 people under the largest of them.",
          "Der Baum wächst, die Wurzeln hängen; l'été, où les forêts dorment à l'ombre.",
          "Дерево растёт, корни становятся стволами. 树上长树，根成干。",
          "def grow(tree):\n    return [root for branch in tree for root in branch.roots]\n"] * 8
BITS = ["a", "Z", "é", "e\u0301", "Ж", "中", "文", "が", "か\u3099", "ก็", "한", "ᄒ", "ᅡ", "ᆫ", "\u0301",
        "\u0323", "1", "23", "٣", "½", "²", " ", "  ", "\n", "\r\n", "\t", "\u3000", "\u0085", "\u00a0",
        "'s", "'S", "'", ".", "…", "€", "🌳", "👩‍👩‍👧", "🇩🇪", "-", "_", "<", "\u200b", "ﬁ", "Å", "ſ",
        "İ", "ς", "ß", "ﷺ", "<mask>", " <mask> ", "<s>", "</s>", "<think>", "Root", "root", "tree",
        "branches", " the", "12345678", "▁", "\ufeff", "x\u0328\u0301\u0302", "ab", "ﬀ"]


def make_texts():
    chooser = random.Random(11)
    texts = CORPUS[:7] + ["", " ", "  two spaces", "ends in space ", "\n\n\n", "don't DON'T"]
    for _ in range(140):
        texts.append("".join(chooser.choice(BITS) for _ in range(chooser.randrange(1, 14))))
    return texts


def special(text, **options):
    return AddedToken(text, special=True, normalized=False, **options)


def byte_level():
    made = Tokenizer(models.BPE(ignore_merges=True))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(GPT4), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=420, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    made.add_special_tokens([special("<s>"), special("</s>"), special("<mask>", lstrip=True)])
    made.add_tokens([AddedToken("<think>", normalized=False, rstrip=True),
                     AddedToken("root", single_word=True), AddedToken("ab", normalized=True)])
    made.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<s> $A", special_tokens=[
            ("<s>", made.token_to_id("<s>"))])])
    return made


def byte_level_pieces():
    """Steps one after another, with every way to treat a match."""
    made = byte_level()
    made.normalizer = normalizers.Sequence([
        normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase(),
        normalizers.Replace(Regex(r"\s{2,}"), " "), normalizers.Replace("ß", "ss"),
        normalizers.Strip()])
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.Split("e", "merged_with_previous"),
        pre_tokenizers.Split(Regex("[aou]"), "merged_with_next"),
        pre_tokenizers.Split("!", "removed"), pre_tokenizers.Punctuation("contiguous"),
        pre_tokenizers.Split(Regex(NO_HAN), "isolated"),
        pre_tokenizers.Split(Regex(r"\p{L}+"), "contiguous", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return made


def characters():
    """As Llama 2's: spaces as U+2581, one put first, bytes for what has no token."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(" ", 1, 0)])
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    split = [line.replace(" ", "▁") for line in CORPUS]
    helper = Tokenizer(models.BPE())
    helper.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    helper.train_from_iterator(split, trainers.BpeTrainer(
        vocab_size=260, show_progress=False, limit_alphabet=60, max_token_length=12))
    model = json.loads(helper.to_str())["model"]
    ids = {token: i for i, token in enumerate(tokens)}
    for token in sorted(model["vocab"], key=model["vocab"].get):
        ids.setdefault(token, len(ids))
    made.model = models.BPE(vocab=ids, merges=[tuple(merge) for merge in model["merges"]],
                            unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    made.add_special_tokens([special("<unk>"), special("<s>"), special("</s>", rstrip=True)])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return made


def unknown_characters():
    """Without bytes: characters are unknown, and with Metaspace at the start only."""
    made = characters()
    tree = json.loads(made.to_str())
    tree["model"]["byte_fallback"] = False
    tree["normalizer"] = {"type": "NFKC"}
    tree["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first",
                             "split": True}
    tree["decoder"] = tree["pre_tokenizer"]
    return Tokenizer.from_str(json.dumps(tree))


def small_charsmap():
    """What sentencepiece compiles of a few rules."""
    rules = {"ﬁ": "fi", "ﬀ": "ff", "½": "1/2", "e\u0301": "é", "\u212b": "\u00c5", "\u3000": " ", "\u00a0": " ",
             "\t": " ", "\n": " ", "\r": " ", "²": "2", "\u200b": " ", "ᄒ\u1161\u11ab": "한", "…": "...",
             "A\u030a": "\u00c5", "x\u0328": "ᶍ"}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "rules.tsv"
        path.write_text("".join(
            " ".join(f"{ord(c):X}" for c in key) + "\t" + " ".join(f"{ord(c):X}" for c in value)
            + "\n" for key, value in rules.items()), encoding="utf-8")
        text = pathlib.Path(folder) / "text"
        text.write_text("\n".join(CORPUS), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(text), model_prefix=folder + "/m", vocab_size=150, minloglevel=2,
            normalization_rule_tsv=str(path), hard_vocab_limit=False)
        from sentencepiece import sentencepiece_model_pb2
        proto = sentencepiece_model_pb2.ModelProto()
        proto.ParseFromString((pathlib.Path(folder) / "m.model").read_bytes())
    return proto.normalizer_spec.precompiled_charsmap


def unigram():
    """As XLM-RoBERTa's."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Precompiled(small_charsmap())
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    made.decoder = decoders.Metaspace()
    made.train_from_iterator(CORPUS, trainers.UnigramTrainer(
        vocab_size=300, show_progress=False, unk_token="<unk>",
        special_tokens=["<unk>", "<s>", "</s>", "<mask>"]))
    made.add_special_tokens([special("<mask>", lstrip=True)])
    made.add_tokens([AddedToken("<think>", normalized=False)])
    return made


def unigram_bytes():
    tree = json.loads(unigram().to_str())
    n_scored = len(tree["model"]["vocab"])
    tree["added_tokens"] = [token for token in tree["added_tokens"] if token["id"] < n_scored]
    tree["model"]["vocab"] += [[f"<0x{byte:02X}>", -20.0] for byte in range(256)]
    tree["model"]["byte_fallback"] = True
    tree["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Nmt"}, {"type": "NFKD"},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]}
    tree["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always",
                             "split": True}
    return Tokenizer.from_str(json.dumps(tree))


def main():
    texts = make_texts()
    expected = {"texts": texts, "ids": {}}
    for make in (byte_level, byte_level_pieces, characters, unknown_characters, unigram,
                 unigram_bytes):
        made = make()
        tree = json.loads(made.to_str())
        if make is byte_level_pieces:  # the old way to write merges
            tree["model"]["merges"] = [" ".join(merge) for merge in tree["model"]["merges"]]
        path = FOLDER / f"{make.__name__}.json"
        path.write_text(json.dumps(tree, ensure_ascii=False, separators=(",", ":")) + "\n",
                        encoding="utf-8")
        made = Tokenizer.from_file(str(path))
        ids = {}
        for way in ("parse", "plain"):
            if way == "plain" and make in (unigram, unigram_bytes):
                continue
            made.encode_special_tokens = way == "plain"
            ids[way] = [made.encode(text, add_special_tokens=False).ids for text in texts]
        expected["ids"][make.__name__] = ids
    (FOLDER / "expected.json").write_text(
        json.dumps(expected, ensure_ascii=True, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
