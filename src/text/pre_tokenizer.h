// SPDX-License-Identifier: Apache-2.0
#pragma once
// Cuts a text into words before their subwords are looked for: step by step, each on the pieces
// that the one before left.

#include <memory>
#include <span>
#include <string_view>

#include "base/function_ref.h"
#include "base/result.h"
#include "text/expression.h"
#include "text/text_rules.h"

namespace banyan {

// Immutable, safe to share between threads.
class PreTokenizer {
 public:
  // kBadInput, in a sentence without a file name, for an expression that is refused, for more than
  // 32 steps, or more than two that put something first.
  static Result<PreTokenizer> create(std::span<const SplitStep> steps);
  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;
  ~PreTokenizer();

  // Calls f with one word after another; none is empty, and each lives only during its call. Where
  // no step removes or adds text, together they are `text`. `at_start`: the text begins what
  // encode() was given. Requires valid UTF-8. Once the effort is spent, the rest of a piece is one
  // piece.
  void split(std::string_view text, bool at_start, SearchEffort& effort,
             FunctionRef<void(std::string_view)> f) const;

  bool empty() const;  // whether split() leaves every text whole

 private:
  struct State;
  explicit PreTokenizer(std::unique_ptr<const State> state);
  std::unique_ptr<const State> state_;
};

}  // namespace banyan
