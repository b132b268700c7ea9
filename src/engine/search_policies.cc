// SPDX-License-Identifier: Apache-2.0
#include "engine/search_policies.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "sample/search/rank.h"
#include "sample/search/uct.h"

namespace banyan {
namespace {

Result<void> check_at_least(const char* what, int value, int least) {
  if (value >= least) return {};
  return bad_input(fmt::format("{} is {}, expected at least {}", what, value, least));
}

std::string text_of(const Search& search, std::span<const TokenId> tokens) {
  StreamDetokenizer detokenizer(search.engine().tokenizer(), Special::kPlain,
                                /*skip_first_space=*/false);
  std::string text;
  for (const TokenId token : tokens) text += detokenizer.push(token);
  return text + detokenizer.finish();
}

// A node of the search that stands, as a choice.
SearchChoice choice_of(const Search& search, SearchNode node) {
  SearchChoice choice{*search.path(node), "", *search.score(node), node};
  choice.text = text_of(search, choice.tokens);
  return choice;
}

// The node goes, and what above it has no other branches.
void prune_branch(Search& search, SearchNode node) {
  while (node != search.root() && *search.is_leaf(node)) {
    const SearchNode parent = *search.parent(node);
    static_cast<void>(search.prune(node));
    node = parent;
  }
}

// Forks with an extension each, whose random numbers are the (first + i)th stream's of the seed.
Result<std::vector<SearchNode>> sample_behind(Search& search, SearchNode node, int n, int first,
                                              const Extension& extension) {
  auto children = search.fork(node, n);
  if (!children) return children;
  for (int i = 0; i < n; ++i) {
    Extension own = extension;
    own.sampler.seed = stream_seed(extension.sampler.seed, first + i);
    BANYAN_TRY(search.extend((*children)[i], std::move(own)));
  }
  return children;
}

// Runs the search and says what went wrong with one of the nodes, if anything did.
Result<void> run(Search& search, std::span<const SearchNode> nodes) {
  search.run();
  for (const SearchNode node : nodes) {
    if (auto sample = search.generated(node); !sample) return sample.error();
  }
  return {};
}

}  // namespace

// --- beams ---------------------------------------------------------------------------------------

namespace {

// Takes the nodes from one step's beams to the next one's: where several go on from one it is
// forked, where none does it goes.
Result<std::vector<SearchNode>> follow(Search& search, std::span<const SearchNode> nodes,
                                       std::span<const BeamSearch::Beam> beams) {
  std::vector<int> n_next(nodes.size());
  for (const BeamSearch::Beam& beam : beams) ++n_next[beam.from];
  std::vector<std::vector<SearchNode>> next(nodes.size());
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (n_next[i] == 1 && nodes[i] != search.root()) {
      next[i] = {nodes[i]};
    } else if (n_next[i] > 0) {
      auto forked = search.fork(nodes[i], n_next[i]);
      if (!forked) return forked;
      next[i] = *std::move(forked);
    }
  }
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (n_next[i] == 0) prune_branch(search, nodes[i]);
  }
  std::vector<SearchNode> followed;
  std::vector<size_t> taken(nodes.size());
  for (const BeamSearch::Beam& beam : beams) {
    followed.push_back(next[beam.from][taken[beam.from]++]);
  }
  return followed;
}

}  // namespace

Result<std::vector<SearchChoice>> beam_search(Search& search, const BeamParams& params,
                                              bool ignore_eos) {
  BANYAN_TRY(validate(params));
  const Tokenizer& tokenizer = search.engine().tokenizer();
  int n_ends = 0;
  for (TokenId token = 0; token < tokenizer.size(); ++token) n_ends += tokenizer.is_end(token);
  const auto ends = [&](TokenId token) { return tokenizer.is_end(token); };

  BeamSearch beams(params);
  const int n_candidates = std::min(beams.n_candidates(n_ends), tokenizer.size());
  Extension extension;  // by nothing, then by a token
  extension.keep_next = n_candidates;
  std::vector<SearchNode> nodes(beams.beams().size(), search.root());
  BANYAN_TRY(search.extend(search.root(), extension));
  BANYAN_TRY(run(search, nodes));
  std::vector<std::vector<TokenLogprob>> candidates;
  for (;;) {
    candidates.clear();
    for (const SearchNode node : nodes) {
      candidates.push_back(*search.next_tokens(node, n_candidates));
      if (!ignore_eos) continue;
      std::erase_if(candidates.back(), [&](const TokenLogprob& c) { return ends(c.token); });
    }
    beams.advance(candidates, ends);
    auto followed = follow(search, nodes, beams.beams());
    if (!followed) return followed.error();
    nodes = *std::move(followed);
    for (size_t i = 0; i < nodes.size(); ++i) {
      extension.tokens = {beams.beams()[i].tokens.back()};
      BANYAN_TRY(search.extend(nodes[i], extension));
    }
    if (beams.done()) break;
    BANYAN_TRY(run(search, nodes));
  }
  std::vector<SearchChoice> choices;
  for (BeamSearch::Hypothesis& found : beams.hypotheses()) {
    SearchChoice choice{std::move(found.tokens), "", found.score, {}};
    choice.text = text_of(search, choice.tokens);
    for (size_t i = 0; i < nodes.size() && !found.ended; ++i) {
      if (beams.beams()[i].tokens == choice.tokens) choice.node = nodes[i];
    }
    choices.push_back(std::move(choice));
  }
  // With the last tokens, which are not computed.
  for (size_t i = 0; i < nodes.size(); ++i) {
    BANYAN_TRY(search.set_score(nodes[i], beams.beams()[i].sum));
  }
  return choices;
}

// --- samples -------------------------------------------------------------------------------------

Result<std::vector<SearchChoice>> best_of(Search& search, int n, const Extension& extension) {
  BANYAN_TRY(check_at_least("max_tokens", extension.max_tokens, 1));
  const auto leaves = sample_behind(search, search.root(), n, 0, extension);
  if (!leaves) return leaves.error();
  BANYAN_TRY(run(search, *leaves));
  BANYAN_TRY(score_by_likelihood()(search, *leaves));
  std::vector<double> scores;
  for (const SearchNode leaf : *leaves) scores.push_back(*search.score(leaf));
  std::vector<SearchChoice> choices;
  for (const size_t i : best_first(scores, n)) {
    const Sample sample = *search.generated((*leaves)[i]);
    // A stop string is not shown, but its tokens are there.
    choices.push_back({sample.tokens, sample.text, scores[i], (*leaves)[i]});
  }
  return choices;
}

std::vector<SearchChoice> by_votes(std::vector<SearchChoice> choices) {
  std::vector<std::string> answers;
  for (const SearchChoice& choice : choices) answers.push_back(answer_of(choice.text));
  std::vector<SearchChoice> first;
  std::vector<SearchChoice> others;
  for (const Vote& vote : count_votes(answers)) {
    for (const size_t i : vote.voters) {
      choices[i].score =
          static_cast<double>(vote.voters.size()) / static_cast<double>(choices.size());
      (i == vote.voters.front() ? first : others).push_back(std::move(choices[i]));
    }
  }
  std::ranges::move(others, std::back_inserter(first));
  return first;
}

// --- thoughts ------------------------------------------------------------------------------------

Scorer score_by_likelihood() {
  return [](Search& search, std::span<const SearchNode> nodes) -> Result<void> {
    for (const SearchNode node : nodes) {
      const auto sample = search.generated(node);
      if (!sample) return sample.error();
      BANYAN_TRY(search.set_score(node, sample->mean_logprob));
    }
    return {};
  };
}

Scorer score_by_question(std::vector<TokenId> question, std::vector<TokenId> answer) {
  Extension asked;
  asked.tokens = std::move(question);
  asked.unscored = static_cast<int>(asked.tokens.size());
  asked.tokens.insert(asked.tokens.end(), answer.begin(), answer.end());
  asked.keep_next = 1;
  return [asked](Search& search, std::span<const SearchNode> nodes) -> Result<void> {
    std::vector<SearchNode> forks;
    const auto ask = [&]() -> Result<void> {
      for (const SearchNode node : nodes) {
        const auto fork = search.fork(node, 1);
        if (!fork) return fork.error();
        forks.push_back(fork->front());
        BANYAN_TRY(search.extend(forks.back(), asked));
      }
      BANYAN_TRY(run(search, forks));
      for (size_t i = 0; i < nodes.size(); ++i) {
        BANYAN_TRY(
            search.set_score(nodes[i], *search.logprob(forks[i]) - *search.logprob(nodes[i])));
      }
      return {};
    };
    const Result<void> scored = ask();
    for (const SearchNode fork : forks) BANYAN_TRY(search.prune(fork));
    return scored;
  };
}

Scorer score_by_text(std::function<double(const std::string&)> score) {
  return [score](Search& search, std::span<const SearchNode> nodes) -> Result<void> {
    for (const SearchNode node : nodes) {
      const auto tokens = search.path(node);
      if (!tokens) return tokens.error();
      BANYAN_TRY(search.set_score(node, score(text_of(search, *tokens))));
    }
    return {};
  };
}

namespace {

// Whether an end token ended what was sampled: a stop string's tokens are there without its text.
bool ends_text(const Search& search, SearchNode node) {
  const Sample sample = *search.generated(node);
  return sample.finish == FinishReason::kStop && text_of(search, sample.tokens) == sample.text;
}

}  // namespace

Result<std::vector<SearchChoice>> tree_of_thoughts(Search& search, const TreeOfThoughts& policy,
                                                   const Scorer& score) {
  BANYAN_TRY(check_at_least("branches", policy.branches, 1));
  BANYAN_TRY(check_at_least("breadth", policy.breadth, 1));
  BANYAN_TRY(check_at_least("depth", policy.depth, 1));
  BANYAN_TRY(check_at_least("max_tokens", policy.thought.max_tokens, 1));
  std::vector<SearchNode> kept = {search.root()};
  std::vector<SearchNode> growing = kept;  // of them
  int n_sampled = 0;
  for (int level = 0; level < policy.depth && !growing.empty(); ++level) {
    std::vector<SearchNode> thoughts;
    for (const SearchNode node : growing) {
      const auto next = sample_behind(search, node, policy.branches, n_sampled, policy.thought);
      if (!next) return next.error();
      n_sampled += policy.branches;
      thoughts.insert(thoughts.end(), next->begin(), next->end());
      std::erase(kept, node);
    }
    BANYAN_TRY(run(search, thoughts));
    BANYAN_TRY(score(search, thoughts));
    kept.insert(kept.end(), thoughts.begin(), thoughts.end());
    std::vector<double> scores;
    for (const SearchNode node : kept) scores.push_back(*search.score(node));
    std::vector<SearchNode> best;
    for (const size_t i : best_first(scores, policy.breadth)) best.push_back(kept[i]);
    for (const SearchNode node : kept) {
      if (std::ranges::find(best, node) == best.end()) prune_branch(search, node);
    }
    kept = std::move(best);
    growing.clear();
    for (const SearchNode node : kept) {
      if (!ends_text(search, node)) growing.push_back(node);
    }
  }
  std::vector<SearchChoice> choices;
  for (const SearchNode node : kept) choices.push_back(choice_of(search, node));
  return choices;
}

Result<std::vector<SearchChoice>> monte_carlo(Search& search, const MonteCarlo& policy,
                                              const Scorer& score) {
  BANYAN_TRY(check_at_least("iterations", policy.iterations, 1));
  BANYAN_TRY(check_at_least("branches", policy.branches, 1));
  BANYAN_TRY(check_at_least("depth", policy.depth, 1));
  BANYAN_TRY(check_at_least("max_tokens", policy.thought.max_tokens, 1));
  BANYAN_TRY(check_at_least("max_tokens", policy.rollout.max_tokens, 1));
  if (!(policy.exploration >= 0 && std::isfinite(policy.exploration))) {
    return bad_input(
        fmt::format("exploration is {}, expected a number that is 0 or more", policy.exploration));
  }
  Uct uct(policy.exploration);
  std::vector<SearchNode> nodes = {search.root()};  // by Uct's index
  std::vector<SearchChoice> played;
  int n_sampled = 0;
  for (int iteration = 0; iteration < policy.iterations; ++iteration) {
    std::vector<int> leaves = {uct.select()};
    const int selected = leaves.front();
    const bool grows = selected == 0 ||
                       (uct.depth(selected) < policy.depth && !ends_text(search, nodes[selected]));
    if (grows) {
      const auto thoughts =
          sample_behind(search, nodes[selected], policy.branches, n_sampled, policy.thought);
      if (!thoughts) return thoughts.error();
      n_sampled += policy.branches;
      BANYAN_TRY(run(search, *thoughts));
      leaves.clear();
      for (const SearchNode thought : *thoughts) {
        leaves.push_back(uct.add_child(selected));
        nodes.push_back(thought);
      }
    }
    std::vector<SearchNode> ends;
    for (const int leaf : leaves) {
      if (ends_text(search, nodes[leaf])) {
        ends.push_back(nodes[leaf]);
        continue;
      }
      const auto rollout = sample_behind(search, nodes[leaf], 1, n_sampled++, policy.rollout);
      if (!rollout) return rollout.error();
      ends.push_back(rollout->front());
    }
    BANYAN_TRY(run(search, ends));
    BANYAN_TRY(score(search, ends));
    for (size_t i = 0; i < leaves.size(); ++i) {
      SearchChoice choice = choice_of(search, ends[i]);
      choice.node = nodes[leaves[i]];
      uct.back_up(leaves[i], choice.score);
      const bool was_played = ends[i] != nodes[leaves[i]];
      if (was_played) BANYAN_TRY(search.prune(ends[i]));
      if (was_played || grows) played.push_back(std::move(choice));  // an end is one text
    }
  }
  for (size_t i = 0; i < nodes.size(); ++i) {
    BANYAN_TRY(search.set_score(nodes[i], uct.node(static_cast<int>(i)).mean()));
  }
  std::ranges::stable_sort(played, std::ranges::greater(), &SearchChoice::score);
  return played;
}

}  // namespace banyan
