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

int level(double probability) {
  return static_cast<int>(std::ranges::upper_bound(kLevelEnds, probability) - kLevelEnds.begin());
}

}  // namespace

DraftModel::Text::Text() : acceptance_(kAssumed), typical_(kTypical) {}

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
      const double reach = n == 0 ? 1 : one->draft->reach.back();
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

// Compares what was drafted with what came, and forgets what was wrong.
void DraftModel::settle(const Asked& asked) {
  constexpr double kWeight = 0.05;  // of the latest token
  Text& text = *asked.text;
  if (text.drafted_.empty()) return;
  size_t right = 0;
  while (right < text.drafted_.size() && text.base_ + right < asked.tokens.size()) {
    const bool hit = asked.tokens[text.base_ + right] == text.drafted_[right];
    text.acceptance_.observe(text.levels_[right], hit);
    text.typical_ += kWeight * ((hit ? 1.0 : 0.0) - text.typical_);
    if (!hit) break;
    ++right;
  }
  text.drafted_.clear();
  text.levels_.clear();
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
    const std::span<const float> logits = steps_.logits(i, 0).first(vocabulary_);
    const size_t best = first_max(logits);
    const int its_level = level(std::exp(logits[best] - log_sum_exp(logits, logits[best])));
    Text& text = *going_[i]->text;
    if (text.drafted_.empty()) {
      text.base_ = going_[i]->tokens.size();
      going_[i]->draft->clear();
    }
    text.drafted_.push_back(static_cast<TokenId>(best));
    text.levels_.push_back(its_level);
    going_[i]->draft->add(text.drafted_.back(), text.acceptance_.rate(its_level));
  }
  return true;
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
}

}  // namespace banyan
