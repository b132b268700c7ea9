// SPDX-License-Identifier: Apache-2.0
#include "sample/search/beam.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/check.h"

namespace banyan {
namespace {

constexpr int kMostBeams = 1024;

struct Continuation {
  int beam;
  TokenId token;
  double sum;
};

}  // namespace

Result<void> validate(const BeamParams& p) {
  if (p.width < 1 || p.width > kMostBeams) {
    return bad_input(fmt::format("--beams is {}, expected 1 to {}", p.width, kMostBeams));
  }
  if (p.max_tokens < 1) {
    return bad_input(fmt::format("-n is {}, expected at least 1", p.max_tokens));
  }
  if (!std::isfinite(p.length_penalty)) {
    return bad_input("--length-penalty is not finite, expected a number");
  }
  if (p.groups < 1 || p.width % p.groups != 0) {
    return bad_input(
        fmt::format("--beam-groups is {}, expected a divisor of the {} beams", p.groups, p.width));
  }
  if (!(p.diversity >= 0 && std::isfinite(p.diversity))) {
    return bad_input(
        fmt::format("--diversity is {}, expected a number that is 0 or more", p.diversity));
  }
  return {};
}

BeamSearch::BeamSearch(const BeamParams& params)
    : params_(params), group_width_(params.width / std::max(1, params.groups)) {
  BANYAN_CHECK(validate(params).has_value(), "params were validated");
  groups_.resize(params.groups);
  for (int group = 0; group < params.groups; ++group) beams_.emplace_back().group = group;
}

// The best of a group go on in spite of those that end; tokens that groups before have chosen may
// lose their places.
int BeamSearch::n_candidates(int n_ends) const {
  const bool diverse = params_.groups > 1 && params_.diversity > 0;
  return static_cast<int>(group_width_) + n_ends + (diverse ? params_.width : 0);
}

void BeamSearch::advance(std::span<const std::vector<TokenLogprob>> candidates,
                         FunctionRef<bool(TokenId)> ends) {
  BANYAN_CHECK(!done() && candidates.size() == beams_.size(), "candidates of each beam");
  const size_t length = ++n_steps_;
  std::vector<Beam> next;
  std::map<TokenId, int> chosen;  // by the groups before
  for (int g = 0; g < params_.groups; ++g) {
    Group& group = groups_[g];
    if (group.done) continue;
    std::vector<Continuation> all;
    for (int i = 0; i < std::ssize(beams_); ++i) {
      if (beams_[i].group != g) continue;
      for (const auto& [token, logprob] : candidates[i]) {
        const auto times = chosen.find(token);
        const double lost = times == chosen.end() ? 0 : times->second * double{params_.diversity};
        all.push_back({i, token, beams_[i].sum + logprob - lost});
      }
    }
    std::ranges::stable_sort(all, std::ranges::greater(), &Continuation::sum);
    const size_t first = next.size();
    for (size_t rank = 0; rank < all.size() && next.size() < first + group_width_; ++rank) {
      const auto& [beam, token, sum] = all[rank];
      std::vector<TokenId> tokens = beams_[beam].tokens;
      if (!ends(token)) {
        tokens.push_back(token);
        next.push_back({std::move(tokens), sum, g, beam});
      } else if (rank < group_width_) {
        add(group.ended, {std::move(tokens), score(sum, length), true});
      }
    }
    group.done = next.size() == first || has_no_hope(group, next[first].sum);
    if (group.done) next.resize(first);
    for (size_t i = first; i < next.size(); ++i) ++chosen[next[i].tokens.back()];
  }
  beams_ = std::move(next);
}

double BeamSearch::score(double sum, size_t length) const {
  return sum / std::pow(static_cast<double>(length), double{params_.length_penalty});
}

void BeamSearch::add(std::vector<Hypothesis>& to, Hypothesis hypothesis) const {
  to.push_back(std::move(hypothesis));
  std::ranges::stable_sort(to, std::ranges::greater(), &Hypothesis::score);
  if (to.size() > group_width_) to.pop_back();
}

// Whether nothing that goes on from here is taken to become a hypothesis.
bool BeamSearch::has_no_hope(const Group& group, double best_sum) const {
  if (group.ended.size() < group_width_) return false;
  if (params_.early_stop == EarlyStop::kAtOnce) return true;
  const bool to_the_end = params_.early_stop == EarlyStop::kNever && params_.length_penalty > 0;
  return score(best_sum, to_the_end ? params_.max_tokens : n_steps_) <= group.ended.back().score;
}

bool BeamSearch::done() const { return beams_.empty() || n_steps_ == params_.max_tokens; }

std::vector<BeamSearch::Hypothesis> BeamSearch::hypotheses() const {
  std::vector<Hypothesis> all;
  for (int g = 0; g < params_.groups; ++g) {
    std::vector<Hypothesis> best = groups_[g].ended;
    for (const Beam& beam : beams_) {
      if (beam.group == g && n_steps_ > 0) {
        add(best, {beam.tokens, score(beam.sum, n_steps_), false});
      }
    }
    std::ranges::move(best, std::back_inserter(all));
  }
  std::ranges::stable_sort(all, std::ranges::greater(), &Hypothesis::score);
  return all;
}

}  // namespace banyan
