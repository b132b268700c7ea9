// SPDX-License-Identifier: Apache-2.0
// Prompt lookup against searches that try everything.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "sample/draft/lookup_drafter.h"
#include "sample/draft/lookup_index.h"

namespace banyan {
namespace {

using Text = std::vector<TokenId>;
using Match = LookupIndex::Match;

// Parts that come again, between tokens from an alphabet.
Text random_text(std::mt19937& random, size_t n, int alphabet) {
  Text text;
  while (text.size() < n) {
    if (text.size() > 4 && random() % 6 == 0) {
      const size_t from = random() % text.size();
      const size_t most = std::min<size_t>(random() % 50, text.size() - from);
      for (size_t i = 0; i < most; ++i) text.push_back(text[from + i]);
    } else {
      text.push_back(static_cast<TokenId>(random() % alphabet));
    }
  }
  return text;
}

int common_suffix(std::span<const TokenId> text, size_t a, size_t b) {
  int n = 0;
  while (n < LookupIndex::kLongest && static_cast<size_t>(n) <= a && text[a - n] == text[b - n])
    ++n;
  return n;
}

// Of the last `most` places of the text's last two tokens, the longest match, the latest of equals.
Match longest_match(std::span<const TokenId> text, int most) {
  Match best;
  const size_t end = text.size() - 1;
  for (size_t place = end; place-- > 0 && most > 0;) {
    const int length = common_suffix(text, place, end);
    if (length < LookupIndex::kLeast) continue;
    --most;
    if (length > best.length) best = {length, place + 1};
  }
  return best;
}

TEST(LookupIndex, FindsTheLatestOfTheLongestMatches) {
  std::mt19937 random(1);
  int found = 0;
  for (const int alphabet : {30, 100, 1000}) {
    for (int round = 0; round < 5; ++round) {
      const Text text = random_text(random, 700, alphabet);
      LookupIndex index;
      for (size_t n = 1; n <= text.size(); ++n) {
        const auto so_far = std::span(text).first(n);
        index.push(so_far);
        const Match want = longest_match(so_far, INT32_MAX);
        ASSERT_EQ(index.match().length, want.length) << "after " << n << " tokens";
        if (want.length > 0) {
          ASSERT_EQ(index.match().next, want.next) << "after " << n << " tokens";
          ++found;
        }
      }
      EXPECT_EQ(index.size(), text.size());
    }
  }
  EXPECT_GT(found, 2000);
}

TEST(LookupIndex, AmongMorePlacesThanItTriesItFindsAMatchThatIsAsLongAsThoseTried) {
  std::mt19937 random(2);
  for (const int alphabet : {1, 2, 3}) {
    const Text text = random_text(random, 3000, alphabet);
    LookupIndex index;
    Match before;
    for (size_t n = 1; n <= text.size(); ++n) {
      const auto so_far = std::span(text).first(n);
      index.push(so_far);
      const Match match = index.match();
      // What shares a hash with the pair is tried, too, so a few places less may be.
      const Match tried = longest_match(so_far, LookupIndex::kMostTried / 2);
      ASSERT_GE(match.length, tried.length);
      if (match.length > 0) {
        ASSERT_LT(match.next, n);
        ASSERT_GE(common_suffix(so_far, match.next - 1, n - 1), match.length);
      }
      // A match that goes on is not lost.
      if (before.length > 0 && text[before.next] == text[n - 1]) {
        ASSERT_GE(match.length, std::min(before.length + 1, LookupIndex::kLongest));
      }
      before = match;
    }
  }
}

TEST(LookupIndex, AHugeTextIsTakenUpTokenByToken) {
  Text text(100'000);
  std::mt19937 random(3);
  for (TokenId& token : text) token = static_cast<TokenId>(random() % 50'000);
  const Text again(text.begin() + 500, text.begin() + 600);
  text.insert(text.end(), again.begin(), again.end());
  LookupIndex index;
  for (size_t n = 1; n <= text.size(); ++n) index.push(std::span(text).first(n));
  EXPECT_EQ(index.match().length, LookupIndex::kLongest);
  EXPECT_EQ(index.match().next, 600U);
}

TEST(LookupDrafter, GoesOnAsTheTextDidIntoItsOwnDraft) {
  std::mt19937 random(4);
  size_t overlapping = 0;
  for (int round = 0; round < 300; ++round) {
    Text text = random_text(random, 1 + random() % 200, 20);
    if (round % 3 == 0) {  // a period that has come round more than once
      const size_t period = 1 + random() % 5;
      for (int i = 0; i < 40; ++i) {
        text.push_back(text.size() < period ? 7 : text[text.size() - period]);
      }
    }
    LookupDrafter drafter;
    drafter.follow(text);
    Draft draft;
    drafter.draft(text, 40, draft);
    ASSERT_EQ(draft.tokens.size(), draft.reach.size());
    const Match match = longest_match(text, INT32_MAX);
    if (match.length == 0) {
      EXPECT_TRUE(draft.tokens.empty());
      continue;
    }
    Text want = text;
    for (size_t i = 0; i < draft.tokens.size(); ++i) want.push_back(want[match.next + i]);
    EXPECT_EQ(draft.tokens, Text(want.begin() + text.size(), want.end()));
    overlapping += match.next + draft.tokens.size() > text.size() ? 1 : 0;
    double before = 1;
    for (const double reach : draft.reach) {
      EXPECT_GT(reach, 0);
      EXPECT_LE(reach, before);
      before = reach;
    }
    drafter.draft(text, 3, draft);
    EXPECT_LE(draft.tokens.size(), 3U);
  }
  EXPECT_GT(overlapping, 50U);
}

TEST(LookupDrafter, LearnsFromTheTextHowFarItCanBeTrusted) {
  std::mt19937 random(5);
  Text copied;
  for (int i = 0; i < 100; ++i) copied.push_back(static_cast<TokenId>(random() % 1000));
  Text text = copied;
  for (int i = 0; i < 5; ++i) text.insert(text.end(), copied.begin(), copied.end());
  LookupDrafter faithful;
  faithful.follow(text);
  Draft draft;
  faithful.draft(text, 15, draft);
  ASSERT_EQ(draft.tokens.size(), 15U);
  EXPECT_GT(draft.reach.back(), 0.9);

  // The same three tokens each time, and never the same behind them.
  text.clear();
  for (int i = 0; i < 100; ++i) text.insert(text.end(), {1, 2, 3, 10 + i});
  text.resize(text.size() - 1);
  LookupDrafter fooled;
  fooled.follow(text);
  fooled.draft(text, 15, draft);
  EXPECT_TRUE(draft.reach.empty() || draft.reach[0] < 0.1);
}

TEST(LookupDrafter, LevelsRiseWithTheMatch) {
  int before = 0;
  for (int length = LookupIndex::kLeast; length <= LookupIndex::kLongest; ++length) {
    const int level = LookupDrafter::level(length);
    EXPECT_GE(level, before);
    EXPECT_LE(level, before + 1);
    before = level;
  }
  EXPECT_EQ(LookupDrafter::level(LookupIndex::kLeast), 0);
  EXPECT_EQ(before, Acceptance::kLevels - 1);
}

}  // namespace
}  // namespace banyan
