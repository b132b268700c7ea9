// SPDX-License-Identifier: Apache-2.0
#pragma once
// Runs the normalizer steps of a tokenizer's rules over a text.

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "text/expression.h"
#include "text/text_rules.h"

namespace banyan {

// Immutable, safe to share between threads.
class Normalizer {
 public:
  // kBadInput, in a sentence without a file name, for expressions and tables that are malformed,
  // and for replacements that together could make a text more than 64 times as long.
  static Result<Normalizer> create(std::span<const NormalizerStep> steps);
  Normalizer(Normalizer&&) noexcept;
  Normalizer& operator=(Normalizer&&) noexcept;
  ~Normalizer();

  bool empty() const;  // whether apply() changes nothing

  // Any bytes; those that are not UTF-8 stay as they are. Linear in the text: of more than 256
  // combining marks in a row, those beyond are ordered and composed among themselves. Once the
  // effort is spent, expressions find nothing more.
  std::string apply(std::string_view text, SearchEffort& effort) const;

 private:
  struct State;
  explicit Normalizer(std::unique_ptr<const State> state);
  std::unique_ptr<const State> state_;
};

}  // namespace banyan
