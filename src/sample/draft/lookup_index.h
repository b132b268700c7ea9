// SPDX-License-Identifier: Apache-2.0
#pragma once
// Where the end of a text stood in it before: what prompt lookup (Saxena 2023) continues. Matches
// are found as in LZ77 compressors, by chains of the places where the same pair of tokens stood.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.h"

namespace banyan {

// A copy goes on as its original would. Not thread safe.
class LookupIndex {
 public:
  static constexpr int kLeast = 2;       // tokens of a match
  static constexpr int kLongest = 32;    // as long as any longer one
  static constexpr int kMostTried = 64;  // earlier places of the last two tokens
  static constexpr size_t kCandidates = 3;

  struct Match {
    int length = 0;   // of the suffix that stood before: 0, or in [kLeast, kLongest]
    size_t next = 0;  // index of the token that followed it there
  };

  // Takes up one token more: text.back(), where `text` is all so far, the tokens of earlier calls
  // unchanged. O(kMostTried * kLongest), amortised: memory is 8 to 16 bytes for each token.
  void push(std::span<const TokenId> text);

  // The longest suffix of the text that also ends earlier in it, and of its places the latest. With
  // more than kMostTried places of its last two tokens, the longest of the latest of these and of
  // where the candidate of one token ago that was right goes on.
  Match match() const { return n_candidates_ == 0 ? Match{} : candidates_[0]; }

  // match(), and the same of what was followed by another token than those before it: at most
  // kCandidates in all, the longest first, of equals the latest. Holds until the next push().
  std::span<const Match> candidates() const { return std::span(candidates_).first(n_candidates_); }

  size_t size() const { return previous_.size(); }  // tokens taken up

 private:
  void link(std::span<const TokenId> text, size_t end);
  Match going_on(std::span<const TokenId> text) const;
  bool may_improve(std::span<const TokenId> text, size_t next) const;
  void consider(std::span<const TokenId> text, const Match& match);
  uint32_t& head(TokenId a, TokenId b);

  static constexpr uint32_t kNone = ~uint32_t{0};
  std::vector<uint32_t> heads_;     // by hash of two tokens: where they last stood (the second)
  std::vector<uint32_t> previous_;  // by token: where the same hash stood before
  std::array<Match, kCandidates> candidates_;
  size_t n_candidates_ = 0;
};

}  // namespace banyan
