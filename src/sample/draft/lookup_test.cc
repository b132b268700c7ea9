// SPDX-License-Identifier: Apache-2.0
// Prompt lookup against searches that try everything.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
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

// The same for each token that followed one, the longest first, of equals the latest.
std::vector<Match> best_matches(std::span<const TokenId> text) {
  std::map<TokenId, Match> best;
  const size_t end = text.size() - 1;
  for (size_t place = 0; place < end; ++place) {
    const int length = common_suffix(text, place, end);
    Match& match = best[text[place + 1]];
    if (length >= std::max(LookupIndex::kLeast, match.length)) match = {length, place + 1};
  }
  std::vector<Match> matches;
  for (const auto& [token, match] : best) {
    if (match.length > 0) matches.push_back(match);
  }
  std::ranges::sort(matches, [](const Match& a, const Match& b) {
    return std::pair(a.length, a.next) > std::pair(b.length, b.next);
  });
  return matches;
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

TEST(LookupIndex, CandidatesAreTheBestMatchesThatWentOnOtherwise) {
  std::mt19937 random(8);
  std::array<int, LookupIndex::kCandidates + 1> found = {};
  for (const int alphabet : {10, 30, 100}) {
    for (int round = 0; round < 5; ++round) {
      // Few enough for all places of a pair to be tried.
      const Text text = random_text(random, 400, alphabet);
      LookupIndex index;
      for (size_t n = 1; n <= text.size(); ++n) {
        const auto so_far = std::span(text).first(n);
        index.push(so_far);
        const auto want = best_matches(so_far);
        const auto candidates = index.candidates();
        ASSERT_EQ(candidates.size(), std::min(want.size(), LookupIndex::kCandidates));
        for (size_t i = 0; i < candidates.size(); ++i) {
          ASSERT_EQ(candidates[i].length, want[i].length) << i << " after " << n << " tokens";
          ASSERT_EQ(candidates[i].next, want[i].next) << i << " after " << n << " tokens";
        }
        ++found[candidates.size()];
      }
    }
  }
  for (const int times : found) EXPECT_GT(times, 300);
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

// What the draft has of first candidates.
Text chain_of(const Draft& draft) {
  Text chain;
  for (size_t i = 0; i < draft.size(); ++i) {
    if (draft.on_chain[i]) chain.push_back(draft.tokens[i]);
  }
  return chain;
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
    const Text found = chain_of(draft);
    Text want = text;
    for (size_t i = 0; i < found.size(); ++i) want.push_back(want[match.next + i]);
    EXPECT_EQ(found, Text(want.begin() + text.size(), want.end()));
    overlapping += match.next + found.size() > text.size() ? 1 : 0;
    for (uint32_t i = 0; i < draft.size(); ++i) {
      EXPECT_GT(draft.reach[i], 0);
      EXPECT_LE(draft.reach[i], draft.reach_of(draft.parent[i]));
    }
    drafter.draft(text, 3, draft);
    EXPECT_LE(chain_of(draft).size(), 3U);
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

TEST(LookupDrafter, LearnsFromTheTextWhatElseMayFollow) {
  // Behind {1, 2, 3} one of two passages, now this, now that: the latest is always wrong, and the
  // one before it right.
  const Text passages[] = {{11, 12, 13, 14, 15}, {21, 22, 23, 24, 25}};
  std::mt19937 random(6);
  Text text;
  for (int i = 0; i < 60; ++i) {
    text.push_back(static_cast<TokenId>(100 + random() % 1000));
    text.insert(text.end(), {1, 2, 3});
    text.insert(text.end(), passages[i % 2].begin(), passages[i % 2].end());
  }
  text.insert(text.end(), {7, 1, 2, 3});
  LookupDrafter drafter;
  drafter.follow(text);
  Draft draft;
  drafter.draft(text, 5, draft);
  const uint32_t right = draft.child(Draft::kText, 11);
  ASSERT_NE(right, Draft::kText);
  EXPECT_GT(draft.reach[right], 0.8);
  EXPECT_FALSE(draft.on_chain[right]);
  // It goes on, too.
  uint32_t last = Draft::kText;
  for (const TokenId token : passages[0]) {
    last = draft.child(last, token);
    ASSERT_NE(last, Draft::kText) << token;
    EXPECT_FALSE(draft.on_chain[last]);
  }
  EXPECT_GT(draft.reach[last], 0.3);
  double sum = 0;
  for (uint32_t i = 0; i < draft.size(); ++i) {
    if (draft.parent[i] == Draft::kText) sum += draft.reach[i];
  }
  EXPECT_LE(sum, 1 + 1e-12);
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
