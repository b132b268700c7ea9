// SPDX-License-Identifier: Apache-2.0
#include "sample/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <utility>

#include "base/check.h"
#include "sample/scan.h"

namespace banyan {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kMaxTopLogprobs = 100;

bool has_penalty(const SamplerParams& p) {
  return p.repeat_last_n != 0 &&
         (p.repeat_penalty != 1 || p.presence_penalty != 0 || p.frequency_penalty != 0);
}

Error out_of_range(const char* option, const char* range, auto value) {
  return bad_input(fmt::format("{} must be {}, but is {}", option, range, value));
}

Result<void> validate_bias(const SamplerParams& params, int32_t vocabulary_size) {
  for (const auto& [token, bias] : params.logit_bias) {
    if (token < 0 || token >= vocabulary_size) {
      return bad_input(fmt::format("--logit-bias names token {}, but tokens are in [0, {})", token,
                                   vocabulary_size));
    }
    if (!std::isfinite(bias) && bias != -kInfinity) {
      return bad_input(fmt::format(
          "--logit-bias of token {} must be a number or -infinity, but is {}", token, bias));
    }
  }
  return {};
}

uint64_t splitmix64(uint64_t& state) {
  uint64_t z = state += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// Certain among infinities, where the difference is not a number.
float logprob_of(float logit, double log_sum) {
  return logit == log_sum ? 0.0F : static_cast<float>(logit - log_sum);
}

void top_logprobs(std::span<const float> logits, double log_sum, size_t k,
                  std::vector<Candidate>& scratch, std::vector<TokenLogprob>& out) {
  select_top_k(logits, k, scratch);
  if (k >= logits.size()) {  // all, and not yet in order
    std::ranges::sort(scratch, {}, [](const Candidate& c) { return std::pair(-c.logit, c.token); });
  }
  out.clear();
  for (const Candidate& c : scratch) out.push_back({c.token, logprob_of(c.logit, log_sum)});
}

}  // namespace

Result<void> validate(const SamplerParams& p, int32_t vocabulary_size) {
  BANYAN_CHECK(vocabulary_size >= 1, "a vocabulary");
  // Comparisons are written so that NaN fails them.
  const auto within = [](float value, float low, float high) {
    return value >= low && value <= high;
  };
  constexpr float kMax = std::numeric_limits<float>::max();
  if (!within(p.temperature, 0, kMax)) {
    return out_of_range("--temp", "a number that is 0 or more", p.temperature);
  }
  if (p.top_k < 0) return out_of_range("--top-k", "0 (all) or more", p.top_k);
  if (!(p.top_p > 0 && p.top_p <= 1)) {
    return out_of_range("--top-p", "above 0 and at most 1", p.top_p);
  }
  if (!within(p.min_p, 0, 1)) return out_of_range("--min-p", "between 0 and 1", p.min_p);
  if (!(p.typical_p > 0 && p.typical_p <= 1)) {
    return out_of_range("--typical", "above 0 and at most 1", p.typical_p);
  }
  if (!(p.repeat_penalty > 0 && p.repeat_penalty <= kMax)) {
    return out_of_range("--repeat-penalty", "a number above 0", p.repeat_penalty);
  }
  if (p.repeat_last_n < -1) {
    return out_of_range("--repeat-last-n", "-1 (all), 0 (none) or more", p.repeat_last_n);
  }
  if (!within(p.presence_penalty, -2, 2)) {
    return out_of_range("--presence-penalty", "between -2 and 2", p.presence_penalty);
  }
  if (!within(p.frequency_penalty, -2, 2)) {
    return out_of_range("--frequency-penalty", "between -2 and 2", p.frequency_penalty);
  }
  BANYAN_TRY(validate_bias(p, vocabulary_size));
  if (p.top_logprobs < 0 || p.top_logprobs > kMaxTopLogprobs) {
    return out_of_range("--logprobs", "between 0 and 100", p.top_logprobs);
  }
  return {};
}

uint64_t stream_seed(uint64_t seed, int index) {
  if (index == 0) return seed;
  uint64_t state = splitmix64(seed) + static_cast<uint64_t>(index);
  return splitmix64(state);
}

void top_logprobs(std::span<const float> logits, size_t k, std::vector<Candidate>& scratch,
                  std::vector<TokenLogprob>& out) {
  top_logprobs(logits, log_sum_exp(logits, max_value(logits)), k, scratch, out);
}

Sampler::Sampler(SamplerParams params, int32_t vocabulary_size)
    : params_(std::move(params)), vocabulary_size_(vocabulary_size) {
  BANYAN_CHECK(validate(params_, vocabulary_size).has_value(), "params were validated");
  if (has_penalty(params_)) recent_.emplace(vocabulary_size, params_.repeat_last_n);
  if (recent_ || !params_.logit_bias.empty()) adjusted_.resize(vocabulary_size);
  if (params_.temperature > 0 || params_.top_logprobs > 0) candidates_.reserve(vocabulary_size);
  top_.reserve(params_.top_logprobs);
  uint64_t state = params_.seed;
  for (uint64_t& word : random_) word = splitmix64(state);
}

void Sampler::accept(TokenId token) {
  BANYAN_CHECK(token >= 0 && token < vocabulary_size_, "a token of the vocabulary");
  if (recent_) recent_->push(token);
}

Choice Sampler::sample(std::span<const float> logits) {
  BANYAN_CHECK(logits.size() == size_t(vocabulary_size_), "a logit for each token");
  Choice choice;
  choice.token = choose(adjusted(logits));
  if (!params_.want_logprob && params_.top_logprobs == 0) return choice;

  const double log_sum = log_sum_exp(logits, max_value(logits));
  choice.logprob = logprob_of(logits[choice.token], log_sum);
  top_.clear();
  if (params_.top_logprobs > 0) {
    top_logprobs(logits, log_sum, params_.top_logprobs, candidates_, top_);
    choice.top = top_;
  }
  return choice;
}

// The logits themselves where nothing changes them.
std::span<const float> Sampler::adjusted(std::span<const float> logits) {
  if (adjusted_.empty()) return logits;
  std::ranges::copy(logits, adjusted_.begin());
  for (const auto& [token, bias] : params_.logit_bias) {
    // Assigned, because no sum with a logit of +infinity forbids.
    adjusted_[token] = bias == -kInfinity ? bias : adjusted_[token] + bias;
  }
  if (!recent_) return adjusted_;
  for (const auto& [token, count] : recent_->entries()) {
    float& logit = adjusted_[token];
    logit = logit > 0 ? logit / params_.repeat_penalty : logit * params_.repeat_penalty;
    logit -= static_cast<float>(count) * params_.frequency_penalty + params_.presence_penalty;
  }
  return adjusted_;
}

TokenId Sampler::choose(std::span<const float> logits) {
  if (params_.temperature == 0) return static_cast<TokenId>(first_max(logits));
  const double fraction = next_fraction();
  if (!std::isfinite(max_value(logits))) return static_cast<TokenId>(first_max(logits));
  select_top_k(logits, params_.top_k, candidates_);
  keep_typical(candidates_, params_.typical_p);
  keep_top_p(candidates_, params_.top_p);
  keep_min_p(candidates_, params_.min_p);
  return draw(candidates_, weigh(candidates_, params_.temperature), fraction);
}

// Uniform in [0, 1), 53 bits.
double Sampler::next_fraction() {
  auto& s = random_;
  const uint64_t result = std::rotl(s[0] + s[3], 23) + s[0];
  const uint64_t t = s[1] << 17;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= t;
  s[3] = std::rotl(s[3], 45);
  return static_cast<double>(result >> 11) * 0x1p-53;
}

}  // namespace banyan
