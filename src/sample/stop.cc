// SPDX-License-Identifier: Apache-2.0
#include "sample/stop.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace banyan {
namespace {

// Bytes of `text` matched after one more byte, of `matched` before.
size_t advance(std::string_view text, const std::vector<size_t>& borders, size_t matched,
               char next) {
  while (matched > 0 && text[matched] != next) matched = borders[matched - 1];
  return text[matched] == next ? matched + 1 : 0;
}

}  // namespace

StopMatcher::StopMatcher(std::vector<std::string> stop_strings) {
  for (std::string& text : stop_strings) {
    BANYAN_CHECK(!text.empty(), "a stop string has text");
    std::vector<size_t> borders(text.size(), 0);
    for (size_t i = 1; i < text.size(); ++i) {
      borders[i] = advance(text, borders, borders[i - 1], text[i]);
    }
    patterns_.push_back({std::move(text), std::move(borders), 0});
  }
}

StopMatcher::Result StopMatcher::push(std::string_view piece) {
  if (stopped_ || piece.empty()) return {{}, stopped_};
  size_t withheld = 0;  // bytes at the end of the text that are not shown now
  size_t taken = 0;
  while (taken < piece.size() && !stopped_) {
    const char next = piece[taken++];
    size_t begun = 0;
    size_t complete = 0;
    for (Pattern& pattern : patterns_) {
      pattern.matched = advance(pattern.text, pattern.borders, pattern.matched, next);
      size_t& longest = pattern.matched == pattern.text.size() ? complete : begun;
      longest = std::max(longest, pattern.matched);
    }
    stopped_ = complete > 0;
    withheld = stopped_ ? complete : begun;
  }
  held_.append(piece.substr(0, taken));
  const size_t shown = held_.size() - withheld;
  Result result{held_.substr(0, shown), stopped_};
  held_.erase(0, stopped_ ? held_.size() : shown);
  return result;
}

std::string StopMatcher::finish() {
  for (Pattern& pattern : patterns_) pattern.matched = 0;
  return std::exchange(held_, {});
}

}  // namespace banyan
