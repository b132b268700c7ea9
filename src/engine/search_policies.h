// SPDX-License-Identifier: Apache-2.0
#pragma once
// The policies of sample/search applied to a Search: what each decides is forked, extended, pruned,
// one pass through the model a step. What a caller's function throws passes through and leaves the
// search with what had been forked by then, as good as any.

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/search.h"
#include "sample/search/beam.h"

namespace banyan {

// A text that a search found. Its tokens are those behind the prompt, without one that ended it.
struct SearchChoice {
  std::vector<TokenId> tokens;
  std::string text;
  double score = 0;
  std::optional<SearchNode> node;  // where it ends, if it still stands
};

// Beam search from the root. The scores are BeamSearch's. Sampling settings have no part in it;
// with `ignore_eos` tokens that end a text are passed over, their share of the probability with
// them. What stands at the end are the beams that did not end; a beam's last token is not computed.
Result<std::vector<SearchChoice>> beam_search(Search& search, const BeamParams& params,
                                              bool ignore_eos);

// n texts, each with random numbers of its own made from the sampler's seed; the first one's are
// the seed's. Scores are means of the log-probabilities of all that was chosen, best first.
// Requires extension.max_tokens >= 1.
Result<std::vector<SearchChoice>> best_of(Search& search, int n, const Extension& extension);

// The same choices by how many give the same answer (count_votes() of answer_of()), scored by their
// share of all; of equal answers the best comes first and the others behind the last answer.
std::vector<SearchChoice> by_votes(std::vector<SearchChoice> choices);

// Gives nodes their scores, with set_score(); higher is better. May extend forks of them.
using Scorer = std::function<Result<void>(Search&, std::span<const SearchNode>)>;

// The mean log-probability of what the last extension of each sampled.
Scorer score_by_likelihood();
// The log-probability of `answer` behind the node's text and `question`: a caller's scoring prompt
// ("\nIs this right?", " Yes"). Leaves no trace in the tree.
Scorer score_by_question(std::vector<TokenId> question, std::vector<TokenId> answer);
// A function of the text since the prompt.
Scorer score_by_text(std::function<double(const std::string&)> score);

// Tree of thoughts (Yao et al. 2023), breadth first: behind each kept text `branches` thoughts are
// sampled, all are scored, and the `breadth` best are kept, `depth` times.
struct TreeOfThoughts {
  int branches = 3;  // each >= 1
  int breadth = 2;
  int depth = 3;
  Extension thought;  // max_tokens >= 1; usually with a stop string
};
// The texts kept last, best first. A text that an end token ended is kept as it is.
Result<std::vector<SearchChoice>> tree_of_thoughts(Search& search, const TreeOfThoughts& policy,
                                                   const Scorer& score);

// Monte Carlo tree search: behind the leaf that UCT selects `branches` thoughts are sampled and
// each is played to an end once; the end's score is its reward.
struct MonteCarlo {
  int iterations = 8;  // each >= 1
  int branches = 3;
  int depth = 4;             // most thoughts in a text before it is played out
  double exploration = 1.4;  // >= 0; rewards should be of its size
  Extension thought;         // max_tokens >= 1
  Extension rollout;         // max_tokens >= 1
};
// The texts that were played out, best first; their nodes are those of the thought before. The
// tree's scores are the mean rewards.
Result<std::vector<SearchChoice>> monte_carlo(Search& search, const MonteCarlo& policy,
                                              const Scorer& score);

}  // namespace banyan
