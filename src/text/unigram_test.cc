// SPDX-License-Identifier: Apache-2.0
#include "text/unigram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>

#include "text/testing_vocabulary.h"

namespace banyan {
namespace {

Vocabulary vocabulary(const std::vector<std::pair<std::string, float>>& pieces) {
  Vocabulary v;
  v.model = "t5";
  v.tokens = {"<unk>"};
  v.scores = {0};
  v.types = {TokenType::kUnknown};
  v.unk = 0;
  for (const auto& [text, score] : pieces) {
    v.tokens.push_back(text);
    v.scores.push_back(score);
    v.types.push_back(TokenType::kNormal);
  }
  return v;
}

std::vector<TokenId> encode(const Vocabulary& v, std::string_view word, bool bytes = false) {
  TextRules rules;
  rules.byte_fallback = bytes;
  auto model = UnigramModel::create(v, rules);
  EXPECT_TRUE(model.has_value()) << model.error().message;
  UnigramModel::Scratch scratch;
  std::vector<TokenId> tokens;
  model->encode(word, scratch, tokens);
  return tokens;
}

// The best sum of scores over every way to cut `word` into tokens.
double best_score(const Vocabulary& v, std::string_view word) {
  if (word.empty()) return 0;
  double best = -std::numeric_limits<double>::infinity();
  for (size_t token = 1; token < v.tokens.size(); ++token) {
    if (word.starts_with(v.tokens[token])) {
      best = std::max(best, v.scores[token] + best_score(v, word.substr(v.tokens[token].size())));
    }
  }
  return best;
}

TEST(Unigram, FindsTheBestOfAllWaysToCutAWord) {
  std::mt19937 random(3);
  for (int trial = 0; trial < 60; ++trial) {
    std::vector<std::pair<std::string, float>> pieces;
    for (const char* letter : {"a", "b", "c"}) {
      pieces.emplace_back(letter, -8 - static_cast<float>(random() % 100) / 16);
    }
    for (int n = 0; n < 12; ++n) {
      std::string text;
      for (size_t length = 2 + random() % 3; length > 0; --length) text += "abc"[random() % 3];
      const bool is_new = std::none_of(pieces.begin(), pieces.end(),
                                       [&text](const auto& piece) { return piece.first == text; });
      if (is_new) pieces.emplace_back(text, -static_cast<float>(random() % 320) / 16);
    }
    const Vocabulary v = vocabulary(pieces);
    std::string word;
    for (size_t length = random() % 11; length > 0; --length) word += "abc"[random() % 3];
    double score = 0;
    std::string joined;
    for (const TokenId token : encode(v, word)) {
      score += v.scores[token];
      joined += v.tokens[token];
    }
    EXPECT_EQ(joined, word);
    EXPECT_DOUBLE_EQ(score, best_score(v, word)) << word;  // sums of sixteenths are exact
  }
}

TEST(Unigram, RowsOfUnknownCharactersAreOneTokenOrTheirBytes) {
  Vocabulary v = vocabulary({{"a", -1}, {"é", -2}});
  EXPECT_EQ(encode(v, "a中文a"), (std::vector<TokenId>{1, 0, 1}));
  EXPECT_EQ(encode(v, "中"), (std::vector<TokenId>{0}));
  for (const char* byte : {"<0xE4>", "<0xB8>", "<0xAD>"}) {
    v.tokens.emplace_back(byte);
    v.scores.push_back(0);
    v.types.push_back(TokenType::kByte);
  }
  EXPECT_EQ(encode(v, "a中é", true), (std::vector<TokenId>{1, 3, 4, 5, 2}));
  EXPECT_EQ(encode(v, "文", true), (std::vector<TokenId>{0}));  // not all of its bytes are tokens
}

TEST(Unigram, ScoresThatAreMissingOrNotFiniteAreRefused) {
  const auto message = [](const Vocabulary& v) {
    const auto made = UnigramModel::create(v, {});
    return made ? "created" : made.error().message;
  };
  Vocabulary v = vocabulary({{"a", -1}});
  v.unk = -1;
  EXPECT_EQ(message(v), "it has no unknown token, which a unigram model needs");
  v = vocabulary({{"a", -std::numeric_limits<float>::infinity()}});
  EXPECT_EQ(message(v), "the score of its token 1 is not finite");
  v = vocabulary({{"a", 0}});
  v.scores.clear();
  EXPECT_EQ(message(v), "it has no token scores");
}

TEST(Unigram, OddTokensAreNeverFound) {
  const Vocabulary v = vocabulary({{"", 5}, {"\xC3", 5}, {"a", -1}, {"a", -3}, {"\xA9z", 5}});
  EXPECT_EQ(encode(v, "aéz").size(), 2U);
}

TEST(Unigram, WordsOfMillionsOfCharactersAreTokenized) {
  const Vocabulary v = vocabulary({{"a", -3}, {"aa", -4}, {"aaaa", -4.5F}});
  EXPECT_EQ(encode(v, std::string(4'000'000, 'a')).size(), 1'000'000U);
}

// The tokenizer around it: T5's rules, whose words are cut at spaces.
TEST(Unigram, ATextIsTokenizedWordByWordAndComesBack) {
  Vocabulary v = vocabulary({{"▁", -4}, {"▁the", -2}, {"▁tree", -3}, {"s", -2}, {"t", -5}});
  v.add_space_prefix = true;
  const Tokenizer t = create_or_fail(v);
  EXPECT_EQ(*t.encode("the trees", Special::kPlain), (std::vector<TokenId>{2, 3, 4}));
  EXPECT_EQ(t.decode(*t.encode("the  trees", Special::kPlain), Special::kPlain), "the  trees");
  EXPECT_EQ(t.encode("", Special::kPlain)->size(), 0U);
}

}  // namespace
}  // namespace banyan
