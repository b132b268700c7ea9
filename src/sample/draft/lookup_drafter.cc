// SPDX-License-Identifier: Apache-2.0
#include "sample/draft/lookup_drafter.h"

#include <algorithm>
#include <array>

namespace banyan {
namespace {

constexpr double kLeastReach = 0.05;  // no row costs so little that less would pay

// Measured on answers that hardly repeat what was there: docs/decisions.md.
constexpr Acceptance::Rates kAssumed = {0.3, 0.4, 0.55, 0.7, 0.75, 0.85, 0.95, 0.97};

}  // namespace

LookupDrafter::LookupDrafter() : acceptance_(kAssumed) {}

int LookupDrafter::level(int length) {
  constexpr std::array kFirst = {3, 4, 5, 7, 10, 16, 32};  // lengths at which a level begins
  return static_cast<int>(std::ranges::upper_bound(kFirst, length) - kFirst.begin());
}

void LookupDrafter::follow(std::span<const TokenId> text) {
  while (index_.size() < text.size()) {
    const LookupIndex::Match match = index_.match();
    const size_t next = index_.size();
    if (match.length > 0) {
      acceptance_.observe(level(match.length), text[match.next] == text[next]);
    }
    index_.push(text.first(next + 1));
  }
}

void LookupDrafter::draft(std::span<const TokenId> text, size_t most, Draft& out) const {
  out.clear();
  const auto [length, next] = index_.match();
  if (length == 0) return;
  for (size_t i = 0; i < most; ++i) {
    const double rate =
        acceptance_.rate(level(std::min(length + static_cast<int>(i), LookupIndex::kLongest)));
    if ((i == 0 ? 1 : out.reach.back()) * rate < kLeastReach) break;
    // A match that overlaps the end goes on into what is drafted.
    const size_t from = next + i;
    out.add(from < text.size() ? text[from] : out.tokens[from - text.size()], rate);
  }
}

}  // namespace banyan
