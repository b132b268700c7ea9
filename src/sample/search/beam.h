// SPDX-License-Identifier: Apache-2.0
#pragma once
// Beam search as a value: log-probabilities in, which beams go on out. Hugging Face's, so that
// results can be compared: a step looks at the likeliest continuations of all beams together; one
// that ends counts only among the first `width`, and is kept as a hypothesis of
//
//   score = sum of its log-probabilities / (its number of tokens) ^ length_penalty
//
// where the token that ended it counts as a token; those that are still running when the last step
// is done are hypotheses too. The best `width` of all come out.

#include <cstdint>
#include <span>
#include <vector>

#include "base/function_ref.h"
#include "base/ids.h"
#include "base/result.h"
#include "sample/sampler.h"

namespace banyan {

// When to stop before `max_tokens`, once there are `width` hypotheses that ended.
enum class EarlyStop {
  kHopeless,  // the best beam would score no better than the worst of them if it ended now
  kAtOnce,
  kNever,  // as kHopeless, if it ended after max_tokens and lengthening does not cost
};

struct BeamParams {
  int width = 8;        // beams, and hypotheses; [1, 1024]
  int max_tokens = 64;  // steps, >= 1
  float length_penalty =
      1;  // > 0 prefers long ones, as log-probabilities are negative; 0: plain sums
  EarlyStop early_stop = EarlyStop::kHopeless;
  // Diverse beam search (Vijayakumar et al. 2018): the beams are parted into groups, which choose
  // one after the other; a token loses `diversity` for each time that a group before has just
  // chosen it, in the sum of log-probabilities too.
  int groups = 1;       // divides width
  float diversity = 0;  // >= 0
};

// kBadInput names the option and its range.
Result<void> validate(const BeamParams& params);

class BeamSearch {
 public:
  struct Beam {
    std::vector<TokenId> tokens;  // behind the prompt
    double sum = 0;               // of log-probabilities, less what diversity took
    int group = 0;
    int from = 0;  // the beam that it goes on from, as beams() were before advance()
  };
  struct Hypothesis {
    std::vector<TokenId> tokens;  // without the one that ended it
    double score = 0;
    bool ended = false;
  };

  // Requires validate(). Begins with an empty beam for each group.
  explicit BeamSearch(const BeamParams& params);

  std::span<const Beam> beams() const { return beams_; }

  // How many of the likeliest tokens behind each beam a step needs, where `n_ends` tokens end a
  // text.
  int n_candidates(int n_ends) const;

  // A step. [i]: the likeliest tokens behind beams()[i], best first. `ends`: whether a text ends
  // with the token.
  void advance(std::span<const std::vector<TokenLogprob>> candidates,
               FunctionRef<bool(TokenId)> ends);

  bool done() const;  // no step would change anything, or may be made

  // At most `width`, best first, equal ones as they came.
  std::vector<Hypothesis> hypotheses() const;

 private:
  struct Group {
    std::vector<Hypothesis> ended;  // best first
    bool done = false;
  };
  double score(double sum, size_t length) const;
  void add(std::vector<Hypothesis>& to, Hypothesis hypothesis) const;
  bool has_no_hope(const Group& group, double best_sum) const;

  BeamParams params_;
  size_t group_width_;
  int n_steps_ = 0;
  std::vector<Group> groups_;
  std::vector<Beam> beams_;  // of groups that are not done; group by group, best first
};

}  // namespace banyan
