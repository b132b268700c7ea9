// SPDX-License-Identifier: Apache-2.0
#pragma once
// The distinct tokens among the last n of a text, with how often each occurs: what penalties see.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.h"

namespace banyan {

class RecentTokens {
 public:
  struct Entry {
    TokenId token = 0;
    int32_t count = 0;  // >= 1
  };

  // last_n >= 1, or -1: all tokens ever pushed.
  RecentTokens(int32_t vocabulary_size, int last_n);

  // Requires 0 <= token < vocabulary_size. O(1), amortised: memory follows the text, up to last_n.
  void push(TokenId token);

  // In no particular order; valid until the next push().
  std::span<const Entry> entries() const { return entries_; }

 private:
  void forget(TokenId token);

  int last_n_;
  std::vector<TokenId> ring_;  // the last last_n tokens; not kept where last_n is -1
  size_t oldest_ = 0;          // of a full ring
  std::vector<Entry> entries_;
  std::vector<int32_t> places_;  // [vocabulary] index into entries_, or -1
};

}  // namespace banyan
