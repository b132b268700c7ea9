// SPDX-License-Identifier: Apache-2.0
#pragma once
// Logits -> the next token. The chain, its order and its defaults are llama.cpp's:
// logit bias, penalties, top-k, typical, top-p, min-p, temperature, draw (sample/chain.h).
// Greedy (temperature 0) takes the largest logit after bias and penalties, ties to the lower id; no
// other stage is looked at.

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "sample/chain.h"
#include "sample/recent_tokens.h"

namespace banyan {

struct SamplerParams {
  float temperature = 0.8F;        // >= 0; 0: greedy
  int top_k = 40;                  // >= 0; 0: all
  float top_p = 0.95F;             // (0, 1]; 1: off
  float min_p = 0.05F;             // [0, 1]; 0: off
  float typical_p = 1.0F;          // (0, 1]; 1: off (Meister et al. 2022)
  float repeat_penalty = 1.0F;     // > 0; 1: off (Keskar et al. 2019). Divides a logit above 0,
                                   // multiplies any other
  int repeat_last_n = 64;          // tokens that penalties look at; -1: all, 0: none
  float presence_penalty = 0.0F;   // [-2, 2], subtracted once from the logit of a token seen
  float frequency_penalty = 0.0F;  // [-2, 2], subtracted for each time it was seen
  std::vector<std::pair<TokenId, float>> logit_bias;  // added; -infinity forbids
  uint64_t seed = 0;
  int top_logprobs = 0;      // [0, 100]: that many alternatives with each choice
  bool want_logprob = true;  // false: Choice::logprob is 0 (unless top_logprobs > 0), and a choice
                             // costs one pass over the vocabulary less (30 to 60 us for 49,152)
};

// kBadInput that names the option (as `banyan run` spells it) and its range, for the first value
// that is NaN, infinite or out of range. Requires vocabulary_size >= 1.
Result<void> validate(const SamplerParams& params, int32_t vocabulary_size);

// The seed of the index-th of several streams that one seed stands for; its own of the first.
uint64_t stream_seed(uint64_t seed, int index);

struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0;
};

// The k likeliest tokens by log-softmax of the logits, best first, equal ones by id; fewer where
// fewer are above -infinity. `scratch` is taken for its memory. Requires k >= 1, no NaN.
void top_logprobs(std::span<const float> logits, size_t k, std::vector<Candidate>& scratch,
                  std::vector<TokenLogprob>& out);

struct Choice {
  TokenId token = 0;
  float logprob = 0;                  // of the model: log-softmax of the raw logits
  std::span<const TokenLogprob> top;  // params.top_logprobs of them (fewer where fewer logits are
                                      // above -infinity), best first; valid until the next sample()
};

// One stream of choices: its own random numbers and its own history. A copy goes on as its original
// would (and takes memory in its first sample()). Not thread safe.
class Sampler {
 public:
  // Requires validate(params, vocabulary_size). All memory of sample() is taken here.
  Sampler(SamplerParams params, int32_t vocabulary_size);

  // A token that now stands in the text (prompt tokens too): penalties count it. Requires a token
  // of the vocabulary. May allocate while the window of penalties fills.
  void accept(TokenId token);

  // Requires logits.size() == vocabulary_size and no NaN. Takes one random number unless greedy.
  // Logits of +infinity win over all others; if all are -infinity, the choice is token 0.
  // Allocates nothing.
  Choice sample(std::span<const float> logits);

 private:
  std::span<const float> adjusted(std::span<const float> logits);
  TokenId choose(std::span<const float> logits);
  double next_fraction();

  SamplerParams params_;
  int32_t vocabulary_size_;
  std::optional<RecentTokens> recent_;  // only where a penalty is on
  std::vector<float> adjusted_;         // [vocabulary] after bias and penalties, where any is on
  std::vector<Candidate> candidates_;   // capacity: vocabulary
  std::vector<TokenLogprob> top_;       // capacity: top_logprobs
  std::array<uint64_t, 4> random_;      // xoshiro256++ (Blackman & Vigna 2019), by splitmix64
};

}  // namespace banyan
