// SPDX-License-Identifier: Apache-2.0
// The parts of drafts that give the most tokens for their time, against all that there are.
#include "sample/draft/choose_drafts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <random>

#include "sample/draft/draft.h"

namespace banyan {
namespace {

// Sets of a draft's tokens, one bit each.
using Set = uint32_t;

bool holds_parents(const Draft& draft, Set set) {
  for (uint32_t i = 0; i < draft.size(); ++i) {
    const uint32_t parent = draft.parent[i];
    if ((set >> i & 1) != 0 && parent != Draft::kText && (set >> parent & 1) == 0) return false;
  }
  return true;
}

// What a step gives: of each sequence's tokens those that are right follow each other down from the
// root, so their number is counted path by path.
double tokens_of(const Draft& draft, Set set, uint32_t under) {
  double tokens = under == Draft::kText ? 1 : 0;
  for (uint32_t i = 0; i < draft.size(); ++i) {
    if (draft.parent[i] != under || (set >> i & 1) == 0) continue;
    tokens += draft.reach[i] + tokens_of(draft, set, i);
  }
  return tokens;
}

double best_rate(const std::vector<Draft>& drafts, size_t most,
                 FunctionRef<double(std::span<const size_t>)> milliseconds) {
  std::vector<Set> sets(drafts.size(), 0);
  std::vector<size_t> counts(drafts.size());
  double best = 0;
  for (;;) {
    size_t n = 0;
    double tokens = 0;
    bool whole = true;
    for (size_t i = 0; i < drafts.size() && whole; ++i) {
      whole = holds_parents(drafts[i], sets[i]);
      n += counts[i] = static_cast<size_t>(std::popcount(sets[i]));
      if (whole) tokens += tokens_of(drafts[i], sets[i], Draft::kText);
    }
    if (whole && n <= most) best = std::max(best, tokens / milliseconds(counts));
    size_t i = 0;
    while (i < drafts.size() && sets[i] + 1 == Set{1} << drafts[i].size()) sets[i++] = 0;
    if (i == drafts.size()) return best;
    ++sets[i];
  }
}

// Siblings do not sum up to more than their parent; some are as likely as it.
Draft random_draft(std::mt19937& random, size_t n) {
  std::uniform_real_distribution<double> uniform(0, 1);
  const double typical = uniform(random);
  Draft draft;
  std::vector<double> left(n + 1, 1);  // of each parent's, the text's last
  for (size_t i = 0; i < n; ++i) {
    const size_t under = random() % (i + 1);
    const bool is_text = under == i;
    double& rest = left[is_text ? n : under];
    const double rate = random() % 8 == 0 ? rest : rest * std::pow(uniform(random), 1 - typical);
    draft.add(1, is_text ? Draft::kText : static_cast<uint32_t>(under), rate, rest == 1);
    rest -= rate;
  }
  return draft;
}

TEST(DraftChooser, TakesWhatGivesTheMostTokensForTheirTime) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> uniform(0, 1);
  size_t drafted = 0;
  size_t undrafted = 0;
  size_t branched = 0;
  DraftChooser chooser;
  for (int round = 0; round < 500; ++round) {
    std::vector<Draft> drafts;
    std::vector<std::span<const double>> reach;
    for (size_t i = 1 + random() % 3; i > 0; --i) {
      drafts.push_back(random_draft(random, random() % 5));
    }
    for (const Draft& draft : drafts) reach.emplace_back(draft.reach);
    // Any time for a number of rows, steps in it and all.
    std::vector<double> times = {0};
    const double row_ms = 5 * uniform(random);
    for (int i = 0; i < 32; ++i) times.push_back(times.back() + row_ms * uniform(random));
    const auto milliseconds = [&](std::span<const size_t> counts) {
      return 5 + times[std::accumulate(counts.begin(), counts.end(), counts.size())];
    };
    const size_t most = random() % 16;
    chooser.choose(reach, most, milliseconds);
    double tokens = 0;
    std::vector<size_t> counts;
    for (size_t i = 0; i < drafts.size(); ++i) {
      Set set = 0;
      for (const uint32_t place : chooser.taken(i)) {
        ASSERT_LT(place, drafts[i].size());
        ASSERT_LT(set, Set{1} << place) << "places rise";
        set |= Set{1} << place;
      }
      ASSERT_TRUE(holds_parents(drafts[i], set));
      counts.push_back(chooser.taken(i).size());
      tokens += tokens_of(drafts[i], set, Draft::kText);

      // What is kept of the draft is what was taken.
      Draft kept = drafts[i];
      kept.keep(chooser.taken(i));
      ASSERT_EQ(kept.size(), chooser.taken(i).size());
      for (uint32_t place = 0; place < kept.size(); ++place) {
        const uint32_t from = chooser.taken(i)[place];
        EXPECT_EQ(kept.reach[place], drafts[i].reach[from]);
        EXPECT_EQ(kept.on_chain[place], drafts[i].on_chain[from]);
        const uint32_t under = kept.parent[place];
        EXPECT_EQ(under == Draft::kText ? under : chooser.taken(i)[under], drafts[i].parent[from]);
        branched += place > 0 && under != place - 1 ? 1 : 0;
      }
    }
    const size_t sum = std::accumulate(counts.begin(), counts.end(), size_t{0});
    ASSERT_LE(sum, most);
    EXPECT_NEAR(tokens / milliseconds(counts), best_rate(drafts, most, milliseconds), 1e-12);
    (sum > 0 ? drafted : undrafted) += 1;
  }
  EXPECT_GT(drafted, 100U);
  EXPECT_GT(undrafted, 50U);
  EXPECT_GT(branched, 50U);
}

}  // namespace
}  // namespace banyan
