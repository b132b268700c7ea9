// SPDX-License-Identifier: Apache-2.0
#include "text/expression.h"

#include <gtest/gtest.h>

#include <vector>

namespace banyan {
namespace {

std::vector<std::string> matches(std::string_view expression, std::string_view text) {
  auto compiled = Expression::create(expression);
  EXPECT_TRUE(compiled.has_value()) << compiled.error().message;
  SearchEffort effort(text.size());
  Expression::Search search(*compiled, effort);
  std::vector<std::string> found;
  for (size_t at = 0; at < text.size();) {
    const auto match = search.find(text, at);
    if (!match) break;
    found.emplace_back(text.substr(match->begin, match->end - match->begin));
    at = match->end;
  }
  return found;
}

using Found = std::vector<std::string>;

TEST(Expression, MeansWhatOnigurumaMeans) {
  EXPECT_EQ(matches(R"(\s)", "a b\u3000c\u180Ed"), (Found{" ", "\u3000"}));
  EXPECT_EQ(matches(R"([\s_]+)", "a _\t_b"), (Found{" _\t_"}));
  EXPECT_EQ(matches(R"(\w+)", "e\u0301a_\u00BD1"), (Found{"e\u0301a_", "1"}));
  EXPECT_EQ(matches(R"(\h+)", "xBEEFy 9z"), (Found{"BEEF", "9"}));
}

TEST(Expression, BracketsNestAndIntersect) {
  EXPECT_EQ(matches(R"([a-z&&[^aeiou]]+)", "banyan"), (Found{"b", "ny", "n"}));
  EXPECT_EQ(matches(R"([\p{L}&&[^\p{Han}]]+)", "ab中c"), (Found{"ab", "c"}));
  EXPECT_EQ(matches(R"([a[xyz]0]+)", "axq0"), (Found{"ax", "0"}));
  EXPECT_EQ(matches(R"([^a[xyz]]+)", "axq0y"), (Found{"q0"}));
  EXPECT_EQ(matches(R"([[:digit:]x]+)", "a1x2"), (Found{"1x2"}));
  EXPECT_EQ(matches(R"([]a]+)", "b]a"), (Found{"]a"}));
}

TEST(Expression, LookAheadsAloneMatchBetweenCharacters) {
  EXPECT_EQ(matches(R"((?=(\d{3})+(?!\d)))", "1234567"), (Found{"", ""}));
}

TEST(Expression, LinesEndAsInRuby) { EXPECT_EQ(matches(R"(b$)", "ab\nb"), (Found{"b", "b"})); }

TEST(Expression, WhatCannotBeIsRefusedInASentence) {
  for (const std::string& text :
       {std::string("("), std::string("[a"), std::string("a\\"), std::string("[&&a]"),
        std::string("(a)\\1"), std::string("\\p{NoSuchScript}"), std::string("(?m:.)"),
        std::string("\\C"), "a{65535}" + std::string("{65535}"), std::string(70'000, 'a'),
        std::string(1000, '[') + 'a' + std::string(1000, ']'), std::string(500, '(')}) {
    const auto created = Expression::create(text);
    ASSERT_FALSE(created.has_value()) << text.substr(0, 20);
    EXPECT_EQ(created.error().code, ErrorCode::kBadInput);
    EXPECT_LT(created.error().message.size(), 400U);
  }
}

TEST(Expression, OneThatBacktracksWithoutEndGivesUp) {
  auto compiled = Expression::create("(?:a+)+[bc]");
  ASSERT_TRUE(compiled.has_value());
  SearchEffort effort(100);
  Expression::Search search(*compiled, effort);
  EXPECT_FALSE(search.find("xyz", 0).has_value());
  EXPECT_FALSE(effort.spent());
  EXPECT_FALSE(search.find(std::string(100, 'a'), 0).has_value());
  EXPECT_TRUE(effort.spent());
  EXPECT_FALSE(search.find("aab", 0).has_value());
}

// A step for each letter, as GPT-4o's expression takes them over a word in capitals.
TEST(Expression, LongWordsMayTakeStepsInProportion) {
  auto compiled = Expression::create("[AB]*[BC]|[AB]+");
  ASSERT_TRUE(compiled.has_value());
  const std::string text(8'000'000, 'A');
  SearchEffort effort(text.size());
  Expression::Search search(*compiled, effort);
  const auto found = search.find(text, 0);
  EXPECT_FALSE(effort.spent());
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->end, text.size());
}

// From each place it looks to the end of the text, which no limit of one place stops.
TEST(Expression, OneThatIsSlowEverywhereGivesUp) {
  const std::string text(300'000, 'a');
  EXPECT_LT(matches("[ab]+c|a", text).size(), text.size());
}

}  // namespace
}  // namespace banyan
