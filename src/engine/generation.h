// SPDX-License-Identifier: Apache-2.0
#pragma once
// One answer in the making: from logits to tokens to text, and when it is complete. It knows
// nothing of KV, so an answer may lose its place in the tree and go on as if nothing had been.

#include "engine/request.h"
#include "sample/stop.h"
#include "text/tokenizer.h"

namespace banyan {

class Generation {
 public:
  // The answer grows in `sample`. `index`: which of the request's answers; `past`: the prompt.
  // Takes memory for as many tokens as will be chosen, up to some thousands. `tokenizer`, `request`
  // and `sample` must outlive it.
  Generation(const Tokenizer& tokenizer, const Request& request, int index,
             std::span<const TokenId> past, const Listener& listener, Sample& sample);
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  // The next token after these logits, [at least vocabulary], or kNoToken if the answer is complete
  // (sample.finish says why). Requires request.max_tokens > 0. Allocates nothing but what the text
  // and stop strings need.
  TokenId choose(std::span<const float> logits);

  // Says what was held back. To be called once, at the end.
  void finish();

 private:
  void say(TokenId token, const std::string& text);

  const Tokenizer& tokenizer_;
  Sampler sampler_;
  StreamDetokenizer detokenizer_;
  StopMatcher stop_;
  const FunctionRef<bool(TokenId, const std::string&)>* on_token_;
  bool refused_ = false;  // by the listener
  size_t max_tokens_;
  double logprob_sum_ = 0;
  size_t n_chosen_ = 0;
  Sample& sample_;
};

}  // namespace banyan
