// SPDX-License-Identifier: Apache-2.0
#include "text/special_tokens.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace banyan {
namespace {

using List = std::vector<std::pair<std::string, TokenId>>;

TEST(SpecialTokens, FindsTheLeftmostAndThereTheLongestAsAScanOfAllDoes) {
  std::mt19937 random(5);
  const auto word = [&random](size_t longest) {
    std::string text;
    for (size_t n = 1 + random() % longest; n > 0; --n) {
      text += "ab\xFF"[random() % 3];
    }
    return text;
  };
  for (int trial = 0; trial < 2000; ++trial) {
    List list;
    for (TokenId token = 0; token < static_cast<TokenId>(random() % 8); ++token) {
      const std::string text = word(5);
      const auto same = [&text](const auto& entry) { return entry.first == text; };
      if (std::none_of(list.begin(), list.end(), same)) list.emplace_back(text, token);
    }
    const SpecialTokens tokens(list);
    const std::string text = word(40);
    for (size_t from = 0; from <= text.size(); ++from) {
      std::optional<SpecialTokens::Match> expected;
      for (const auto& [special, token] : list) {
        const size_t at = text.find(special, from);
        if (at == std::string::npos) continue;
        if (!expected || at < expected->begin ||
            (at == expected->begin && special.size() > expected->length)) {
          expected = SpecialTokens::Match{at, special.size(), token};
        }
      }
      const auto found = tokens.find(text, from);
      ASSERT_EQ(found.has_value(), expected.has_value());
      if (!found) continue;
      ASSERT_EQ(found->begin, expected->begin);
      ASSERT_EQ(found->length, expected->length);
      ASSERT_EQ(found->token, expected->token);
    }
  }
}

TEST(SpecialTokens, EmptyAndOverlongTextsAreNeverFound) {
  const std::string longest(SpecialTokens::kMaxLength, 'x');
  const SpecialTokens tokens(List{{"", 1}, {longest + 'x', 2}});
  EXPECT_FALSE(tokens.find(longest + longest, 0).has_value());
  EXPECT_TRUE(SpecialTokens(List{{longest, 3}}).find(longest + longest, 0).has_value());
}

TEST(SpecialTokens, TheFirstOfTwoEqualTextsIsTaken) {
  const SpecialTokens tokens(List{{"ab", 9}, {"ab", 4}, {"abc", 5}});
  EXPECT_EQ(tokens.find("xab", 0)->token, 4);
  EXPECT_EQ(tokens.find("xabc", 0)->token, 5);
}

}  // namespace
}  // namespace banyan
