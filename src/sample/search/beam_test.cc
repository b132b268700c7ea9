// SPDX-License-Identifier: Apache-2.0
// Beams over made-up models, against all texts that there are.
#include "sample/search/beam.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

namespace banyan {
namespace {

constexpr int kVocabulary = 5;
constexpr TokenId kEnd = 0;

const auto ends = [](TokenId token) { return token == kEnd; };

// Log-probabilities behind a text, which depend on all of it.
std::vector<TokenLogprob> model(const std::vector<TokenId>& text, uint32_t seed) {
  std::seed_seq words(text.begin(), text.end());
  std::vector<uint32_t> key(1);
  words.generate(key.begin(), key.end());
  std::mt19937 random(key[0] + seed);
  std::vector<double> weights(kVocabulary);
  double sum = 0;
  for (double& w : weights) {
    w = std::exp(std::uniform_real_distribution(-2.0, 2.0)(random));
    sum += w;
  }
  std::vector<TokenLogprob> all;
  for (TokenId t = 0; t < kVocabulary; ++t) {
    all.push_back({t, static_cast<float>(std::log(weights[t] / sum))});
  }
  std::ranges::sort(all, std::ranges::greater(), &TokenLogprob::logprob);
  return all;
}

BeamSearch run(const BeamParams& params, uint32_t seed) {
  BeamSearch search(params);
  while (!search.done()) {
    std::vector<std::vector<TokenLogprob>> candidates;
    for (const BeamSearch::Beam& beam : search.beams()) {
      auto likeliest = model(beam.tokens, seed);
      likeliest.resize(std::min<size_t>(likeliest.size(), search.n_candidates(1)));
      candidates.push_back(std::move(likeliest));
    }
    search.advance(candidates, ends);
  }
  return search;
}

// Every text up to `length` tokens, with its score.
void all_texts(std::vector<TokenId>& text, double sum, int length, float penalty, uint32_t seed,
               std::vector<BeamSearch::Hypothesis>& out) {
  for (const auto& [token, logprob] : model(text, seed)) {
    const size_t n = text.size() + 1;
    const double score = (sum + logprob) / std::pow(n, penalty);
    if (token == kEnd) {
      out.push_back({text, score, true});
      continue;
    }
    text.push_back(token);
    if (n == size_t(length)) {
      out.push_back({text, score, false});
    } else {
      all_texts(text, sum + logprob, length, penalty, seed, out);
    }
    text.pop_back();
  }
}

TEST(Beam, WideEnoughItFindsTheBestOfAllTexts) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    for (const float penalty : {0.0F, 1.0F, 2.0F}) {
      BeamParams params;
      params.width = 400;  // 4^4 texts and more cannot all be beaten
      params.max_tokens = 4;
      params.length_penalty = penalty;
      params.early_stop = EarlyStop::kNever;
      const auto found = run(params, seed).hypotheses();
      std::vector<BeamSearch::Hypothesis> all;
      std::vector<TokenId> text;
      all_texts(text, 0, params.max_tokens, penalty, seed, all);
      std::ranges::sort(all, std::ranges::greater(), &BeamSearch::Hypothesis::score);
      ASSERT_GE(all.size(), 300U);
      for (size_t i = 0; i < 300; ++i) {
        ASSERT_NEAR(found[i].score, all[i].score, 1e-6) << i;
      }
      EXPECT_EQ(found[0].tokens, all[0].tokens);
    }
  }
}

TEST(Beam, OneBeamIsGreedy) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    BeamParams params;
    params.width = 1;
    params.max_tokens = 6;
    params.early_stop = EarlyStop::kAtOnce;
    std::vector<TokenId> text;
    double sum = 0;
    int n = 0;
    bool ended = false;
    while (n < params.max_tokens && !ended) {
      const TokenLogprob best = model(text, seed).front();
      sum += best.logprob;
      ++n;
      ended = best.token == kEnd;
      if (!ended) text.push_back(best.token);
    }
    const auto found = run(params, seed).hypotheses();
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].tokens, text);
    EXPECT_EQ(found[0].ended, ended);
    EXPECT_NEAR(found[0].score, sum / n, 1e-6);
  }
}

TEST(Beam, StopsEarlyOnlyWhereItIsTold) {
  // Ends are likely at once; longer texts get better and better under a penalty of 2.
  const std::vector<TokenLogprob> first = {{kEnd, -0.5F}, {1, -1.0F}, {2, -3.0F}};
  const auto steps = [&](EarlyStop early_stop) {
    BeamParams params;
    params.width = 1;
    params.max_tokens = 10;
    params.length_penalty = 2;
    params.early_stop = early_stop;
    BeamSearch search(params);
    int n = 0;
    for (; !search.done(); ++n) search.advance(std::vector(search.beams().size(), first), ends);
    EXPECT_EQ(search.hypotheses().size(), 1U);
    return n;
  };
  EXPECT_EQ(steps(EarlyStop::kAtOnce), 1);
  // Sum -1 after one token scores below -0.5; never: -1 / 10^2 would score above.
  EXPECT_EQ(steps(EarlyStop::kHopeless), 1);
  EXPECT_GT(steps(EarlyStop::kNever), 1);
}

TEST(Beam, GroupsOfOneChooseDifferentTokens) {
  const std::vector<TokenLogprob> same = {{1, -0.1F}, {2, -2.0F}, {3, -2.5F}, {4, -3.0F}};
  BeamParams params;
  params.width = 3;
  params.groups = 3;
  params.max_tokens = 2;
  const auto firsts = [&](float diversity) {
    params.diversity = diversity;
    BeamSearch search(params);
    EXPECT_EQ(search.beams().size(), 3U);
    search.advance(std::vector(3, same), ends);
    std::vector<TokenId> tokens;
    for (const BeamSearch::Beam& beam : search.beams()) tokens.push_back(beam.tokens[0]);
    return tokens;
  };
  EXPECT_EQ(firsts(0), (std::vector<TokenId>{1, 1, 1}));
  EXPECT_EQ(firsts(5), (std::vector<TokenId>{1, 2, 3}));
  // -0.1 - 2 x 1 beats -2.5, not -2.0.
  EXPECT_EQ(firsts(1), (std::vector<TokenId>{1, 1, 2}));
}

TEST(Beam, HypothesesAreDistinctSortedAndNegative) {
  for (uint32_t seed = 0; seed < 50; ++seed) {
    BeamParams params;
    params.width = 4;
    params.max_tokens = 7;
    const auto found = run(params, seed).hypotheses();
    ASSERT_EQ(found.size(), 4U);
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_LT(found[i].score, 0);
      for (size_t j = 0; j < i; ++j) {
        EXPECT_GE(found[j].score, found[i].score);
        EXPECT_TRUE(found[j].tokens != found[i].tokens || found[j].ended != found[i].ended);
      }
    }
  }
}

TEST(Beam, ParamsOutOfRangeAreRefused) {
  const auto refused = [](auto change) {
    BeamParams params;
    change(params);
    const auto valid = validate(params);
    return valid ? std::string() : valid.error().message;
  };
  EXPECT_EQ(refused([](BeamParams&) {}), "");
  EXPECT_NE(refused([](BeamParams& p) { p.width = 0; }).find("--beams"), std::string::npos);
  EXPECT_NE(refused([](BeamParams& p) { p.groups = 3; }).find("--beam-groups"), std::string::npos);
  EXPECT_NE(refused([](BeamParams& p) { p.max_tokens = 0; }).find("-n"), std::string::npos);
  EXPECT_NE(refused([](BeamParams& p) { p.diversity = -1; }).find("--diversity"),
            std::string::npos);
  EXPECT_NE(refused([](BeamParams& p) {
              p.length_penalty = std::numeric_limits<float>::quiet_NaN();
            }).find("--length-penalty"),
            std::string::npos);
}

}  // namespace
}  // namespace banyan
