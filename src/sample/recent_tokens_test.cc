// SPDX-License-Identifier: Apache-2.0
#include "sample/recent_tokens.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace banyan {
namespace {

TEST(RecentTokens, CountWhatTheLastNOfAListHold) {
  std::mt19937 random(1);
  for (const int last_n : {-1, 1, 2, 3, 7, 64, 1000}) {
    for (const int vocabulary : {1, 2, 5, 200}) {
      RecentTokens recent(vocabulary, last_n);
      std::vector<TokenId> text;
      for (int step = 0; step < 300; ++step) {
        text.push_back(static_cast<TokenId>(random() % vocabulary));
        recent.push(text.back());
        std::map<TokenId, int32_t> expected;
        const size_t n = last_n < 0 ? text.size() : std::min<size_t>(last_n, text.size());
        for (size_t i = text.size() - n; i < text.size(); ++i) ++expected[text[i]];
        std::map<TokenId, int32_t> counted;
        for (const auto& [token, count] : recent.entries()) {
          ASSERT_TRUE(counted.emplace(token, count).second) << "listed twice";
        }
        ASSERT_EQ(counted, expected) << "last " << last_n << " at " << step;
      }
    }
  }
}

TEST(RecentTokens, AWindowLargerThanAnyTextTakesNoMemoryForIt) {
  RecentTokens recent(10, 2147483647);
  for (int i = 0; i < 100; ++i) recent.push(i % 10);
  EXPECT_EQ(recent.entries().size(), 10U);
}

}  // namespace
}  // namespace banyan
