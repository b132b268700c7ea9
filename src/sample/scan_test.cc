// SPDX-License-Identifier: Apache-2.0
#include "sample/scan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace banyan {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> random_values(std::mt19937& random, size_t size, float spread) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> x(size);
  for (float& value : x) value = normal(random);
  // Some equal, some forbidden.
  for (size_t i = 0; i < size / 8; ++i) x[random() % size] = x[random() % size];
  for (size_t i = 0; i < size / 16; ++i) x[random() % size] = -kInfinity;
  return x;
}

TEST(Scan, MaximumAndItsPlaceAreThoseOfAPlainLoopAtEverySize) {
  std::mt19937 random(1);
  for (size_t size = 1; size < 200; ++size) {
    for (int round = 0; round < 20; ++round) {
      const std::vector<float> x = random_values(random, size, 3);
      const auto at = std::ranges::max_element(x);
      EXPECT_EQ(max_value(x), *at);
      EXPECT_EQ(first_max(x), static_cast<size_t>(at - x.begin()));
    }
  }
}

TEST(Scan, EdgeValuesAreOrderedAsNumbers) {
  EXPECT_EQ(max_value({}), -kInfinity);
  EXPECT_EQ(first_max({}), 0U);
  EXPECT_EQ(first_max(std::vector<float>{-0.0F, 0.0F}), 0U);
  EXPECT_EQ(first_max(std::vector<float>{-1.0F, 0.0F, -0.0F}), 1U);
  std::vector<float> x(40, -kInfinity);
  EXPECT_EQ(first_max(x), 0U);
  EXPECT_EQ(next_above(x, 0, -kInfinity), 40U);
  x[37] = -std::numeric_limits<float>::max();
  EXPECT_EQ(first_max(x), 37U);
  EXPECT_EQ(next_above(x, 0, -kInfinity), 37U);
  x[38] = kInfinity;
  EXPECT_EQ(first_max(x), 38U);
}

TEST(Scan, OneNaNIsFoundAnywhere) {
  for (const size_t n : {1, 5, 16, 67}) {
    std::vector<float> x(n, kInfinity);
    EXPECT_FALSE(has_nan(x));
    for (size_t i = 0; i < n; ++i) {
      x[i] = std::numeric_limits<float>::quiet_NaN();
      EXPECT_TRUE(has_nan(x)) << i << " of " << n;
      x[i] = -kInfinity;
    }
  }
}

TEST(Scan, NextAboveFindsEveryIndexThatAPlainLoopFinds) {
  std::mt19937 random(2);
  for (const size_t size : {0, 1, 15, 16, 17, 31, 32, 33, 100, 500}) {
    for (const float threshold : {-kInfinity, -3.0F, 0.0F, 2.0F, 6.0F, 100.0F}) {
      const std::vector<float> x = random_values(random, size, 3);
      std::vector<size_t> expected;
      for (size_t i = 0; i < size; ++i) {
        if (x[i] > threshold) expected.push_back(i);
      }
      std::vector<size_t> found;
      for (size_t i = next_above(x, 0, threshold); i < size; i = next_above(x, i + 1, threshold)) {
        found.push_back(i);
      }
      EXPECT_EQ(found, expected);
    }
  }
}

TEST(Scan, LogSumExpAgreesWithDoublePrecision) {
  std::mt19937 random(4);
  for (const size_t size : {1, 3, 16, 17, 100, 4096, 4097, 49152, 151936}) {
    for (const float spread : {0.0F, 0.01F, 1.0F, 5.0F, 40.0F}) {
      const std::vector<float> x = random_values(random, size, spread);
      const float max = max_value(x);
      double sum = 0;
      for (const float value : x) sum += std::exp(double{value} - max);
      EXPECT_NEAR(log_sum_exp(x, max), max + std::log(sum), 1e-6) << size << " " << spread;
    }
  }
}

TEST(Scan, LogSumExpIsAccurateForASingleTermAtEveryDistance) {
  for (double distance = 0; distance < 20; distance += 0.0037) {
    std::vector<float> x(16, -kInfinity);
    x[3] = 0;
    x[9] = static_cast<float>(-distance);
    EXPECT_NEAR(std::exp(log_sum_exp(x, 0)) - 1, std::exp(double{x[9]}),
                3e-7 * std::exp(-distance) + 1e-7);
  }
}

TEST(Scan, LogSumExpOfInfinitiesIsTheMaximum) {
  EXPECT_EQ(log_sum_exp(std::vector<float>(20, -kInfinity), -kInfinity), -kInfinity);
  EXPECT_EQ(log_sum_exp(std::vector<float>{1, kInfinity}, kInfinity), kInfinity);
}

}  // namespace
}  // namespace banyan
