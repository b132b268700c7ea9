// SPDX-License-Identifier: Apache-2.0
#include "engine/generation.h"

#include <algorithm>
#include <limits>

namespace banyan {
namespace {

// Longer answers allocate as they grow: many requests may say that they will be long.
constexpr size_t kReservedTokens = 4096;

SamplerParams sampler_of(const Request& request, int index, const Tokenizer& tokenizer) {
  SamplerParams params = request.sampler;
  params.seed = stream_seed(params.seed, index);
  if (request.samples() > 1) params.want_logprob = true;
  if (request.ignore_eos) {
    for (TokenId token = 0; token < tokenizer.size(); ++token) {
      if (tokenizer.is_end(token)) {
        params.logit_bias.emplace_back(token, -std::numeric_limits<float>::infinity());
      }
    }
  }
  return params;
}

}  // namespace

Generation::Generation(const Tokenizer& tokenizer, const Request& request, int index,
                       std::span<const TokenId> past, const Listener& listener, Sample& sample)
    : tokenizer_(tokenizer),
      sampler_(sampler_of(request, index, tokenizer), tokenizer.size()),
      detokenizer_(tokenizer, Special::kPlain, /*skip_first_space=*/false),
      stop_(request.stop),
      on_token_(request.samples() == 1 ? listener.on_token : nullptr),
      max_tokens_(request.max_tokens),
      sample_(sample) {
  for (const TokenId token : past) sampler_.accept(token);
  const size_t n = std::min(max_tokens_, kReservedTokens);
  sample_.tokens.reserve(n);
  sample_.logprobs.reserve(n);
  sample_.text.reserve(n * 8);
}

TokenId Generation::choose(std::span<const float> logits) {
  // Embeddings may have more rows than there are tokens; those stand for nothing.
  const Choice choice = sampler_.sample(logits.first(tokenizer_.size()));
  logprob_sum_ += choice.logprob;
  sample_.mean_logprob = logprob_sum_ / static_cast<double>(++n_chosen_);
  if (tokenizer_.is_end(choice.token)) {
    sample_.finish = FinishReason::kStop;
    return kNoToken;
  }
  sample_.tokens.push_back(choice.token);
  sample_.logprobs.push_back(choice.logprob);
  if (!choice.top.empty()) {
    sample_.top_logprobs.emplace_back(choice.top.begin(), choice.top.end());
  }
  sampler_.accept(choice.token);
  const auto [emit, stopped] = stop_.push(detokenizer_.push(choice.token));
  say(choice.token, emit);
  if (refused_ || stopped) {
    sample_.finish = refused_ ? FinishReason::kCancelled : FinishReason::kStop;
    return kNoToken;
  }
  if (n_chosen_ < max_tokens_) return choice.token;
  sample_.finish = FinishReason::kLength;
  return kNoToken;
}

void Generation::finish() {
  auto [emit, stopped] = stop_.push(detokenizer_.finish());
  if (!stopped) emit += stop_.finish();
  if (!emit.empty()) say(kNoToken, emit);
}

void Generation::say(TokenId token, const std::string& text) {
  sample_.text += text;
  if (on_token_ == nullptr || refused_) return;
  refused_ = !(*on_token_)(token, text);
}

}  // namespace banyan
