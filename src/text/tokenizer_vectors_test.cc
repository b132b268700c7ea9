// SPDX-License-Identifier: Apache-2.0
// Token ids that other programs gave for vocabularies of real models.

#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "text/testing_vocabulary.h"
#include "text/tokenizer.h"

namespace banyan {
namespace {

std::vector<std::string> split_inputs(const std::string& file) {
  const std::string border = "\n__ggml_vocab_test__\n";
  std::vector<std::string> inputs;
  size_t begin = 0;
  for (size_t end = 0; (end = file.find(border, begin)) != std::string::npos;
       begin = end + border.size()) {
    inputs.push_back(file.substr(begin, end - begin));
  }
  return inputs;  // nothing stands after the last border
}

std::vector<TokenId> read_ids(const std::string& line) {
  std::istringstream stream(line);
  return {std::istream_iterator<TokenId>(stream), {}};
}

// VOCABULARY.gguf in the first of these folders that has it, and VOCABULARY.gguf.inp and .out.
class TokenizerVectors : public testing::TestWithParam<const char*> {
 protected:
  static std::string find(const std::string& file) {
    for (const char* folder :
         {BANYAN_SHARED_DATA "/tokenizers/llama.cpp-vectors/", BANYAN_VOCAB_DATA "/"}) {
      if (std::filesystem::exists(folder + file)) return folder + file;
    }
    return "";
  }
};

TEST_P(TokenizerVectors, GiveTheSameTokensAndTheTextBack) {
  const std::string name = std::string("ggml-vocab-") + GetParam() + ".gguf";
  if (find(name).empty() || find(name + ".inp").empty()) {
    GTEST_SKIP() << name << " and its vectors are not on this machine.";
  }
  const Tokenizer tokenizer = create_or_fail(GgufVocabulary(find(name)).vocabulary);
  const auto inputs = split_inputs(read_file(find(name + ".inp")));
  std::istringstream outputs(read_file(find(name + ".out")));
  ASSERT_GT(inputs.size(), 30U);
  for (const std::string& input : inputs) {
    std::string line;
    ASSERT_TRUE(std::getline(outputs, line));
    const auto tokens = *tokenizer.encode(input, Special::kPlain);
    EXPECT_EQ(tokens, read_ids(line)) << input;
    EXPECT_EQ(tokenizer.decode(tokens, Special::kPlain), input);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, TokenizerVectors,
                         testing::Values("command-r", "deepseek-coder", "deepseek-llm", "falcon",
                                         "gemma-4", "gpt-2", "llama-bpe", "llama-spm", "mpt",
                                         "phi-3", "qwen2", "qwen35", "refact", "starcoder"),
                         [](const auto& model) {
                           std::string name = model.param;
                           std::erase(name, '-');
                           return name;
                         });

// NAME.txt of ggml's examples: a sentence, " => ", its ids. Refact has the vocabulary of the first
// StarCoder.
class GgmlPrompts : public testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(GgmlPrompts, GiveTheSameTokens) {
  const auto [name, vocabulary] = GetParam();
  const std::string path =
      std::string(BANYAN_SHARED_DATA "/tokenizers/ggml-prompts/") + name + ".txt";
  const std::string model = std::string(BANYAN_VOCAB_DATA "/ggml-vocab-") + vocabulary + ".gguf";
  if (!std::filesystem::exists(path) || !std::filesystem::exists(model)) {
    GTEST_SKIP() << path << " and " << model << " are not both on this machine.";
  }
  Vocabulary made = GgufVocabulary(model).vocabulary;
  if (made.pre.empty()) made.pre = "gpt-2";
  const Tokenizer tokenizer = create_or_fail(std::move(made));
  std::istringstream lines(read_file(path));
  int n = 0;
  for (std::string line; std::getline(lines, line);) {
    const size_t arrow = line.rfind(" => ");
    if (arrow == std::string::npos) continue;
    std::string ids = line.substr(arrow + 4);
    std::replace(ids.begin(), ids.end(), ',', ' ');
    EXPECT_EQ(*tokenizer.encode(line.substr(0, arrow), Special::kPlain), read_ids(ids)) << line;
    ++n;
  }
  EXPECT_GT(n, 50);
}

// Every text of the shared data, whole, through a vocabulary of each kind that loses nothing.
class RoundTrip : public testing::TestWithParam<const char*> {};

TEST_P(RoundTrip, GivesEveryTextBack) {
  const std::string model = std::string(BANYAN_VOCAB_DATA "/ggml-vocab-") + GetParam() + ".gguf";
  const std::string folder = BANYAN_SHARED_DATA "/texts";
  if (!std::filesystem::exists(folder) || !std::filesystem::exists(model)) {
    GTEST_SKIP() << folder << " and " << model << " are not both on this machine.";
  }
  const Tokenizer tokenizer = create_or_fail(GgufVocabulary(model).vocabulary);
  int n = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    // Packed ones hold bytes that never occur in UTF-8; DeepSeek gives their tokens to characters.
    if (!entry.is_regular_file() || entry.path().extension() == ".gz") continue;
    const std::string text = read_file(entry.path());
    const auto tokens = *tokenizer.encode(text, Special::kPlain);
    EXPECT_TRUE(tokenizer.decode(tokens, Special::kPlain) == text) << entry.path();
    ++n;
  }
  EXPECT_GT(n, 10);
}

INSTANTIATE_TEST_SUITE_P(Models, RoundTrip,
                         testing::Values("llama-bpe", "llama-spm", "gemma-4", "deepseek-llm"),
                         [](const auto& model) {
                           std::string name = model.param;
                           std::erase(name, '-');
                           return name;
                         });

INSTANTIATE_TEST_SUITE_P(Models, GgmlPrompts,
                         testing::Values(std::pair("gpt-2", "gpt-2"),
                                         std::pair("gpt-neox", "gpt-neox"),
                                         std::pair("starcoder", "refact")));

}  // namespace
}  // namespace banyan
