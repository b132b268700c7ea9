// SPDX-License-Identifier: Apache-2.0
// tokenizer.json files against what Hugging Face's tokenizers says to them, and hostile ones.

#include "text/tokenizer_json.h"

#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>

#include "text/testing_vocabulary.h"

namespace banyan {
namespace {

using nlohmann::json;

const std::string kFolder = BANYAN_TEST_DATA "/tokenizers/";

Vocabulary parse_or_fail(const std::string& text) {
  auto vocabulary = parse_tokenizer_json(text);
  EXPECT_TRUE(vocabulary.has_value()) << vocabulary.error().message;
  if (!vocabulary) std::abort();
  return *std::move(vocabulary);
}

class GoldenTokenizers : public testing::TestWithParam<const char*> {};

TEST_P(GoldenTokenizers, GiveTheTokensThatHuggingFacesLibraryGives) {
  const json golden = json::parse(read_file(kFolder + "expected.json"));
  const Tokenizer tokenizer =
      create_or_fail(parse_or_fail(read_file(kFolder + GetParam() + ".json")));
  const json& ids = golden["ids"][GetParam()];
  ASSERT_TRUE(ids.contains("parse"));
  for (const auto& [way, lists] : ids.items()) {
    const Special special = way == "parse" ? Special::kParse : Special::kPlain;
    ASSERT_EQ(lists.size(), golden["texts"].size());
    for (size_t i = 0; i < lists.size(); ++i) {
      const auto text = golden["texts"][i].get<std::string>();
      EXPECT_EQ(*tokenizer.encode(text, special), lists[i].get<std::vector<TokenId>>())
          << way << ": " << text;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, GoldenTokenizers,
                         testing::Values("byte_level", "byte_level_pieces", "characters",
                                         "unknown_characters", "unigram", "unigram_bytes"),
                         [](const auto& kind) { return std::string(kind.param); });

TEST(TokenizerJson, TextsComeBackFromThoseThatLoseNothing) {
  const json golden = json::parse(read_file(kFolder + "expected.json"));
  const Tokenizer characters =
      create_or_fail(parse_or_fail(read_file(kFolder + "characters.json")));
  json bytes_json = json::parse(read_file(kFolder + "byte_level.json"));
  bytes_json["normalizer"] = nullptr;
  const Tokenizer bytes = create_or_fail(parse_or_fail(bytes_json.dump()));
  for (const json& entry : golden["texts"]) {
    const auto text = entry.get<std::string>();
    if (text.find("▁") == std::string::npos) {  // which is a space, too
      EXPECT_EQ(characters.decode(*characters.encode(text, Special::kPlain), Special::kPlain),
                text);
    }
    if (text.find("<think>") == std::string::npos) {  // takes white space along
      EXPECT_EQ(bytes.decode(*bytes.encode(text, Special::kPlain), Special::kPlain), text);
    }
  }
  for (const std::string odd : {"\xFF", "a\xC3", "\xE2\x82 b", "\xF0\x9F\x8C"}) {
    EXPECT_EQ(characters.decode(*characters.encode(odd, Special::kPlain), Special::kPlain), odd);
    EXPECT_EQ(bytes.decode(*bytes.encode(odd, Special::kPlain), Special::kPlain), odd);
  }
}

TEST(TokenizerJson, TokensLeftOutAreAsIfTheyHadNeverBeen) {
  constexpr size_t kKept = 400;  // of 420, each the join of a merge, and six added ones
  const json golden = json::parse(read_file(kFolder + "expected.json"));
  json smaller = json::parse(read_file(kFolder + "byte_level.json"));
  const Tokenizer whole = create_or_fail(parse_or_fail(smaller.dump()));
  Vocabulary cut = parse_or_fail(smaller.dump());
  keep_first_tokens(cut, cut.tokens.size());
  EXPECT_EQ(create_or_fail(std::move(cut)).size(), whole.size());
  cut = parse_or_fail(smaller.dump());
  cut.eos = 421;
  keep_first_tokens(cut, kKept);
  EXPECT_EQ(cut.eos, -1);
  const Tokenizer tokenizer = create_or_fail(std::move(cut));
  EXPECT_EQ(tokenizer.size(), static_cast<int32_t>(kKept));

  json& vocab = smaller["model"]["vocab"];
  for (auto it = vocab.begin(); it != vocab.end();) {
    it = it.value().get<size_t>() >= kKept ? vocab.erase(it) : std::next(it);
  }
  json& merges = smaller["model"]["merges"];
  for (size_t id = kKept; id < 420; ++id) merges.erase(merges.size() - 1);
  smaller["added_tokens"] = json::array();
  smaller["post_processor"] = nullptr;
  const Tokenizer want = create_or_fail(parse_or_fail(smaller.dump()));
  size_t n_different = 0;
  for (const json& entry : golden["texts"]) {
    const auto text = entry.get<std::string>();
    EXPECT_EQ(*tokenizer.encode(text, Special::kParse), *want.encode(text, Special::kParse))
        << text;
    n_different += *whole.encode(text, Special::kPlain) != *want.encode(text, Special::kPlain);
  }
  EXPECT_GT(n_different, 0U);
}

TEST(TokenizerJson, SaysWhichTokensBeginAndEndATextAndWhatTheyAre) {
  const Vocabulary v = parse_or_fail(read_file(kFolder + "characters.json"));
  EXPECT_TRUE(v.add_bos && v.add_eos);
  EXPECT_EQ(v.bos, 1);
  EXPECT_EQ(v.eos, 2);
  EXPECT_EQ(v.unk, 0);
  EXPECT_EQ(v.types[0], TokenType::kUnknown);
  EXPECT_EQ(v.types[1], TokenType::kControl);
  EXPECT_EQ(v.types[3], TokenType::kByte);
  const Tokenizer t = create_or_fail(v);
  EXPECT_TRUE(t.is_end(2));
  EXPECT_EQ(t.decode(*t.encode("<s>The tree", Special::kParse), Special::kParse), "<s>The tree");
}

TEST(TokenizerJson, PhiThreesOwnFileGivesLlamaCppsVectors) {
  const std::string data = BANYAN_SHARED_DATA "/tokenizers/";
  const std::string vectors = data + "llama.cpp-vectors/ggml-vocab-phi-3.gguf";
  if (!std::filesystem::exists(data + "phi3/tokenizer.json")) {
    GTEST_SKIP() << data << "phi3/tokenizer.json is not on this machine.";
  }
  const Tokenizer t = create_or_fail(parse_or_fail(read_file(data + "phi3/tokenizer.json")));
  const std::string inputs = read_file(vectors + ".inp");
  std::istringstream outputs(read_file(vectors + ".out"));
  const std::string border = "\n__ggml_vocab_test__\n";
  int n = 0;
  for (size_t at = 0, end = 0; (end = inputs.find(border, at)) != std::string::npos; ++n) {
    std::string line;
    ASSERT_TRUE(std::getline(outputs, line));
    std::istringstream stream(line);
    const std::vector<TokenId> ids{std::istream_iterator<TokenId>(stream), {}};
    EXPECT_EQ(*t.encode(inputs.substr(at, end - at), Special::kPlain), ids);
    at = end + border.size();
  }
  EXPECT_GT(n, 30);
}

TEST(TokenizerJson, ConfigurationsAddTokensAndTheTemplate) {
  Vocabulary v = parse_or_fail(read_file(kFolder + "byte_level.json"));
  ASSERT_TRUE(apply_tokenizer_config(
      R"({"eos_token": {"content": "</s>"}, "bos_token": "<s>", "pad_token": null,
          "add_bos_token": false, "chat_template": [{"name": "tool_use", "template": "t"},
          {"name": "default", "template": "{{ messages }}"}]})",
      v));
  const auto id = [&v](const char* text) {
    return std::find(v.tokens.begin(), v.tokens.end(), text) - v.tokens.begin();
  };
  EXPECT_EQ(v.eos, id("</s>"));
  EXPECT_EQ(v.bos, id("<s>"));
  EXPECT_FALSE(v.add_bos);
  EXPECT_EQ(v.chat_template, "{{ messages }}");
  const TokenId mask = static_cast<TokenId>(id("<mask>"));
  ASSERT_TRUE(apply_generation_config(
      "{\"eos_token_id\": [" + std::to_string(v.eos) + "," + std::to_string(mask) + ",9999999]}",
      v));
  EXPECT_EQ(v.more_ends, std::vector<TokenId>{mask});
  ASSERT_TRUE(apply_chat_template_json(R"({"chat_template": "other"})", v));
  EXPECT_EQ(v.chat_template, "other");
  EXPECT_TRUE(create_or_fail(v).is_end(mask));
}

TEST(TokenizerJson, VocabAndMergesAreByteLevelBpe) {
  auto v = parse_vocab_and_merges(R"({"a": 0, "b": 1, "ab": 2, "Ġ": 3, "Ġab": 4, "</s>": 5})",
                                  "#version: 0.2\na b\nĠ ab\n");
  ASSERT_TRUE(v.has_value()) << v.error().message;
  ASSERT_TRUE(apply_tokenizer_config(R"({"eos_token": "</s>", "bos_token": "</s>",
      "add_bos_token": true, "added_tokens_decoder": {"6": {"content": "<x>", "special": true},
      "5": {"content": "</s>", "special": true}}})",
                                     *v));
  EXPECT_TRUE(v->add_bos);
  const Tokenizer t = create_or_fail(*v);
  EXPECT_EQ(*t.encode("ab ab</s><x>", Special::kParse), (std::vector<TokenId>{2, 4, 5, 6}));
  EXPECT_FALSE(parse_vocab_and_merges(R"({"a": 0, "b": 0})", "").has_value());
  EXPECT_FALSE(parse_vocab_and_merges(R"({"a": 7})", "").has_value());
  EXPECT_FALSE(parse_vocab_and_merges("[1]", "").has_value());
}

// ---- hostile

std::string repeat(std::string_view unit, size_t n) {
  std::string text;
  for (; n > 0; --n) text += unit;
  return text;
}

std::string message_of(const std::string& text) {
  auto vocabulary = parse_tokenizer_json(text);
  if (!vocabulary) {
    EXPECT_EQ(vocabulary.error().code, ErrorCode::kBadInput);
    return vocabulary.error().message;
  }
  const auto tokenizer = Tokenizer::create(*std::move(vocabulary));
  return tokenizer ? "created" : tokenizer.error().message;
}

TEST(HostileTokenizerJson, WhatIsNotJsonIsASentence) {
  EXPECT_EQ(message_of(""), "it is not valid JSON at byte 1");
  EXPECT_EQ(message_of("[1, 2]"), "it is not a JSON object");
  EXPECT_EQ(message_of("7"), "it is not a JSON object");
  EXPECT_EQ(message_of("{}"), "it has no \"model\"");
  EXPECT_EQ(message_of(R"({"model": {"vocab": {"a": 0}, "vocab": {"b": 1}}})"),
            "it has the key 'vocab' twice");
  EXPECT_EQ(message_of(R"({"model": {}, "model": {}})"), "it has the key 'model' twice");
}

TEST(HostileTokenizerJson, DepthAndNumberOfValuesAreBounded) {
  const std::string deep = "it nests deeper than 64 levels";
  EXPECT_EQ(message_of(repeat("[", 1'000'000)), deep);
  EXPECT_EQ(message_of(repeat("{\"a\":", 1'000'000)), deep);
  EXPECT_EQ(message_of("{\"model\": {\"vocab\": " + repeat("[", 1'000'000)),
            "its vocabulary has an entry that is neither \"text\": id nor [text, score]");
  EXPECT_EQ(message_of("{\"normalizer\": " + repeat("{\"normalizers\":[", 1'000'000)), deep);
  EXPECT_EQ(message_of("{\"a\": [" + repeat("0,", 1'100'000) + "0]}"),
            "it has more than 1048576 values");
}

// A whole tokenizer with a change.
std::string changed(const char* kind, const std::function<void(json&)>& change) {
  json tree = json::parse(read_file(kFolder + kind + ".json"));
  change(tree);
  return message_of(tree.dump());
}

TEST(HostileTokenizerJson, VocabulariesThatCannotBeAreRefused) {
  const auto vocab = [](const std::function<void(json&)>& change) {
    return changed("byte_level", [&](json& tree) { change(tree["model"]["vocab"]); });
  };
  EXPECT_EQ(vocab([](json&) {}), "created");
  EXPECT_EQ(vocab([](json& v) { v["a"] = uint64_t{1} << 62; }),
            "the id 4611686018427387904 of its token 'a' is not between 0 and 2^24");
  EXPECT_EQ(vocab([](json& v) { v["a"] = ~uint64_t{0}; }),
            "the id 9223372036854775807 of its token 'a' is not between 0 and 2^24");
  EXPECT_EQ(vocab([](json& v) { v["a"] = -1; }),
            "the id -1 of its token 'a' is not between 0 and 2^24");
  EXPECT_EQ(vocab([](json& v) { v["a"] = 16'000'000; }),
            "the id 16000000 of its token 'a' leaves more than 2^20 ids without a token");
  EXPECT_EQ(
      vocab([](json& v) { v["a"] = v["b"]; }),
      "its tokens 'a' and 'b' have the same id " +
          std::to_string(json::parse(read_file(kFolder + "byte_level.json"))["model"]["vocab"]["b"]
                             .get<int>()));
  const std::string wrong =
      "its vocabulary has an entry that is neither \"text\": id nor [text, score]";
  EXPECT_EQ(vocab([](json& v) { v["a"] = "x"; }), wrong);
  EXPECT_EQ(vocab([](json& v) { v["a"] = 1.5; }), wrong);
  EXPECT_EQ(vocab([](json& v) { v["a"] = json::array(); }), wrong);
  EXPECT_EQ(vocab([](json& v) { v = json::array({1}); }), wrong);
  EXPECT_EQ(vocab([](json& v) { v = json::array({json::array({"a", 1, 2})}); }), wrong);
  EXPECT_EQ(vocab([](json& v) { v = json::object(); }),
            "its \"vocab\" is not an object of \"text\": id");
  EXPECT_EQ(vocab([](json& v) { v = 7; }), "its \"vocab\" is not an object of \"text\": id");
  EXPECT_EQ(message_of(R"({"model": {"type": "BPE", "vocab": {"a": 0, "a": 1}, "merges": []}})"),
            "its token 'a' stands there twice");
}

TEST(TokenizerJson, WithoutMergesWordsThatAreNoTokensAreBytes) {
  json bytes = json::parse(read_file(kFolder + "byte_level.json"));
  bytes["model"]["merges"] = json::array();
  const Tokenizer tokenizer = create_or_fail(parse_or_fail(bytes.dump()));
  // Hugging Face's tokenizers 0.23.3
  EXPECT_EQ(*tokenizer.encode("the tree é", Special::kPlain),
            (std::vector<TokenId>{83, 71, 68, 324, 220, 127, 102}));
}

TEST(HostileTokenizerJson, MergesThatCannotBeAreRefused) {
  const auto merges = [](const std::function<void(json&)>& change) {
    return changed("byte_level", [&](json& tree) { change(tree["model"]["merges"]); });
  };
  for (const json& none : {json(5), json(nullptr), json(""), json::object()}) {
    EXPECT_EQ(merges([&](json& m) { m = none; }), "it has no merges") << none;
  }
  EXPECT_EQ(changed("byte_level", [](json& tree) { tree["model"].erase("merges"); }),
            "it has no merges");
  EXPECT_EQ(merges([](json& m) {
              m[0] = json::array({"a", "nope"});
            }),
            "its merge 0 needs 'nope', which is no token");
  EXPECT_EQ(merges([](json& m) { m[1] = json::array({"", "a"}); }), "its merge 1 is not two words");
  const std::string wrong =
      "its merges have an entry that is neither \"left right\" nor [left, right]";
  EXPECT_EQ(merges([](json& m) { m[1] = json::array({"a"}); }), wrong);
  EXPECT_EQ(merges([](json& m) { m[1] = json::array({"a", "b", "c"}); }), wrong);
  EXPECT_EQ(merges([](json& m) { m[1] = "a b"; }), wrong);  // two styles
  EXPECT_EQ(merges([](json& m) { m[1] = 1; }), wrong);
  EXPECT_EQ(merges([](json& m) { m[1] = json::object(); }), wrong);
}

TEST(HostileTokenizerJson, PartsThatAreMalformedOrNotSupportedAreNamed) {
  const auto part = [](const char* key, const json& value) {
    return changed("byte_level", [&](json& tree) { tree[key] = value; });
  };
  EXPECT_EQ(part("normalizer", 5), "its \"normalizer\" is not an object");
  EXPECT_EQ(part("normalizer", {{"type", "BertNormalizer"}}),
            "its normalizer 'BertNormalizer' is not supported");
  EXPECT_EQ(part("normalizer", {{"type", 5}}), "its \"type\" is not a string");
  EXPECT_EQ(part("normalizer", {{"type", "Sequence"}}),
            "its \"normalizers\" is not a list of objects");
  const json grow = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aaaaaaaaa"}};
  EXPECT_EQ(part("normalizer", {{"type", "Sequence"}, {"normalizers", {grow, grow}}}),
            "its normalizer could make a text more than 64 times as long");
  EXPECT_EQ(part("normalizer", {{"type", "Replace"}, {"pattern", 1}, {"content", ""}}),
            "it has a \"pattern\" that is neither a String nor a Regex");
  EXPECT_EQ(part("normalizer", {{"type", "Precompiled"}, {"precompiled_charsmap", "%"}}),
            "its \"precompiled_charsmap\" is not base64");
  EXPECT_EQ(part("normalizer", {{"type", "Precompiled"}, {"precompiled_charsmap", "////fw=="}}),
            "its precompiled charsmap of 4 bytes does not hold the 2147483647 bytes of its trie");
  EXPECT_EQ(part("pre_tokenizer", {{"type", "UnicodeScripts"}}),
            "its pre-tokenizer 'UnicodeScripts' is not supported");
  EXPECT_EQ(
      part("pre_tokenizer",
           {{"type", "Sequence"},
            {"pretokenizers",
             {{{"type", "ByteLevel"}},
              {{"type", "Split"}, {"pattern", {{"Regex", "(((("}}}, {"behavior", "Isolated"}}}}}),
      "its pre-tokenizer goes on after ByteLevel");
  EXPECT_EQ(part("decoder", {{"type", "CTC"}}), "its decoder 'CTC' is not supported");
  EXPECT_EQ(part("post_processor", {{"type", "TemplateProcessing"},
                                    {"single", {{{"SpecialToken", {{"id", "<s>"}}}}}}}),
            "its \"post_processor\" does not say what '<s>' is");
  EXPECT_EQ(part("added_tokens", {{{"id", 3}}}),
            "its \"added_tokens\" has an entry without an id or content");
  EXPECT_EQ(part("added_tokens", {5}),
            "its \"added_tokens\" has an entry without an id or content");
  EXPECT_EQ(part("model", {{"type", "WordPiece"}, {"vocab", {{"a", 0}}}}),
            "its tokenizer is WordPiece, that of encoders, which do not generate text");
  EXPECT_EQ(changed("characters", [](json& t) { t["model"]["unk_token"] = "nope"; }),
            "its \"unk_token\" 'nope' is no token");
  EXPECT_EQ(changed("characters", [](json& t) { t["model"]["end_of_word_suffix"] = "</w>"; }),
            "its end_of_word_suffix is not supported");
  EXPECT_EQ(changed("unigram", [](json& t) { t["model"]["unk_id"] = uint64_t{1} << 62; })
                .find("its \"unk_id\" is not one of its"),
            0U);
  EXPECT_EQ(changed("unigram", [](json& t) { t["model"]["unk_id"] = nullptr; }),
            "it has no unknown token, which a unigram model needs");
}

TEST(HostileTokenizerJson, ExpressionsThatBacktrackWithoutEndGiveASentence) {
  json tree = json::parse(read_file(kFolder + "byte_level.json"));
  tree["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"},
         {"pattern", {{"Regex", "(?:a+)+[bc]|."}}},
         {"behavior", "Isolated"},
         {"invert", false}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
  const Tokenizer t = create_or_fail(parse_or_fail(tree.dump()));
  const std::string hostile = "x" + std::string(100, 'a');
  EXPECT_TRUE(t.encode("aab x", Special::kPlain).has_value());
  const auto refused = t.encode(hostile, Special::kPlain);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kBadInput);
}

TEST(HostileTokenizerJson, ConfigurationsOfWrongTypesAreSentences) {
  Vocabulary v = parse_or_fail(read_file(kFolder + "byte_level.json"));
  for (const char* text :
       {"", "[]", R"({"bos_token": 5})", R"({"add_bos_token": "yes"})", R"({"chat_template": 5})",
        R"({"chat_template": [5]})", R"({"added_tokens_decoder": {"x": {}}})",
        R"({"added_tokens_decoder": {"4294967295": {"content": "x"}}})",
        R"({"added_tokens_decoder": {"99999999999999999999": {"content": "x"}}})",
        R"({"added_tokens_decoder": {"1": 5}})"}) {
    const auto applied = apply_tokenizer_config(text, v);
    ASSERT_FALSE(applied) << text;
    EXPECT_EQ(applied.error().code, ErrorCode::kBadInput);
  }
  EXPECT_FALSE(apply_generation_config(R"({"eos_token_id": "x"})", v));
  EXPECT_FALSE(apply_generation_config(repeat("[", 1'000'000), v));
  EXPECT_TRUE(apply_generation_config(R"({"eos_token_id": 4611686018427387904})", v));
  EXPECT_TRUE(apply_generation_config(R"({"eos_token_id": null, "bos_token_id": -1})", v));
}

}  // namespace
}  // namespace banyan
