// SPDX-License-Identifier: Apache-2.0
#pragma once
// What a model makes of a text that is not text: logits, embeddings and perplexity.

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

enum class Pooling {
  kLast,  // the last token, which has seen all others
  kMean,  // over all tokens
};

// The pooled hidden states of `tokens` after the last norm, at length 1 (zeros stay zeros):
// [hidden]. Takes nothing from the cache and leaves nothing in it. `on_tokens` hears how many are
// done and may end it by returning false (kCancelled); it may be null. kBadInput as
// evaluate_logits().
Result<std::vector<float>> embed(Engine& engine, std::span<const TokenId> tokens, Pooling pooling,
                                 const FunctionRef<bool(int done, int total)>* on_tokens = nullptr);

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
