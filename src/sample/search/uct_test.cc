// SPDX-License-Identifier: Apache-2.0
#include "sample/search/uct.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <random>

namespace banyan {
namespace {

TEST(Uct, SelectsByThePublishedBound) {
  Uct uct(1.0);
  EXPECT_EQ(uct.select(), 0);
  const int a = uct.add_child(0);
  const int b = uct.add_child(0);
  EXPECT_EQ(uct.select(), a);  // none visited: the first
  uct.back_up(a, 1);
  EXPECT_EQ(uct.select(), b);
  uct.back_up(b, 0);
  uct.back_up(a, 1);
  // 3 visits: a has 1 + sqrt(ln 3 / 2) = 1.74, b has 0 + sqrt(ln 3 / 1) = 1.05.
  EXPECT_EQ(uct.select(), a);
  for (int i = 0; i < 3; ++i) uct.back_up(a, 0);
  // 6 visits: a has 2 / 5 + sqrt(ln 6 / 5) = 1.00, b has sqrt(ln 6) = 1.34.
  EXPECT_EQ(uct.select(), b);
  EXPECT_EQ(uct.node(0).visits, 6);
  EXPECT_DOUBLE_EQ(uct.node(0).mean(), 2.0 / 6);
  EXPECT_EQ(uct.most_visited_child(0), a);
  EXPECT_EQ(uct.most_visited_child(b), -1);
}

TEST(Uct, FindsTheBestArm) {
  Uct uct(std::sqrt(2.0));
  constexpr std::array kChances = {0.3, 0.7, 0.5};
  for (int i = 0; i < 3; ++i) uct.add_child(0);
  const int below = uct.add_child(2);
  EXPECT_EQ(uct.depth(below), 2);
  std::mt19937 random(7);
  for (int i = 0; i < 3000; ++i) {
    int node = uct.select();
    const int arm = node == below ? 2 : node;
    uct.back_up(node, std::bernoulli_distribution(kChances[arm - 1])(random) ? 1 : 0);
  }
  EXPECT_EQ(uct.most_visited_child(0), 2);
  EXPECT_GT(uct.node(2).visits, 2000);
  EXPECT_EQ(uct.node(0).visits, 3000);
  EXPECT_EQ(uct.node(below).visits, uct.node(2).visits);
}

}  // namespace
}  // namespace banyan
