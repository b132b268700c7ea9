// SPDX-License-Identifier: Apache-2.0
#include "sample/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <map>
#include <new>
#include <numeric>
#include <random>

namespace {
uint64_t allocations = 0;  // by this program
}

// Not inlined, because g++ then takes new and free() for a mismatch.
[[gnu::noinline]] void* operator new(size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(size_t size, const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(size);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace banyan {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

std::vector<float> random_logits(uint32_t seed, size_t size, float spread) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(size);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

// All stages off.
SamplerParams plain() {
  SamplerParams params;
  params.temperature = 1;
  params.top_k = 0;
  params.top_p = 1;
  params.min_p = 0;
  return params;
}

// --- the oracle: the whole chain in double on one sorted list ---

struct Weighted {
  TokenId token;
  double logit;
  double p;
};

void normalise(std::vector<Weighted>& list, double temperature) {
  double max = -1e300;
  double sum = 0;
  for (const Weighted& w : list) max = std::max(max, w.logit);
  for (Weighted& w : list) sum += w.p = std::exp((w.logit - max) / temperature);
  for (Weighted& w : list) w.p /= sum;
}

// Cuts a list ordered by `key` after the entry at which the sum of p is `enough`.
template <class Key, class Enough>
void cut(std::vector<Weighted>& list, Key key, Enough enough) {
  normalise(list, 1);
  std::ranges::stable_sort(list, {}, key);
  double sum = 0;
  size_t kept = 0;
  while (kept < list.size()) {
    sum += list[kept++].p;
    if (enough(sum)) break;
  }
  list.resize(kept);
}

std::vector<double> oracle(const std::vector<float>& logits, const SamplerParams& params,
                           const std::vector<TokenId>& text) {
  std::vector<Weighted> list;
  const size_t window =
      params.repeat_last_n < 0 ? text.size() : std::min<size_t>(params.repeat_last_n, text.size());
  for (TokenId t = 0; t < TokenId(logits.size()); ++t) {
    double logit = logits[t];
    for (const auto& [token, bias] : params.logit_bias) logit += token == t ? bias : 0;
    const auto count = std::count(text.end() - window, text.end(), t);
    if (count > 0) {
      logit = logit > 0 ? logit / params.repeat_penalty : logit * params.repeat_penalty;
      logit -= count * params.frequency_penalty + params.presence_penalty;
    }
    if (logit > -1e300) list.push_back({t, logit, 0});
  }
  std::ranges::stable_sort(list, std::ranges::greater{}, &Weighted::logit);
  if (params.temperature == 0) list.resize(1);
  if (params.top_k > 0 && list.size() > size_t(params.top_k)) list.resize(params.top_k);
  if (params.typical_p < 1) {
    normalise(list, 1);
    double entropy = 0;
    for (const Weighted& w : list) entropy -= w.p * std::log(w.p);
    cut(
        list, [&](const Weighted& w) { return std::abs(-std::log(w.p) - entropy); },
        [&](double sum) { return sum > params.typical_p; });
  }
  if (params.top_p < 1) {
    cut(
        list, [](const Weighted& w) { return -w.logit; },
        [&](double sum) { return sum >= params.top_p; });
  }
  normalise(list, 1);
  double best = 0;
  for (const Weighted& w : list) best = std::max(best, w.p);
  std::erase_if(list, [&](const Weighted& w) { return w.p < params.min_p * best; });
  normalise(list, params.temperature == 0 ? 1 : params.temperature);
  std::vector<double> p(logits.size(), 0);
  for (const Weighted& w : list) p[w.token] = w.p;
  return p;
}

// Draws many times and compares the counts with the oracle's probabilities (Pearson's chi-square).
void expect_distribution(const std::vector<float>& logits, SamplerParams params,
                         const std::vector<TokenId>& text, int n_draws) {
  params.want_logprob = false;
  ASSERT_TRUE(validate(params, static_cast<int32_t>(logits.size())).has_value());
  Sampler sampler(params, static_cast<int32_t>(logits.size()));
  for (const TokenId token : text) sampler.accept(token);
  std::vector<int> drawn(logits.size(), 0);
  for (int i = 0; i < n_draws; ++i) ++drawn[sampler.sample(logits).token];

  const std::vector<double> p = oracle(logits, params, text);
  double chi_square = 0;
  int freedom = -1;
  double rare_expected = 0;  // those expected less than 5 times count as one
  double rare_drawn = 0;
  for (size_t t = 0; t < p.size(); ++t) {
    const double expected = p[t] * n_draws;
    if (expected == 0) {
      ASSERT_EQ(drawn[t], 0) << "token " << t << " is cut by a stage";
    } else if (expected < 5) {
      rare_expected += expected;
      rare_drawn += drawn[t];
    } else {
      chi_square += (drawn[t] - expected) * (drawn[t] - expected) / expected;
      ++freedom;
    }
  }
  if (rare_expected >= 5) {
    chi_square += (rare_drawn - rare_expected) * (rare_drawn - rare_expected) / rare_expected;
    ++freedom;
  }
  // Mean and standard deviation of the distribution; four of these are passed once in thousands.
  EXPECT_LE(chi_square, freedom + 4 * std::sqrt(2.0 * std::max(freedom, 0)) + 1e-9)
      << freedom << " degrees of freedom";
}

TEST(Sampler, DrawsFollowTheProbabilitiesOfTheChain) {
  const std::vector<float> logits = random_logits(1, 80, 2);
  std::vector<SamplerParams> sets;
  sets.push_back(plain());
  sets.push_back({});  // the defaults
  sets.push_back(plain());
  sets.back().temperature = 0.5F;
  sets.push_back(plain());
  sets.back().temperature = 3;
  sets.push_back(plain());
  sets.back().top_k = 7;
  sets.push_back(plain());
  sets.back().top_p = 0.8F;
  sets.push_back(plain());
  sets.back().min_p = 0.1F;
  sets.back().temperature = 2;
  sets.push_back(plain());
  sets.back().typical_p = 0.6F;
  sets.push_back(plain());
  sets.back().typical_p = 0.9F;
  sets.back().top_k = 60;
  sets.back().top_p = 0.9F;
  sets.back().min_p = 0.02F;
  sets.back().temperature = 1.3F;
  for (size_t i = 0; i < sets.size(); ++i) {
    SCOPED_TRACE(i);
    sets[i].seed = 1000 + i;
    expect_distribution(logits, sets[i], {}, 200000);
  }
}

TEST(Sampler, PenaltiesAndBiasChangeTheProbabilitiesAsTheirFormulasSay) {
  const std::vector<float> logits = random_logits(2, 50, 1.5F);
  std::vector<TokenId> text;
  for (int i = 0; i < 100; ++i) text.push_back(i * i % 31 % 17);
  for (const int last_n : {0, 1, 5, 64, 200, -1}) {
    SCOPED_TRACE(last_n);
    SamplerParams params = plain();
    params.seed = 7;
    params.repeat_last_n = last_n;
    params.repeat_penalty = 1.4F;
    params.presence_penalty = 0.3F;
    params.frequency_penalty = 0.05F;
    params.logit_bias = {{3, 1.5F}, {40, -kInfinity}, {9, -1.0F}, {3, 0.25F}};
    expect_distribution(logits, params, text, 50000);
    params.repeat_penalty = 0.7F;
    params.presence_penalty = -0.5F;
    params.frequency_penalty = -0.01F;
    params.top_k = 20;
    expect_distribution(logits, params, text, 50000);
  }
}

TEST(Sampler, GreedyTakesTheLargestAfterBiasAndPenaltiesAndTiesGoToTheLowerId) {
  SamplerParams params;
  params.temperature = 0;
  std::vector<float> logits{1, 5, -3, 5, 2};
  EXPECT_EQ(Sampler(params, 5).sample(logits).token, 1);
  EXPECT_EQ(Sampler(params, 5).sample(std::vector<float>{-0.0F, 0, 0, -1, -0.0F}).token, 0);
  EXPECT_EQ(Sampler(params, 5).sample(std::vector<float>(5, -kInfinity)).token, 0);
  EXPECT_EQ(Sampler(params, 1).sample(std::vector<float>{-8}).token, 0);

  params.logit_bias = {{1, -kInfinity}, {3, -3.5F}};
  EXPECT_EQ(Sampler(params, 5).sample(logits).token, 4);
  logits[1] = kInfinity;
  EXPECT_EQ(Sampler(params, 5).sample(logits).token, 4) << "forbidden whatever the logit";

  params = {};
  params.temperature = 0;
  params.repeat_penalty = 2;
  Sampler sampler(params, 3);
  logits = {4, 3, -1};
  EXPECT_EQ(sampler.sample(logits).token, 0);
  sampler.accept(0);
  EXPECT_EQ(sampler.sample(logits).token, 1);
  sampler.accept(1);
  EXPECT_EQ(sampler.sample(logits).token, 0);
  logits = {-1, -1.5F, -3};
  EXPECT_EQ(sampler.sample(logits).token, 0) << "below 0 the penalty multiplies: -2, -3, -3";
}

TEST(Sampler, GreedyAgreesWithTheOracleOnRandomLogits) {
  std::mt19937 random(5);
  for (int round = 0; round < 300; ++round) {
    const std::vector<float> logits = random_logits(round, 1 + random() % 3000, 2);
    const auto n = static_cast<int32_t>(logits.size());
    SamplerParams params;
    params.temperature = 0;
    params.repeat_last_n = static_cast<int>(random() % 20) - 1;
    params.repeat_penalty = random() % 2 == 0 ? 1.0F : 1.5F;
    params.frequency_penalty = random() % 2 == 0 ? 0.0F : 0.7F;
    if (random() % 2 == 0) params.logit_bias = {{TokenId(random() % n), 4.0F}};
    std::vector<TokenId> text;
    Sampler sampler(params, n);
    for (int i = 0; i < 30; ++i) {
      const TokenId token = sampler.sample(logits).token;
      ASSERT_EQ(oracle(logits, params, text)[token], 1.0);
      text.push_back(token);
      sampler.accept(token);
    }
  }
}

TEST(Sampler, TheSameSeedGivesTheSameTokensAndAnotherGivesOthers) {
  const std::vector<float> logits = random_logits(3, 1000, 1);
  const auto stream = [&](uint64_t seed) {
    SamplerParams params;
    params.seed = seed;
    Sampler sampler(params, 1000);
    std::vector<TokenId> tokens(100);
    for (TokenId& token : tokens) token = sampler.sample(logits).token;
    return tokens;
  };
  EXPECT_EQ(stream(1), stream(1));
  EXPECT_NE(stream(1), stream(2));
  EXPECT_NE(stream(0), stream(1));
  EXPECT_NE(stream(0), stream(uint64_t{1} << 63));
}

TEST(Sampler, ACopyGoesOnAsItsOriginalWould) {
  const std::vector<float> logits = random_logits(3, 100, 1);
  SamplerParams params;
  params.frequency_penalty = 0.5F;
  Sampler original(params, 100);
  for (int i = 0; i < 10; ++i) original.accept(original.sample(logits).token);
  Sampler copy = original;
  for (int i = 0; i < 50; ++i) {
    const TokenId token = original.sample(logits).token;
    EXPECT_EQ(copy.sample(logits).token, token);
    original.accept(token);
    copy.accept(token);
  }
}

// Seeding and generator written out anew from their papers, in 128 bits.
TEST(Sampler, RandomNumbersAreXoshiro256PlusPlusSeededBySplitMix64) {
  using Wide = unsigned __int128;
  const auto mod = [](Wide x) { return static_cast<uint64_t>(x); };
  uint64_t seed = 42;
  uint64_t s[4];
  for (uint64_t& word : s) {
    seed = mod(Wide{seed} + 0x9e3779b97f4a7c15);
    uint64_t z = mod(Wide{seed ^ (seed >> 30)} * 0xbf58476d1ce4e5b9);
    z = mod(Wide{z ^ (z >> 27)} * 0x94d049bb133111eb);
    word = z ^ (z >> 31);
  }
  const auto rotate = [](uint64_t x, int by) { return (x << by) | (x >> (64 - by)); };
  SamplerParams params = plain();
  params.seed = 42;
  Sampler sampler(params, 1024);
  const std::vector<float> uniform(1024, 0.0F);  // the token is the leading ten bits
  for (int i = 0; i < 100; ++i) {
    const uint64_t number = rotate(s[0] + s[3], 23) + s[0];
    EXPECT_EQ(static_cast<uint64_t>(sampler.sample(uniform).token), number >> 54);
    const uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
  }
}

TEST(Sampler, LogprobsAreTheModelsWhateverTheChainDoes) {
  for (const size_t size : {1, 2, 5, 1000, 49152}) {
    const std::vector<float> logits = random_logits(9, size, 3);
    double sum = 0;
    for (const float logit : logits) sum += std::exp(double{logit});
    std::vector<TokenId> sorted(size);
    std::iota(sorted.begin(), sorted.end(), 0);
    std::ranges::stable_sort(sorted, std::ranges::greater{}, [&](TokenId t) { return logits[t]; });

    SamplerParams params;
    params.temperature = 0.3F;
    params.top_k = 3;
    params.presence_penalty = 1;
    params.logit_bias = {{0, 2.0F}};
    params.top_logprobs = 20;
    Sampler sampler(params, static_cast<int32_t>(size));
    sampler.accept(0);
    for (int i = 0; i < 10; ++i) {
      const Choice choice = sampler.sample(logits);
      EXPECT_NEAR(choice.logprob, logits[choice.token] - std::log(sum), 1e-5);
      ASSERT_EQ(choice.top.size(), std::min<size_t>(20, size));
      for (size_t j = 0; j < choice.top.size(); ++j) {
        EXPECT_EQ(choice.top[j].token, sorted[j]);
        EXPECT_NEAR(choice.top[j].logprob, logits[sorted[j]] - std::log(sum), 1e-5);
      }
    }
  }
}

TEST(Sampler, WithoutWantLogprobTheChoicesAreTheSame) {
  const std::vector<float> logits = random_logits(10, 500, 2);
  SamplerParams params;
  Sampler with(params, 500);
  params.want_logprob = false;
  Sampler without(params, 500);
  for (int i = 0; i < 50; ++i) {
    const Choice a = with.sample(logits);
    const Choice b = without.sample(logits);
    EXPECT_EQ(a.token, b.token);
    EXPECT_LT(a.logprob, 0);
    EXPECT_EQ(b.logprob, 0);
  }
}

TEST(Sampler, ForbiddenTokensAreNeverDrawnAndASingleAllowedOneAlwaysIs) {
  const std::vector<float> logits = random_logits(11, 64, 1);
  SamplerParams params = plain();
  for (TokenId t = 0; t < 64; ++t) {
    if (t % 8 != 5) params.logit_bias.emplace_back(t, -kInfinity);
  }
  Sampler sampler(params, 64);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(sampler.sample(logits).token % 8, 5);

  // Also where the model is sure of it beyond all numbers.
  params = plain();
  params.logit_bias = {{1, -kInfinity}};
  Sampler between(params, 3);
  std::map<TokenId, int> drawn;
  for (int i = 0; i < 200; ++i) ++drawn[between.sample(std::vector<float>{0, kInfinity, 0}).token];
  EXPECT_EQ(drawn.size(), 2U);
  EXPECT_EQ(drawn.count(1), 0U);

  for (const float typical : {0.5F, 1.0F}) {
    params = {};
    params.typical_p = typical;
    Sampler one(params, 64);
    std::vector<float> single(64, -kInfinity);
    single[33] = -1e30F;
    const Choice choice = one.sample(single);
    EXPECT_EQ(choice.token, 33);
    EXPECT_EQ(choice.logprob, 0);
    EXPECT_EQ(one.sample(std::vector<float>(64, -kInfinity)).token, 0);
    single[12] = kInfinity;
    EXPECT_EQ(one.sample(single).token, 12);
    EXPECT_EQ(one.sample(single).logprob, 0);
  }
}

TEST(Sampler, ExtremeValidParametersGiveATokenOfTheVocabulary) {
  std::mt19937 random(12);
  for (int round = 0; round < 500; ++round) {
    const auto pick = [&](std::vector<float> values) { return values[random() % values.size()]; };
    SamplerParams params;
    params.temperature = pick({0, 1e-45F, 1e-3F, 1, 3e38F});
    params.top_k = static_cast<int>(pick({0, 1, 2, 1e9F}));
    params.top_p = pick({1e-45F, 0.5F, 1});
    params.min_p = pick({0, 1e-45F, 0.5F, 1});
    params.typical_p = pick({1e-45F, 0.5F, 1});
    params.repeat_penalty = pick({1e-45F, 1, 3e38F});
    params.repeat_last_n = static_cast<int>(pick({-1, 0, 1, 1e9F}));
    params.frequency_penalty = pick({-2, 0, 2});
    params.logit_bias = {{0, pick({-3e38F, 3e38F, -kInfinity})}, {0, pick({-3e38F, 3e38F})}};
    params.top_logprobs = static_cast<int>(pick({0, 1, 100}));
    const auto size = static_cast<int32_t>(1 + random() % 200);
    ASSERT_TRUE(validate(params, size).has_value());
    Sampler sampler(params, size);
    for (int i = 0; i < 5; ++i) {
      std::vector<float> logits = random_logits(random(), size, pick({0, 1, 100, 1e38F}));
      for (float& logit : logits) {
        if (random() % 10 == 0) logit = pick({-kInfinity, -0.0F, 3e38F, -3e38F});
      }
      const TokenId token = sampler.sample(logits).token;
      ASSERT_TRUE(token >= 0 && token < size);
      sampler.accept(token);
    }
  }
}

TEST(Sampler, SampleAllocatesNothing) {
  const std::vector<float> logits = random_logits(13, 49152, 3);
  std::vector<SamplerParams> sets(5);
  sets[1] = plain();
  sets[2].temperature = 0;
  sets[3] = plain();
  sets[3].typical_p = 0.9F;
  sets[3].top_p = 0.9F;
  sets[4].repeat_penalty = 1.1F;
  sets[4].logit_bias = {{5, 1.0F}};
  for (SamplerParams& params : sets) {
    params.top_logprobs = 5;
    Sampler sampler(params, 49152);
    sampler.accept(17);
    const uint64_t before = allocations;
    for (int i = 0; i < 5; ++i) sampler.sample(logits);
    EXPECT_EQ(allocations - before, 0U);
  }
}

TEST(Validate, AcceptsTheDefaultsAndTheEndsOfEveryRange) {
  EXPECT_TRUE(validate({}, 1).has_value());
  SamplerParams params;
  params.temperature = 0;
  params.top_k = 0;
  params.top_p = 1;
  params.min_p = 1;
  params.typical_p = 1;
  params.repeat_last_n = -1;
  params.presence_penalty = -2;
  params.frequency_penalty = 2;
  params.top_logprobs = 100;
  params.logit_bias = {{0, -kInfinity}, {9, 100.0F}};
  EXPECT_TRUE(validate(params, 10).has_value());
}

TEST(Validate, EveryBadValueIsASentenceThatNamesItsOptionAndTheValue) {
  const auto expect = [](const std::string& option, const std::string& value, auto&& change) {
    SamplerParams params;
    change(params);
    const Result<void> result = validate(params, 10);
    ASSERT_FALSE(result.has_value()) << option << " " << value;
    EXPECT_EQ(result.error().code, ErrorCode::kBadInput);
    EXPECT_NE(result.error().message.find(option), std::string::npos) << result.error().message;
    EXPECT_NE(result.error().message.find(value), std::string::npos) << result.error().message;
  };
  const auto expect_floats = [&](const std::string& option, float SamplerParams::*member,
                                 std::vector<std::pair<float, std::string>> values) {
    values.insert(values.end(), {{kNaN, "nan"}, {kInfinity, "inf"}, {-kInfinity, "-inf"}});
    for (const auto& [value, text] : values) {
      expect(option, text, [&, v = value](SamplerParams& p) { p.*member = v; });
    }
  };
  expect_floats("--temp", &SamplerParams::temperature, {{-0.5F, "-0.5"}});
  expect_floats("--top-p", &SamplerParams::top_p, {{0, "0"}, {1.5F, "1.5"}, {-1, "-1"}});
  expect_floats("--min-p", &SamplerParams::min_p, {{-0.25F, "-0.25"}, {1.5F, "1.5"}});
  expect_floats("--typical", &SamplerParams::typical_p, {{0, "0"}, {2, "2"}});
  expect_floats("--repeat-penalty", &SamplerParams::repeat_penalty, {{0, "0"}, {-1, "-1"}});
  expect_floats("--presence-penalty", &SamplerParams::presence_penalty, {{2.5F, "2.5"}});
  expect_floats("--frequency-penalty", &SamplerParams::frequency_penalty, {{-2.5F, "-2.5"}});
  expect("--top-k", "-1", [](SamplerParams& p) { p.top_k = -1; });
  expect("--repeat-last-n", "-2", [](SamplerParams& p) { p.repeat_last_n = -2; });
  expect("--logprobs", "101", [](SamplerParams& p) { p.top_logprobs = 101; });
  expect("--logprobs", "-1", [](SamplerParams& p) { p.top_logprobs = -1; });
  expect("--logit-bias", "10", [](SamplerParams& p) { p.logit_bias = {{10, 0.0F}}; });
  expect("--logit-bias", "-1", [](SamplerParams& p) { p.logit_bias = {{3, 0.0F}, {-1, 0.0F}}; });
  expect("--logit-bias", "nan", [](SamplerParams& p) { p.logit_bias = {{1, kNaN}}; });
  expect("--logit-bias", "inf", [](SamplerParams& p) { p.logit_bias = {{1, kInfinity}}; });
}

}  // namespace
}  // namespace banyan
