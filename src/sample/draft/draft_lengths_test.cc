// SPDX-License-Identifier: Apache-2.0
// The lengths that give the most tokens for their time, against all that there are.
#include "sample/draft/draft_lengths.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace banyan {
namespace {

using Reach = std::vector<std::vector<double>>;

double tokens_of(const Reach& reach, std::span<const size_t> lengths) {
  double tokens = 0;
  for (size_t i = 0; i < reach.size(); ++i) {
    tokens += 1 + std::accumulate(reach[i].begin(), reach[i].begin() + lengths[i], 0.0);
  }
  return tokens;
}

double best_rate(const Reach& reach, size_t most,
                 FunctionRef<double(std::span<const size_t>)> milliseconds) {
  std::vector<size_t> lengths(reach.size(), 0);
  double best = 0;
  for (;;) {
    if (std::accumulate(lengths.begin(), lengths.end(), size_t{0}) <= most) {
      best = std::max(best, tokens_of(reach, lengths) / milliseconds(lengths));
    }
    size_t i = 0;
    while (i < reach.size() && lengths[i] == reach[i].size()) lengths[i++] = 0;
    if (i == reach.size()) return best;
    ++lengths[i];
  }
}

TEST(DraftLengths, GiveTheMostTokensForTheirTime) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> uniform(0, 1);
  size_t drafted = 0;
  size_t undrafted = 0;
  for (int round = 0; round < 500; ++round) {
    Reach reach(1 + random() % 4);
    for (auto& each : reach) {
      double all = 1;
      const size_t n = random() % 6;
      const double typical = uniform(random);
      for (size_t i = 0; i < n; ++i) each.push_back(all *= std::pow(uniform(random), 1 - typical));
    }
    // Any time for a number of rows, steps in it and all.
    std::vector<double> times = {0};
    for (int i = 0; i < 32; ++i) times.push_back(times.back() + 5 * uniform(random));
    const auto milliseconds = [&](std::span<const size_t> lengths) {
      return 5 + times[std::accumulate(lengths.begin(), lengths.end(), lengths.size())];
    };
    const size_t most = random() % 20;
    std::vector<std::span<const double>> spans(reach.begin(), reach.end());
    std::vector<size_t> lengths;
    choose_draft_lengths(spans, most, milliseconds, lengths);
    ASSERT_EQ(lengths.size(), reach.size());
    for (size_t i = 0; i < reach.size(); ++i) ASSERT_LE(lengths[i], reach[i].size());
    const size_t sum = std::accumulate(lengths.begin(), lengths.end(), size_t{0});
    ASSERT_LE(sum, most);
    EXPECT_NEAR(tokens_of(reach, lengths) / milliseconds(lengths),
                best_rate(reach, most, milliseconds), 1e-12);
    (sum > 0 ? drafted : undrafted) += 1;
  }
  EXPECT_GT(drafted, 100U);
  EXPECT_GT(undrafted, 50U);
}

}  // namespace
}  // namespace banyan
