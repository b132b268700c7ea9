// SPDX-License-Identifier: Apache-2.0
#include "base/statistics.h"

#include <gtest/gtest.h>

namespace banyan {
namespace {

TEST(Statistics, QuantilesLieBetweenNeighbours) {
  EXPECT_EQ(quantile({}, 0.5), 0);
  EXPECT_EQ(quantile({7}, 0.99), 7);
  EXPECT_EQ(quantile({4, 1, 3, 2}, 0), 1);
  EXPECT_EQ(quantile({4, 1, 3, 2}, 1), 4);
  EXPECT_DOUBLE_EQ(quantile({4, 1, 3, 2}, 0.25), 1.75);
  EXPECT_EQ(median({9, 1, 5}), 5);
  EXPECT_EQ(median({9, 1, 5, 6}), 5.5);
}

TEST(Statistics, RatiosAreOfTimesOfTheSameTurn) {
  // A machine that slows down to half: every turn's ratio is 2 all the same.
  const RatioFigures r = ratio_of_times({20, 22, 40, 44, 99}, {10, 11, 20, 22});
  EXPECT_EQ(r.median, 2);
  EXPECT_EQ(r.p25, 2);
  EXPECT_EQ(r.p75, 2);
}

}  // namespace
}  // namespace banyan
