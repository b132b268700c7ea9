// SPDX-License-Identifier: Apache-2.0
#pragma once
// Drafts by prompt lookup: what followed when the text's end stood in it before, and where that
// differed, what else did. Every token of the text tests what would have been drafted for it, so
// acceptance is known before anything is risked.

#include <array>
#include <cstddef>
#include <span>

#include "sample/draft/acceptance.h"
#include "sample/draft/draft.h"
#include "sample/draft/lookup_index.h"

namespace banyan {

// A copy goes on as its original would. Not thread safe.
class LookupDrafter {
 public:
  LookupDrafter();

  // Takes up the tokens of `text` beyond those of earlier calls, which must be unchanged. Amortised
  // O(new tokens).
  void follow(std::span<const TokenId> text);

  // Puts what may follow `text` into `out`, up to `most` tokens deep, nothing where its end is new
  // or where hardly any would be right: the continuation of the best match, and those that begin
  // with another token behind it. Requires follow(text).
  void draft(std::span<const TokenId> text, size_t most, Draft& out) const;

  // What speaks for the continuation of a match, in [0, Acceptance::kLevels). Requires
  // length >= LookupIndex::kLeast.
  static int level(int length);

 private:
  void draft_along(std::span<const TokenId> text, const LookupIndex::Match& match, double rate,
                   bool is_best, size_t most, Draft& out) const;

  LookupIndex index_;
  // By the place of a candidate: given that those before it are wrong.
  std::array<Acceptance, LookupIndex::kCandidates> acceptance_;
};

}  // namespace banyan
