// SPDX-License-Identifier: Apache-2.0
#pragma once
// The stages between logits and a draw, each a function on a list of candidates. They follow
// llama.cpp's samplers: every stage works on what the stage before left, its probabilities summing
// to 1 anew, and keeps at least one candidate. Temperature comes last, so no stage before sees it.
//
// Candidates have finite logits and lists are not empty, but where said. Only select_top_k may
// allocate. Where a stage orders candidates, equal ones come in the order of their ids, so that
// results do not depend on a sorting algorithm.

#include <cstddef>
#include <span>
#include <vector>

#include "base/ids.h"

namespace banyan {

struct Candidate {
  TokenId token;
  float logit;
  float p;  // scratch of the stage that runs
};

// Fills `out` with the k largest logits, best first. -infinity is never a candidate, so `out` may
// have fewer, or none. k = 0 or k >= logits.size(): all of them by id, in no other order.
// Reserves logits.size() in `out`, the one allocation. One scan while k is small beside the
// vocabulary.
void select_top_k(std::span<const float> logits, size_t k, std::vector<Candidate>& out);

// Locally typical sampling (Meister et al. 2022): the fewest candidates whose information is
// closest to the entropy and whose probabilities sum to more than p. p >= 1 keeps all.
void keep_typical(std::vector<Candidate>& candidates, float p);

// Nucleus sampling (Holtzman et al. 2019): the fewest best candidates whose probabilities sum to at
// least p, best first. p >= 1 keeps all, and the order.
void keep_top_p(std::vector<Candidate>& candidates, float p);

// Those at least p times as probable as the best (Nguyen et al. 2024), in the order they had.
// p <= 0 keeps all.
void keep_min_p(std::vector<Candidate>& candidates, float p);

// Sets each p to exp((logit - max) / temperature), which is proportional to its probability, and
// returns their sum. Requires temperature > 0.
double weigh(std::vector<Candidate>& candidates, float temperature);

// The candidate at `fraction` in [0, 1) of the weights' sum; never one of weight 0.
TokenId draw(std::span<const Candidate> candidates, double sum, double fraction);

}  // namespace banyan
