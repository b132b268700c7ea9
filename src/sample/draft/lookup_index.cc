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

void LookupIndex::push(std::span<const TokenId> text) {
  BANYAN_CHECK(text.size() == size() + 1, "one token more");
  const size_t end = size();
  previous_.push_back(kNone);
  if (end >= heads_.size()) {
    heads_.assign(std::max<size_t>(64, 2 * heads_.size()), kNone);
    for (size_t i = 1; i < end; ++i) link(text, i);
  }
  // The last match goes on, if it does.
  const bool goes_on = match_.length > 0 && text[match_.next] == text[end];
  match_ = goes_on ? Match{std::min(match_.length + 1, kLongest), match_.next + 1} : Match{};
  if (end == 0) return;
  uint32_t place = head(text[end - 1], text[end]);
  int longest = kLeast - 1;
  for (int tried = 0; place != kNone && tried < kMostTried; ++tried, place = previous_[place]) {
    const int length = common_suffix(text, place, end, kLongest);
    if (length <= longest) continue;
    longest = length;
    if (length >= match_.length) match_ = {length, size_t{place} + 1};
    if (length == kLongest) break;
  }
  link(text, end);
}

}  // namespace banyan
