// SPDX-License-Identifier: Apache-2.0
#pragma once
// Measures of a model's answers that are not text: logits and perplexity.

#include <span>
#include <vector>

#include "engine/engine.h"

namespace banyan {

struct LogitsAt {
  int position = 0;           // logits after tokens[position]
  std::vector<float> logits;  // [vocab]
};

// Logits after each of `positions` (ascending, distinct) of `tokens`, computed as a prompt in
// pieces of at most `piece` tokens (<= 0: as large as steps go). kBadInput for positions outside
// the tokens, tokens outside the vocabulary, more tokens than the context.
Result<std::vector<LogitsAt>> evaluate_logits(Engine& engine, std::span<const TokenId> tokens,
                                              std::span<const int> positions, int piece = 0);

struct Perplexity {
  double ppl = 0;
  double standard_error = 0;  // of ppl, first order, windows' tokens taken as independent
  double nll = 0;             // summed over the scored tokens, nats
  int64_t tokens_scored = 0;
};

// Perplexity as llama-perplexity counts it: windows of `context` tokens that do not overlap, each
// from an empty cache, the first one's first token replaced by BOS where the model asks for one;
// of each window the predictions of the tokens after its first half are scored, context / 2 - 1 of
// them. `max_windows` <= 0: all. `progress` may be null.
Result<Perplexity> evaluate_perplexity(
    Engine& engine, std::span<const TokenId> tokens, int context, int max_windows,
    const FunctionRef<void(int done, int total, double ppl)>* progress = nullptr);

}  // namespace banyan
