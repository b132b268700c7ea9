// SPDX-License-Identifier: Apache-2.0
#include "text/pre_tokenizer.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "text/unicode.h"

namespace banyan {
namespace {

constexpr size_t kMaxSteps = 32;
constexpr size_t kMaxPrependingSteps = 2;  // each may make a text of short pieces twice as long
constexpr size_t kMaxReplacement = 16;

struct Step {
  SplitStep rule;
  std::optional<Expression> expression;
};

// Turns matches, and what lies between them, into pieces as a Behavior says.
class Pieces {
 public:
  Pieces(const SplitStep& rule, std::string_view text, FunctionRef<void(std::string_view)> f)
      : rule_(rule), text_(text), f_(f) {}

  // The next match; those before it end at or before its begin.
  void match(size_t begin, size_t end) {
    if (begin > done_) add(done_, begin, rule_.invert);
    if (end > begin) add(begin, end, !rule_.invert);
    done_ = end;
  }

  void finish() {
    if (done_ < text_.size()) add(done_, text_.size(), rule_.invert);
    flush();
  }

 private:
  void add(size_t begin, size_t end, bool is_match) {
    switch (rule_.behavior) {
      case SplitStep::kIsolated:
        return f_(text_.substr(begin, end - begin));
      case SplitStep::kRemoved:
        if (!is_match) f_(text_.substr(begin, end - begin));
        return;
      case SplitStep::kMergedWithPrevious:
        if (!(is_match && waiting_ && !waits_match_)) flush();
        break;
      case SplitStep::kMergedWithNext:
        if (!(!is_match && waiting_ && waits_match_)) flush();
        break;
      case SplitStep::kContiguous:
        if (!(waiting_ && waits_match_ == is_match)) flush();
        break;
    }
    if (!waiting_) begin_ = begin;
    waiting_ = true;
    waits_match_ = is_match;
    end_ = end;
  }

  void flush() {
    if (waiting_) f_(text_.substr(begin_, end_ - begin_));
    waiting_ = false;
  }

  const SplitStep& rule_;
  std::string_view text_;
  FunctionRef<void(std::string_view)> f_;
  size_t done_ = 0;
  bool waiting_ = false;  // a piece may still grow
  bool waits_match_ = false;
  size_t begin_ = 0, end_ = 0;
};

void cut_digit_groups(std::string_view text, Pieces& pieces) {
  std::vector<size_t> begins;  // of the digits of a row
  for (size_t at = 0; at <= text.size();) {
    const Character c = at < text.size() ? first_character(text.substr(at)) : Character{0, 1};
    if (at < text.size() && is_number_character(c.code)) {
      begins.push_back(at);
    } else if (!begins.empty()) {
      size_t digit = 0;
      while (digit < begins.size()) {
        const size_t left = begins.size() - digit;
        const size_t next = digit + (left % 3 == 0 ? 3 : left % 3);
        pieces.match(begins[digit], next < begins.size() ? begins[next] : at);
        digit = next;
      }
      begins.clear();
    }
    at += c.length;
  }
}

void cut_at_text(std::string_view text, std::string_view pattern, Pieces& pieces) {
  for (size_t at = text.find(pattern); at != std::string_view::npos;
       at = text.find(pattern, at + pattern.size())) {
    pieces.match(at, at + pattern.size());
  }
}

// One text on its way through the steps.
class Splitter {
 public:
  Splitter(const std::vector<Step>& steps, SearchEffort& effort,
           FunctionRef<void(std::string_view)> f)
      : steps_(steps), f_(f), buffers_(steps.size()) {
    for (const Step& step : steps_) {
      searches_.emplace_back();
      if (step.expression) searches_.back().emplace(*step.expression, effort);
    }
  }

  void split(std::string_view text, bool at_start, size_t level) {
    if (level == steps_.size()) {
      f_(text);
      return;
    }
    const SplitStep& rule = steps_[level].rule;
    if (rule.kind == SplitStep::kMetaspace || rule.kind == SplitStep::kAddSpace) {
      text = rewrite(rule, text, at_start, buffers_[level]);
      if (rule.kind == SplitStep::kAddSpace || !rule.cut) return split(text, at_start, level + 1);
    }
    const auto next = [&, this](std::string_view piece) {
      split(piece, at_start && piece.data() == text.data(), level + 1);
    };
    Pieces pieces(rule, text, next);
    switch (rule.kind) {
      case SplitStep::kExpression:
        for (size_t done = 0; done < text.size();) {
          const auto match = searches_[level]->find(text, done);
          if (!match) break;
          pieces.match(match->begin, match->end);
          done = match->end;
        }
        break;
      case SplitStep::kText:
      case SplitStep::kMetaspace:
        cut_at_text(text, rule.pattern, pieces);
        break;
      case SplitStep::kDigitGroups:
        cut_digit_groups(text, pieces);
        break;
      case SplitStep::kAddSpace:
        break;
    }
    pieces.finish();
  }

 private:
  static std::string_view rewrite(const SplitStep& rule, std::string_view text, bool at_start,
                                  std::string& buffer) {
    buffer.clear();
    if (rule.kind == SplitStep::kAddSpace) {
      if (!text.starts_with(' ')) buffer += ' ';
      buffer += text;
      return buffer;
    }
    const bool prepend =
        rule.prepend == SplitStep::kAlways || (rule.prepend == SplitStep::kFirst && at_start);
    if (prepend && !text.starts_with(' ') && !text.starts_with(rule.pattern)) {
      buffer += rule.pattern;
    }
    for (const char c : text) {
      if (c == ' ') {
        buffer += rule.pattern;
      } else {
        buffer += c;
      }
    }
    return buffer;
  }

  const std::vector<Step>& steps_;
  FunctionRef<void(std::string_view)> f_;
  std::vector<std::optional<Expression::Search>> searches_;  // one for each step
  std::vector<std::string> buffers_;                         // of steps that rewrite their pieces
};

}  // namespace

struct PreTokenizer::State {
  std::vector<Step> steps;
};

PreTokenizer::PreTokenizer(std::unique_ptr<const State> state) : state_(std::move(state)) {}
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;
PreTokenizer::~PreTokenizer() = default;

Result<PreTokenizer> PreTokenizer::create(std::span<const SplitStep> steps) {
  if (steps.size() > kMaxSteps) return bad_input("its pre-tokenizer has more than 32 steps");
  auto state = std::make_unique<State>();
  size_t n_prepending = 0;
  for (const SplitStep& rule : steps) {
    Step step{rule, std::nullopt};
    if (rule.kind == SplitStep::kExpression) {
      auto expression = Expression::create(rule.pattern);
      if (!expression) return bad_input("its pre-tokenizer: " + expression.error().message);
      step.expression = *std::move(expression);
    }
    if (rule.kind == SplitStep::kText && rule.pattern.empty()) {
      return bad_input("its pre-tokenizer cuts at an empty text");
    }
    if (rule.kind == SplitStep::kMetaspace) {
      step.rule.behavior = SplitStep::kMergedWithNext;
      if (rule.pattern.empty() || rule.pattern.size() > kMaxReplacement) {
        return bad_input("its pre-tokenizer replaces spaces by nothing, or by a long text");
      }
    }
    n_prepending += rule.kind == SplitStep::kMetaspace || rule.kind == SplitStep::kAddSpace;
    state->steps.push_back(std::move(step));
  }
  if (n_prepending > kMaxPrependingSteps) {
    return bad_input("its pre-tokenizer has more than two steps that add spaces");
  }
  return PreTokenizer(std::move(state));
}

void PreTokenizer::split(std::string_view text, bool at_start, SearchEffort& effort,
                         FunctionRef<void(std::string_view)> f) const {
  if (!text.empty()) Splitter(state_->steps, effort, f).split(text, at_start, 0);
}

bool PreTokenizer::empty() const { return state_->steps.empty(); }

}  // namespace banyan
