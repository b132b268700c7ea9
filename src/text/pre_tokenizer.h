// SPDX-License-Identifier: Apache-2.0
#pragma once
// How byte-level BPE cuts a text into words before it merges: by the regular expressions of the
// model's tokenizer, applied one after another, each to the pieces that the one before left.

#include <memory>
#include <string_view>

#include "base/function_ref.h"
#include "base/result.h"

namespace banyan {

// Immutable, safe to share between threads.
class PreTokenizer {
 public:
  // `name` as GGUF's tokenizer.ggml.pre has it. kBadInput if it is not known.
  static Result<PreTokenizer> create(std::string_view name);
  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;
  ~PreTokenizer();

  // Calls f with one word after another; together they are `text`, none is empty. Requires valid
  // UTF-8. Where an expression passes PCRE2's limits, the rest of its piece is one word.
  void split(std::string_view text, FunctionRef<void(std::string_view)> f) const;

  // Whether a word that is a token is taken as it is, whatever the merges say.
  bool takes_whole_words() const;

 private:
  struct State;
  explicit PreTokenizer(std::unique_ptr<const State> state);
  std::unique_ptr<const State> state_;
};

}  // namespace banyan
