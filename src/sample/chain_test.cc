// SPDX-License-Identifier: Apache-2.0
// Each stage against the plainest form of it: everything sorted, everything in double.

#include "sample/chain.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <set>

namespace banyan {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> random_logits(std::mt19937& random, size_t size, float spread) {
  std::normal_distribution<float> normal(-2, spread);
  std::vector<float> logits(size);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

std::vector<Candidate> all_of(std::span<const float> logits) {
  std::vector<Candidate> candidates;
  select_top_k(logits, 0, candidates);
  return candidates;
}

std::vector<TokenId> tokens_of(std::span<const Candidate> candidates) {
  std::vector<TokenId> tokens;
  for (const Candidate& c : candidates) tokens.push_back(c.token);
  return tokens;
}

std::set<TokenId> set_of(std::span<const Candidate> candidates) {
  const std::vector<TokenId> tokens = tokens_of(candidates);
  return {tokens.begin(), tokens.end()};
}

std::vector<double> softmax(std::span<const float> logits) {
  const double max = *std::ranges::max_element(logits);
  std::vector<double> p;
  for (const float logit : logits) p.push_back(std::exp(logit - max));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& value : p) value /= sum;
  return p;
}

// Token ids in the order of `key`, smallest first, ties by id.
template <class Key>
std::vector<TokenId> ordered(size_t size, Key key) {
  std::vector<TokenId> ids(size);
  std::iota(ids.begin(), ids.end(), 0);
  std::ranges::stable_sort(ids, {}, key);
  return ids;
}

constexpr size_t kSizes[] = {1, 2, 3, 16, 17, 127, 128, 129, 700, 5000, 49152};

TEST(SelectTopK, GivesTheFirstOfAFullSort) {
  std::mt19937 random(1);
  for (const size_t size : kSizes) {
    const std::vector<float> logits = random_logits(random, size, 3);
    const std::vector<TokenId> sorted = ordered(size, [&](TokenId t) { return -logits[t]; });
    for (const size_t k : {1, 2, 40, 64, 100, 1000}) {
      if (k >= size) continue;
      std::vector<Candidate> candidates;
      select_top_k(logits, k, candidates);
      EXPECT_EQ(tokens_of(candidates), std::vector<TokenId>(sorted.begin(), sorted.begin() + k));
    }
  }
}

TEST(SelectTopK, EqualLogitsGoToTheLowerIds) {
  std::mt19937 random(2);
  for (int round = 0; round < 200; ++round) {
    const size_t size = 1 + random() % 600;
    std::vector<float> logits(size);
    for (float& logit : logits) logit = static_cast<float>(random() % 4) * (random() % 2 ? 1 : -1);
    for (float& logit : logits) logit = random() % 5 == 0 ? -0.0F : logit;
    const size_t k = 1 + random() % 80;
    if (k >= size) continue;
    std::vector<Candidate> candidates;
    select_top_k(logits, k, candidates);
    const std::vector<TokenId> sorted = ordered(size, [&](TokenId t) { return -logits[t]; });
    ASSERT_EQ(tokens_of(candidates), std::vector<TokenId>(sorted.begin(), sorted.begin() + k));
  }
}

TEST(SelectTopK, ForbiddenTokensAreNeverCandidates) {
  std::vector<float> logits(300, -kInfinity);
  logits[7] = -5;
  logits[299] = 2;
  for (const size_t k : {1, 2, 3, 40, 300, 1000}) {
    std::vector<Candidate> candidates;
    select_top_k(logits, k, candidates);
    EXPECT_EQ(set_of(candidates), k == 1 ? std::set<TokenId>{299} : (std::set<TokenId>{7, 299}));
  }
  logits.assign(300, -kInfinity);
  EXPECT_TRUE(all_of(logits).empty());
}

TEST(SelectTopK, ZeroOrTheWholeVocabularyIsAllById) {
  std::mt19937 random(3);
  const std::vector<float> logits = random_logits(random, 500, 2);
  for (const size_t k : {0, 500, 501, 100000}) {
    std::vector<Candidate> candidates;
    select_top_k(logits, k, candidates);
    std::vector<TokenId> ids(500);
    std::iota(ids.begin(), ids.end(), 0);
    EXPECT_EQ(tokens_of(candidates), ids);
  }
}

TEST(KeepTopP, KeepsTheFewestBestThatReachP) {
  std::mt19937 random(4);
  for (const size_t size : kSizes) {
    for (const float spread : {0.1F, 1.0F, 4.0F}) {
      const std::vector<float> logits = random_logits(random, size, spread);
      const std::vector<double> p = softmax(logits);
      const std::vector<TokenId> sorted = ordered(size, [&](TokenId t) { return -logits[t]; });
      for (const float top_p : {1e-6F, 0.1F, 0.5F, 0.95F, 0.999F}) {
        std::vector<TokenId> expected;
        double sum = 0;
        for (size_t i = 0; i < size && (i == 0 || sum < top_p); ++i) {
          expected.push_back(sorted[i]);
          sum += p[sorted[i]];
        }
        std::vector<Candidate> candidates = all_of(logits);
        keep_top_p(candidates, top_p);
        EXPECT_EQ(tokens_of(candidates), expected) << size << " " << spread << " " << top_p;
      }
    }
  }
}

TEST(KeepTopP, ASumThatJustReachesPIsEnough) {
  const std::vector<float> logits{0, 0, 0, 0};  // a quarter each, exactly
  std::vector<Candidate> candidates = all_of(logits);
  keep_top_p(candidates, 0.5F);
  EXPECT_EQ(tokens_of(candidates), (std::vector<TokenId>{0, 1}));
}

TEST(KeepTypical, KeepsThoseNearestToTheEntropyUntilTheyPassP) {
  std::mt19937 random(5);
  for (const size_t size : kSizes) {
    for (const float spread : {0.3F, 1.0F, 4.0F}) {
      const std::vector<float> logits = random_logits(random, size, spread);
      const std::vector<double> p = softmax(logits);
      double entropy = 0;
      for (const double value : p) entropy -= value > 0 ? value * std::log(value) : 0;
      const std::vector<TokenId> sorted =
          ordered(size, [&](TokenId t) { return std::abs(-std::log(p[t]) - entropy); });
      for (const float typical : {0.05F, 0.5F, 0.9F}) {
        std::set<TokenId> expected;
        double sum = 0;
        for (size_t i = 0; i < size && sum <= typical; ++i) {
          expected.insert(sorted[i]);
          sum += p[sorted[i]];
        }
        std::vector<Candidate> candidates = all_of(logits);
        keep_typical(candidates, typical);
        EXPECT_EQ(set_of(candidates), expected) << size << " " << spread << " " << typical;
      }
    }
  }
}

TEST(KeepTypical, CandidatesOfVanishingProbabilityAreNoProblem) {
  const std::vector<float> logits{0, -200, -3e38F, 0.5F};
  std::vector<Candidate> candidates = all_of(logits);
  keep_typical(candidates, 0.99F);
  EXPECT_EQ(set_of(candidates), (std::set<TokenId>{0, 3}));
}

TEST(KeepMinP, KeepsThoseWithinAFactorOfTheBestInTheirOrder) {
  std::mt19937 random(6);
  for (const size_t size : kSizes) {
    const std::vector<float> logits = random_logits(random, size, 3);
    const std::vector<double> p = softmax(logits);
    const double best = *std::ranges::max_element(p);
    for (const float min_p : {1e-4F, 0.05F, 0.5F, 1.0F}) {
      std::vector<TokenId> expected;
      for (size_t t = 0; t < size; ++t) {
        if (p[t] >= min_p * best) expected.push_back(static_cast<TokenId>(t));
      }
      std::vector<Candidate> candidates = all_of(logits);
      keep_min_p(candidates, min_p);
      EXPECT_EQ(tokens_of(candidates), expected);
    }
  }
}

TEST(Chain, ValuesThatTurnAStageOffKeepEveryCandidateAndTheOrder) {
  std::mt19937 random(7);
  const std::vector<float> logits = random_logits(random, 300, 3);
  std::vector<Candidate> candidates = all_of(logits);
  const std::vector<TokenId> before = tokens_of(candidates);
  keep_typical(candidates, 1);
  keep_top_p(candidates, 1);
  keep_min_p(candidates, 0);
  EXPECT_EQ(tokens_of(candidates), before);
}

TEST(Weigh, IsTheSoftmaxAtATemperatureUpToAFactor) {
  std::mt19937 random(8);
  const std::vector<float> logits = random_logits(random, 100, 3);
  for (const float temperature : {1e-40F, 0.1F, 1.0F, 7.0F, 1e30F}) {
    std::vector<float> scaled;
    const float max = *std::ranges::max_element(logits);
    for (const float logit : logits) scaled.push_back((logit - max) / temperature);
    const std::vector<double> expected = softmax(scaled);
    std::vector<Candidate> candidates = all_of(logits);
    const double sum = weigh(candidates, temperature);
    for (size_t i = 0; i < 100; ++i) EXPECT_NEAR(candidates[i].p / sum, expected[i], 1e-6);
  }
}

TEST(Draw, TakesTheCandidateWhoseShareHoldsTheFraction) {
  const std::vector<Candidate> candidates{
      {10, 0, 0}, {11, 0, 1}, {12, 0, 0}, {13, 0, 3}, {14, 0, 0}};
  EXPECT_EQ(draw(candidates, 4, 0.0), 11);
  EXPECT_EQ(draw(candidates, 4, 0.2499), 11);
  EXPECT_EQ(draw(candidates, 4, 0.25), 13);
  EXPECT_EQ(draw(candidates, 4, 0.9999), 13);
  EXPECT_EQ(draw(candidates, 4.0001, 0.99999999), 13) << "a sum rounded up";
}

}  // namespace
}  // namespace banyan
