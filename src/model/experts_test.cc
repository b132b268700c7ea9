// SPDX-License-Identifier: Apache-2.0
#include "model/experts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

namespace banyan {
namespace {

// Mixtral as its paper has it: softmax over all, the largest kept, divided by their sum.
TEST(Route, EqualsSoftmaxOverAllThenTheLargestByTheirSum) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 3);
  Routing routing;  // used again and again, as steps do
  for (int trial = 0; trial < 300; ++trial) {
    const int n_experts = 1 + static_cast<int>(random() % 12);
    const int n_used = 1 + static_cast<int>(random() % n_experts);
    const int n_rows = 1 + static_cast<int>(random() % 9);
    std::vector<float> scores(static_cast<size_t>(n_rows) * n_experts);
    for (float& score : scores) score = normal(random);
    route({scores.data(), n_rows, n_experts, n_experts}, n_used, routing);

    ASSERT_EQ(routing.begin.size(), static_cast<size_t>(n_experts) + 1);
    EXPECT_EQ(routing.begin.front(), 0U);
    EXPECT_EQ(routing.begin.back(), static_cast<uint32_t>(n_rows * n_used));
    for (int r = 0; r < n_rows; ++r) {
      const float* own = scores.data() + r * n_experts;
      std::vector<int> order(n_experts);
      std::iota(order.begin(), order.end(), 0);
      std::sort(order.begin(), order.end(), [&](int a, int b) { return own[a] > own[b]; });
      double sum = 0;
      for (int i = 0; i < n_used; ++i) sum += std::exp(double(own[order[i]]));
      for (int i = 0; i < n_experts; ++i) {
        const int e = order[i];
        const auto from = routing.rows.begin() + routing.begin[e];
        const auto to = routing.rows.begin() + routing.begin[e + 1];
        EXPECT_TRUE(std::is_sorted(from, to));
        const auto at = std::find(from, to, static_cast<uint32_t>(r));
        ASSERT_EQ(at != to, i < n_used) << "row " << r << " expert " << e;
        if (at == to) continue;
        EXPECT_NEAR(routing.weights[at - routing.rows.begin()], std::exp(double(own[e])) / sum,
                    1e-6);
      }
    }
  }
}

TEST(Route, EqualScoresGoToTheFirstExperts) {
  const std::vector<float> scores(6, 1.0F);
  Routing routing;
  route({scores.data(), 1, 6, 6}, 2, routing);
  EXPECT_EQ(routing.begin, (std::vector<uint32_t>{0, 1, 2, 2, 2, 2, 2}));
  EXPECT_EQ(routing.weights, (std::vector<float>{0.5F, 0.5F}));
}

// A broken model must not break the step: every row still goes to some experts.
TEST(Route, ScoresThatAreNoNumbersRouteAllRowsSomewhere) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> scores = {nan, nan, nan, 1, nan, 2, inf, -inf, inf, -inf, -inf, -inf};
  Routing routing;
  route({scores.data(), 4, 3, 3}, 2, routing);
  EXPECT_EQ(routing.begin.back(), 8U);
  for (const uint32_t row : routing.rows) EXPECT_LT(row, 4U);
  for (const uint32_t expert : routing.chosen) EXPECT_LT(expert, 3U);
}

}  // namespace
}  // namespace banyan
