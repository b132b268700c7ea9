// SPDX-License-Identifier: Apache-2.0
#pragma once
// What goes into an engine and what comes out.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/function_ref.h"
#include "base/ids.h"
#include "base/result.h"
#include "kv/tree.h"
#include "sample/sampler.h"

namespace banyan {

struct Request {
  std::vector<TokenId> prompt;  // at least one token
  SamplerParams sampler;
  int max_tokens = 128;           // -1: until the context is full
  bool ignore_eos = false;        // tokens that end a text are never chosen
  std::vector<std::string> stop;  // generation ends where one of these would be written
  // So many answers to the one prompt, which is computed once: the n of best_of that are likeliest
  // by the mean of their tokens' log-probabilities. Each has a stream of random numbers of its own,
  // made from the seed; the first one's is that of a single answer. n in [1, 128], best_of in
  // [n, 128] or 0, which stands for n.
  int n = 1;
  int best_of = 0;
  // KV is shared with requests of the same salt only: a tenant's own number, counted up rather than
  // hashed, so that no two have the same.
  uint64_t salt = 0;

  int samples() const { return best_of > 0 ? best_of : n; }
};

enum class FinishReason { kStop, kLength, kCancelled };
std::string_view name(FinishReason reason);

// Why no more of a prompt was there: as KvTree::explain() says it.
using CacheWhy = KvTree::Why;

struct CacheFacts {
  int reused_tokens = 0;    // of the prompt, whose KV was there already
  int computed_tokens = 0;  // of the prompt, the others
  struct From {             // where the reused ones were
    int memory = 0;
    int compressed = 0;
    int disk = 0;
  } from;
  bool exact = true;  // false: K or V were rounded to 8 bits (q8_0)
  CacheWhy why = CacheWhy::kEmpty;
  // kDiverged: the first token that differs, the text there, stored and asked for, and what both
  // have before it: some tokens each, which may begin or end inside a character.
  int position = 0;
  std::string had;
  std::string got;
  std::string before;
};

// One answer.
struct Sample {
  std::string text;
  std::vector<TokenId> tokens;  // the generated ones; a token that ended the text is not among them
  std::vector<float> logprobs;  // of the model, for each token
  std::vector<std::vector<TokenLogprob>> top_logprobs;  // for each token, if asked for
  double mean_logprob = 0;  // over the tokens and the one that ended them, if one did; 0 of none
  FinishReason finish = FinishReason::kLength;
  std::string note;  // why it ended early, where nobody asked it to; usually empty
};

// What drafts brought, over all answers to a request.
struct SpeculationFacts {
  int drafted = 0;             // tokens that were verified
  int accepted = 0;            // of them, those that were chosen
  int accepted_off_chain = 0;  // of these, those for which a first candidate was wrong: see Draft
  int steps = 0;               // in which an answer got tokens, those of the prompt left out
};

// The best answer, and what it took.
struct Reply : Sample {
  std::vector<Sample> samples;  // Request::n of them, best first, this one included
  int prompt_tokens = 0;
  int cached_tokens = 0;  // as cache.reused_tokens
  CacheFacts cache;
  SpeculationFacts speculation;
  double queue_ms = 0;   // from submit() until the first step that it was part of
  double prompt_ms = 0;  // from there until the first token was chosen
  double predicted_ms = 0;
  int preemptions =
      0;  // how often an answer gave its KV up for an older one and was taken up again
  uint64_t kv_bytes_peak = 0;
  bool kv_exact = true;  // as cache.exact
};

// Called on the driving thread. What it names must live until the request is complete.
struct Listener {
  // Each generated token with the text that became printable with it, which may be empty; at the
  // end kNoToken with what was held back, if any. Returning false ends the reply (kCancelled); it
  // is not called again then. May be null; not called where a request asks for several answers.
  const FunctionRef<bool(TokenId, const std::string&)>* on_token = nullptr;
  // Prompt tokens done so far, of all; returning false cancels. May be null.
  const FunctionRef<bool(int done, int total)>* on_prompt = nullptr;
  // Whether to go on, asked before each piece of the prompt and each token, of any answer, is taken
  // up; false cancels. May be null.
  const FunctionRef<bool()>* go_on = nullptr;
};

using RequestId = uint64_t;  // rises with each request

struct Completion {
  RequestId id = 0;
  Result<Reply> reply;
};

}  // namespace banyan
