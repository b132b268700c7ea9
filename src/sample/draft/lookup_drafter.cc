// SPDX-License-Identifier: Apache-2.0
#include "sample/draft/lookup_drafter.h"

#include <algorithm>
#include <array>

namespace banyan {
namespace {

constexpr double kLeastReach = 0.05;  // no row costs so little that less would pay

// Measured on answers that hardly repeat what was there: docs/decisions.md.
constexpr Acceptance::Rates kAssumed = {0.3, 0.4, 0.55, 0.7, 0.75, 0.85, 0.95, 0.97};
// Testing runners-up costs nothing, so that they are drafted where a text has shown their worth.
constexpr Acceptance::Rates kAssumedOfOthers = {0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05};

}  // namespace

LookupDrafter::LookupDrafter()
    : acceptance_{Acceptance(kAssumed), Acceptance(kAssumedOfOthers),
                  Acceptance(kAssumedOfOthers)} {}

int LookupDrafter::level(int length) {
  constexpr std::array kFirst = {3, 4, 5, 7, 10, 16, 32};  // lengths at which a level begins
  return static_cast<int>(std::ranges::upper_bound(kFirst, length) - kFirst.begin());
}

void LookupDrafter::follow(std::span<const TokenId> text) {
  while (index_.size() < text.size()) {
    const size_t next = index_.size();
    for (size_t i = 0; i < index_.candidates().size(); ++i) {
      const LookupIndex::Match& match = index_.candidates()[i];
      const bool right = text[match.next] == text[next];
      acceptance_[i].observe(level(match.length), right);
      if (right) break;
    }
    index_.push(text.first(next + 1));
  }
}

void LookupDrafter::draft(std::span<const TokenId> text, size_t most, Draft& out) const {
  out.clear();
  double left = 1;  // probability that no candidate so far is right
  for (size_t i = 0; i < index_.candidates().size(); ++i) {
    const LookupIndex::Match& match = index_.candidates()[i];
    const double rate = acceptance_[i].rate(level(match.length));
    draft_along(text, match, left * rate, i == 0, most, out);
    left *= 1 - rate;
  }
}

// Appends the continuation of a match whose first token is right with probability `rate`.
void LookupDrafter::draft_along(std::span<const TokenId> text, const LookupIndex::Match& match,
                                double rate, bool is_best, size_t most, Draft& out) const {
  const size_t first = out.size();
  uint32_t last = Draft::kText;
  for (size_t i = 0; i < most; ++i) {
    if (i > 0) {
      const int length = std::min(match.length + static_cast<int>(i), LookupIndex::kLongest);
      rate = acceptance_[0].rate(level(length));
    }
    if (out.reach_of(last) * rate < kLeastReach) break;
    // A match that overlaps the end goes on into what is drafted.
    const size_t from = match.next + i;
    const TokenId token = from < text.size() ? text[from] : out.tokens[first + from - text.size()];
    last = out.add(token, last, rate, is_best || i > 0);
  }
}

}  // namespace banyan
