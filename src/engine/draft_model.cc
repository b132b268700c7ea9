// SPDX-License-Identifier: Apache-2.0
#include "engine/draft_model.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/clock.h"
#include "sample/scan.h"

namespace banyan {
namespace {

constexpr double kTypical = 0.7;  // share of right tokens that is assumed

// Levels are ranges of the draft model's own probability; it is assumed to be as right as it says.
constexpr std::array<double, Acceptance::kLevels - 1> kLevelEnds = {0.2, 0.4,  0.6, 0.75,
                                                                    0.9, 0.97, 0.99};
constexpr Acceptance::Rates kAssumed = {0.15, 0.3, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98};
// What comes next for it is tested at no cost wherever the first is wrong.
constexpr Acceptance::Rates kAssumedOfOthers = {0.05, 0.1, 0.15, 0.2, 0.25, 0.25, 0.25, 0.25};
constexpr double kLeastReach = 0.05;  // no row costs so little that less would pay

int level(double probability) {
  return static_cast<int>(std::ranges::upper_bound(kLevelEnds, probability) - kLevelEnds.begin());
}

// Places of the largest logits, the largest first. Requires as many logits.
template <size_t n>
std::array<size_t, n> largest(std::span<const float> logits) {
  std::array<size_t, n> found;
  std::array<size_t, n> ascending;
  for (size_t i = 0; i < n; ++i) {
    size_t best = logits.size();
    for (size_t gap = 0, begin = 0; gap <= i; ++gap) {
      const size_t end = gap < i ? ascending[gap] : logits.size();
      if (begin < end) {
        const size_t at = begin + first_max(logits.subspan(begin, end - begin));
        if (best == logits.size() || logits[at] > logits[best]) best = at;
      }
      begin = end + 1;
    }
    found[i] = best;
    size_t place = i;
    for (; place > 0 && ascending[place - 1] > best; --place) {
      ascending[place] = ascending[place - 1];
    }
    ascending[place] = best;
  }
  return found;
}

}  // namespace

DraftModel::Text::Text()
    : acceptance_(kAssumed),
      other_acceptance_{Acceptance(kAssumedOfOthers), Acceptance(kAssumedOfOthers)},
      typical_(kTypical) {}

DraftModel::DraftModel(ModelFile file, Model model, PanelPool pool, int32_t vocabulary,
                       StepDevice device, PlanMethod method, int max_rows)
    : file_(std::move(file)),
      model_(std::move(model)),
      pool_(std::move(pool)),
      tree_(pool_),
      vocabulary_(vocabulary),
      steps_(model_, pool_, tree_, device, method, max_rows) {}

void DraftModel::draft(std::span<const Asked> asked, FunctionRef<bool(double, double)> pays) {
  constexpr double kFade = 0.01;  // of what was measured, where nothing is
  going_.clear();
  for (const Asked& one : asked) {
    settle(one);
    going_.push_back(&one);
  }
  for (bool first = true; !going_.empty(); first = false) {
    StepShape shape;
    for (const Asked* one : going_) shape.add(1, std::ssize(one->tokens));
    const double ms = time_.predict_ms(shape) / static_cast<double>(going_.size());
    std::erase_if(going_, [&](const Asked* one) {
      Text& text = *one->text;
      const size_t n = text.drafted_.size();
      const double reach = n == 0 ? 1 : one->draft->reach_of(text.last_);
      if (n < one->most && pays(reach * text.typical_, ms)) return false;
      // So that it is tried again some day.
      if (first) text.typical_ += kFade * (kTypical - text.typical_);
      return true;
    });
    if (first) {
      const size_t share = max_rows() / std::max<size_t>(1, going_.size());
      std::erase_if(going_, [&](const Asked* one) { return !catch_up(*one, share); });
    }
    if (!going_.empty() && !step()) return;
  }
}

// How many of the drafted tokens came; learns from that.
size_t DraftModel::compare(Text& text, std::span<const TokenId> came) {
  constexpr double kWeight = 0.05;  // of the latest token
  size_t right = 0;
  for (; right < std::min(text.drafted_.size(), came.size()); ++right) {
    const bool hit = came[right] == text.drafted_[right];
    text.acceptance_.observe(text.levels_[right], hit);
    text.typical_ += kWeight * ((hit ? 1.0 : 0.0) - text.typical_);
    if (hit) continue;
    for (size_t i = 0; i < Text::kOthers; ++i) {
      const auto [token, its_level] = text.others_[right][i];
      text.other_acceptance_[i].observe(its_level, came[right] == token);
      if (came[right] == token) break;
    }
    break;
  }
  return right;
}

// Compares what was drafted with what came, and forgets what was wrong.
void DraftModel::settle(const Asked& asked) {
  Text& text = *asked.text;
  if (text.drafted_.empty()) return;
  const size_t right = compare(text, asked.tokens.subspan(text.base_));
  text.drafted_.clear();
  text.levels_.clear();
  text.others_.clear();
  // The last token is always computed: its logits are wanted.
  const auto kept = static_cast<int32_t>(std::min(text.base_ + right, asked.tokens.size() - 1));
  if (tree_.length(text.seq_) <= kept) return;
  // Another text may have begun on what was drafted for this one.
  NodeId cut = tree_.leaf(text.seq_);
  while (tree_.node(cut).begin > kept) cut = tree_.node(cut).parent;
  if (tree_.node(cut).users > 1) return close(text);
  tree_.truncate(text.seq_, kept);
}

// Computes what the text has, but for at most `most_left` tokens. False where that cannot be, or
// takes another step: those who decode must not wait for a long prompt.
bool DraftModel::catch_up(const Asked& asked, size_t most_left) {
  Text& text = *asked.text;
  if (text.seq_ == kNoSequence) {
    const auto matchable = static_cast<int32_t>(asked.tokens.size() - 1);
    text.seq_ = tree_.open(asked.tokens, matchable, {.salt = asked.salt}).seq;
  }
  const int32_t length = tree_.length(text.seq_);
  const auto rest = asked.tokens.subspan(length);
  if (rest.size() <= most_left) return true;
  const Piece piece{text.seq_, rest.first(std::min(rest.size() - 1, max_rows())), {}};
  if (steps_.run({&piece, 1})) return piece.tokens.size() + most_left >= rest.size();
  give_up(text, length);
  return false;
}

// One token more for each text that goes on. False where that cannot be.
bool DraftModel::step() {
  pieces_.clear();
  last_.clear();
  lengths_.clear();
  StepShape shape;
  for (const Asked* one : going_) {
    Text& text = *one->text;
    const int32_t length = tree_.length(text.seq_);
    lengths_.push_back(length);
    const std::span<const TokenId> tokens = text.drafted_.empty()
                                                ? one->tokens.subspan(length)
                                                : std::span<const TokenId>(text.drafted_).last(1);
    last_.push_back(static_cast<uint32_t>(tokens.size() - 1));
    pieces_.push_back({text.seq_, tokens, {}});
    shape.add(std::ssize(tokens), length + std::ssize(tokens));
  }
  for (size_t i = 0; i < pieces_.size(); ++i) pieces_[i].wanted = {&last_[i], 1};
  const int64_t start = now_ns();
  if (!steps_.run(pieces_)) {
    for (size_t i = 0; i < going_.size(); ++i) give_up(*going_[i]->text, lengths_[i]);
    return false;
  }
  time_.observe(shape, ms_since(start));
  for (size_t i = 0; i < going_.size(); ++i) {
    take_up(*going_[i], steps_.logits(i, 0).first(vocabulary_));
  }
  return true;
}

// Drafts what the model says.
void DraftModel::take_up(const Asked& asked, std::span<const float> logits) {
  Text& text = *asked.text;
  Draft& draft = *asked.draft;
  if (text.drafted_.empty()) {
    text.base_ = asked.tokens.size();
    text.last_ = Draft::kText;
    draft.clear();
  }
  const auto places = largest<1 + Text::kOthers>(logits);
  const double log_sum = log_sum_exp(logits, logits[places[0]]);
  const auto probability = [&](size_t i) { return std::exp(logits[places[i]] - log_sum); };
  const int its_level = level(probability(0));
  text.drafted_.push_back(static_cast<TokenId>(places[0]));
  text.levels_.push_back(its_level);
  double left = 1 - probability(0);  // that the model leaves for the others
  double rate = text.acceptance_.rate(its_level);
  double reach = 1 - rate;  // that is left for them, as it was borne out
  const uint32_t under = text.last_;
  text.last_ = draft.add(text.drafted_.back(), under, rate, true);
  auto& others = text.others_.emplace_back();
  for (size_t i = 0; i < Text::kOthers; ++i) {
    const double p = probability(i + 1);
    others[i] = {static_cast<TokenId>(places[i + 1]), level(p / std::max(p, left))};
    left -= p;
    rate = text.other_acceptance_[i].rate(others[i].level);
    if (draft.reach_of(under) * reach * rate >= kLeastReach) {
      draft.add(others[i].token, under, reach * rate, false);
    }
    reach *= 1 - rate;
  }
}

// After a step that failed: what it was to write behind `length` does not count as stored.
void DraftModel::give_up(Text& text, int32_t length) {
  if (tree_.length(text.seq_) > length) tree_.truncate(text.seq_, length);
  close(text);
}

void DraftModel::close(Text& text) {
  if (text.seq_ != kNoSequence) tree_.close(std::exchange(text.seq_, kNoSequence));
  text.drafted_.clear();
  text.levels_.clear();
  text.others_.clear();
}

}  // namespace banyan
