// SPDX-License-Identifier: Apache-2.0
#include "text/pre_tokenizer.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "text/pre_tokenizer_rules.h"

namespace banyan {
namespace {

PreTokenizer create_or_fail(std::string_view name) {
  const auto rule = find_pre_tokenizer_rule(name);
  EXPECT_TRUE(rule.has_value()) << name;
  auto created = PreTokenizer::create(rule->splits);
  EXPECT_TRUE(created.has_value()) << created.error().message;
  return *std::move(created);
}

std::vector<std::string> split(const PreTokenizer& tokenizer, std::string_view text) {
  std::vector<std::string> words;
  SearchEffort effort(text.size());
  tokenizer.split(text, true, effort,
                  [&words](std::string_view word) { words.emplace_back(word); });
  return words;
}

using Words = std::vector<std::string>;

TEST(PreTokenizer, Gpt2KeepsTheSpaceBeforeAWordAndContractions) {
  const auto gpt2 = create_or_fail("gpt-2");
  EXPECT_EQ(split(gpt2, "Hello, it's 12 o'clock!"),
            (Words{"Hello", ",", " it", "'s", " 12", " o", "'", "clock", "!"}));
  EXPECT_EQ(split(gpt2, "a   b \n\n c  "), (Words{"a", "  ", " b", " \n\n", " c", "  "}));
  EXPECT_EQ(split(gpt2, "\tx"), (Words{"\t", "x"}));
  EXPECT_EQ(split(gpt2, ""), Words{});
}

TEST(PreTokenizer, TheDefaultModelsTakesDigitsOneByOne) {
  const auto smollm = create_or_fail("smollm");
  EXPECT_EQ(split(smollm, "in 1999, x2"), (Words{"in", " ", "1", "9", "9", "9", ",", " x", "2"}));
  // The digit's piece ends the one before it: all its spaces stay together.
  EXPECT_EQ(split(smollm, "a   7"), (Words{"a", "   ", "7"}));
}

TEST(PreTokenizer, Llama3TakesThreeDigitsAndLineEndsWithPunctuation) {
  const auto llama3 = create_or_fail("llama-bpe");
  EXPECT_EQ(split(llama3, "12345 I'LL\r\n{x}\n"),
            (Words{"123", "45", " I", "'LL", "\r\n", "{x", "}\n"}));
  EXPECT_TRUE(find_pre_tokenizer_rule("llama-bpe")->takes_whole_words);
  EXPECT_FALSE(find_pre_tokenizer_rule("smaug-bpe")->takes_whole_words);
}

TEST(PreTokenizer, Gpt4oCutsWhereUpperCaseFollowsLowerCase) {
  EXPECT_EQ(split(create_or_fail("gpt-4o"), "camelCase HTTPServer's"),
            (Words{"camel", "Case", " HTTPServer's"}));
}

TEST(PreTokenizer, LettersSpacesAndDigitsAreUnicodes) {
  const auto qwen2 = create_or_fail("qwen2");
  EXPECT_EQ(split(qwen2, "Ünïcode ½٣"), (Words{"Ünïcode", " ", "½", "٣"}));
  // An ideographic space is white space, the Mongolian vowel separator is not.
  EXPECT_EQ(split(create_or_fail("gpt-2"), "a　b"), (Words{"a", "　", "b"}));
  EXPECT_EQ(split(create_or_fail("gpt-2"), "a\u180E\u180Eb"), (Words{"a", "\u180E\u180E", "b"}));
}

TEST(PreTokenizer, DigitGroupsAreCountedFromTheRight) {
  EXPECT_EQ(split(create_or_fail("tiny_aya"), "a 1234567, 12 ٣٤٥٦"),
            (Words{"a", " ", "1", "234", "567", ",", " ", "12", " ", "٣", "٤٥٦"}));
}

TEST(PreTokenizer, KimiKeepsHanApartFromOtherLetters) {
  EXPECT_EQ(split(create_or_fail("kimi-k2"), "abc中文Def's"), (Words{"abc", "中文", "Def's"}));
}

TEST(PreTokenizer, WordsOfEveryRuleAreTheWholeText) {
  const char* const kPieces[] = {"a",  "Z",  "é",  "Ж",  "中", "ก",      "\u0301", "1",  "٣", " ",
                                 "  ", "\n", "\r", "\t", "　", "\u0085", "'s",     "'",  ".", "€",
                                 "🌳",  "-",  "_",  "<",  "!",  "\u180E", "が",     "LL", "½", "ß"};
  for (const char* name : {"default",
                           "gpt-2",
                           "smollm",
                           "llama3",
                           "smaug-bpe",
                           "qwen2",
                           "qwen35",
                           "minicpm5",
                           "ufakzeka",
                           "laguna",
                           "seed-coder",
                           "bailingmoe",
                           "exaone-moe",
                           "tekken",
                           "gpt-4o",
                           "youtu",
                           "deepseek-llm",
                           "deepseek-coder",
                           "deepseek-v3",
                           "falcon",
                           "bloom",
                           "viking",
                           "jais-2",
                           "spark2_5",
                           "chameleon",
                           "tiny_aya",
                           "superbpe",
                           "kimi-k2",
                           "afmoe",
                           "gemma4",
                           ""}) {
    const auto tokenizer = create_or_fail(name);
    std::mt19937 random(11);
    for (int trial = 0; trial < 300; ++trial) {
      std::string text;
      for (size_t n = random() % 30; n > 0; --n) text += kPieces[random() % std::size(kPieces)];
      std::string joined;
      for (const std::string& word : split(tokenizer, text)) {
        ASSERT_FALSE(word.empty()) << name;
        joined += word;
      }
      ASSERT_EQ(joined, text) << name;
    }
  }
}

// Expressions that backtrack over a whole run must do so once, not at every position.
TEST(PreTokenizer, RunsOfAMillionCharactersAreSplitInEveryRule) {
  for (const char* name : {"default", "gpt-2", "llama3", "qwen35", "bailingmoe", "exaone-moe",
                           "tekken", "gpt-4o", "deepseek-llm", "deepseek-v3", "bloom", "jais-2",
                           "tiny_aya", "kimi-k2", "afmoe", "gemma4"}) {
    const auto tokenizer = create_or_fail(name);
    for (const std::string unit :
         {"a", " ", "\n", "'", "A", "é", "中", "a ", "Aa", "\u0301", "7"}) {
      std::string text;
      while (text.size() < 1'000'000) text += unit;
      size_t bytes = 0;
      SearchEffort effort(text.size());
      tokenizer.split(text, true, effort,
                      [&bytes](std::string_view word) { bytes += word.size(); });
      EXPECT_EQ(bytes, text.size()) << name;
    }
  }
}

}  // namespace
}  // namespace banyan
