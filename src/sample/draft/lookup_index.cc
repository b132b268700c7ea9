// SPDX-License-Identifier: Apache-2.0
#include "sample/draft/lookup_index.h"

#include <algorithm>

#include "base/check.h"

namespace banyan {
namespace {

// Tokens before which text[a] and text[b] agree, at most `most`, these two included. Requires
// a < b.
int common_suffix(std::span<const TokenId> text, size_t a, size_t b, int most) {
  int n = 0;
  while (n < most && static_cast<size_t>(n) <= a && text[a - n] == text[b - n]) ++n;
  return n;
}

}  // namespace

uint32_t& LookupIndex::head(TokenId a, TokenId b) {
  const uint64_t pair = uint64_t{static_cast<uint32_t>(a)} << 32 | static_cast<uint32_t>(b);
  return heads_[(pair * 0x9e3779b97f4a7c15) >> 32 & (heads_.size() - 1)];
}

void LookupIndex::link(std::span<const TokenId> text, size_t end) {
  uint32_t& last = head(text[end - 1], text[end]);
  previous_[end] = last;
  last = static_cast<uint32_t>(end);
}

// Where the candidate that was right goes on, if one was: they differ in what follows.
LookupIndex::Match LookupIndex::going_on(std::span<const TokenId> text) const {
  for (const Match& one : candidates()) {
    if (text[one.next] == text.back()) return {std::min(one.length + 1, kLongest), one.next + 1};
  }
  return {};
}

// Whether a match that goes on at `next`, of the longest that there are, would change anything.
bool LookupIndex::may_improve(std::span<const TokenId> text, size_t next) const {
  for (const Match& one : candidates()) {
    if (text[one.next] == text[next]) return one.length < kLongest;
  }
  return n_candidates_ < kCandidates || candidates_.back().length < kLongest;
}

// Takes up a match that lies before all others so far, where it is among the best.
void LookupIndex::consider(std::span<const TokenId> text, const Match& match) {
  // What it replaces: the candidate with the same token, else the last one if there are all.
  size_t place = 0;
  while (place < n_candidates_ && text[candidates_[place].next] != text[match.next]) ++place;
  if (place == kCandidates) --place;
  if (place == n_candidates_) {
    ++n_candidates_;
  } else if (candidates_[place].length >= match.length) {
    return;
  }
  for (; place > 0 && candidates_[place - 1].length < match.length; --place) {
    candidates_[place] = candidates_[place - 1];
  }
  candidates_[place] = match;
}

void LookupIndex::push(std::span<const TokenId> text) {
  BANYAN_CHECK(text.size() == size() + 1, "one token more");
  const size_t end = size();
  previous_.push_back(kNone);
  if (end >= heads_.size()) {
    heads_.assign(std::max<size_t>(64, 2 * heads_.size()), kNone);
    for (size_t i = 1; i < end; ++i) link(text, i);
  }
  const Match before = going_on(text);
  n_candidates_ = 0;
  if (end == 0) return;
  uint32_t place = head(text[end - 1], text[end]);
  for (int tried = 0; place != kNone && tried < kMostTried; ++tried, place = previous_[place]) {
    const size_t next = size_t{place} + 1;
    if (!may_improve(text, next)) continue;
    const int length = common_suffix(text, place, end, kLongest);
    if (length >= kLeast) consider(text, {length, next});
  }
  if (before.length > 0) consider(text, before);
  link(text, end);
}

}  // namespace banyan
