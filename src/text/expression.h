// SPDX-License-Identifier: Apache-2.0
#pragma once
// Regular expressions of tokenizers, on PCRE2. Models bring theirs in the syntax of Oniguruma (what
// Hugging Face's tokenizers use, with Ruby's rules); where the two differ an expression is
// translated or refused.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace banyan {

// What the searches in one text have taken together, so that no expression of a file takes minutes
// over it.
class SearchEffort {
 public:
  // Allows 1 s and 1 us for each byte, of the processor's time (usual are 0.02 to 0.1 us), and
  // 5 million backtracking steps and 8 for each byte at any one place.
  explicit SearchEffort(size_t text_bytes) : text_bytes_(text_bytes) {}

  bool spent() const { return spent_; }

 private:
  friend class Expression;
  void count_search();
  uint32_t match_limit() const;

  size_t text_bytes_;
  size_t n_searches_ = 0;
  int64_t start_ns_ = 0;
  bool spent_ = false;
};

// A compiled expression. Immutable, safe to share between threads.
class Expression {
 public:
  struct Range {
    size_t begin;  // offsets in the text
    size_t end;
  };

  // kBadInput, in a sentence without a file name, for one that is too long, does not compile or
  // means something that PCRE2 cannot say.
  static Result<Expression> create(std::string_view text);
  Expression(Expression&&) noexcept;
  Expression& operator=(Expression&&) noexcept;
  ~Expression();

  // What one thread needs to search; made once for many searches.
  class Search {
   public:
    // Both must outlive this.
    Search(const Expression& expression, SearchEffort& effort);
    Search(Search&&) noexcept;
    ~Search();

    // The first match that begins at or after `from`, after it if the match is empty; nothing if
    // there is none or if the effort is spent. Requires valid UTF-8, `from` at the start of a
    // character.
    std::optional<Range> find(std::string_view text, size_t from);

   private:
    struct State;
    std::unique_ptr<State> state_;
  };

 private:
  struct State;
  explicit Expression(std::unique_ptr<const State> state);
  std::unique_ptr<const State> state_;
};

// `expression`, as a tokenizer.json has it, in PCRE2's syntax: \s and \w spelled out as Oniguruma
// means them, \h as a hexadecimal digit, brackets in brackets and their intersection (&&) as
// look-aheads. kBadInput for what it does not know.
Result<std::string> translate_expression(std::string_view expression);

}  // namespace banyan
