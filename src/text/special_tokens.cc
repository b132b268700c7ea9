// SPDX-License-Identifier: Apache-2.0
#include "text/special_tokens.h"

#include <algorithm>

namespace banyan {

SpecialTokens::SpecialTokens(std::vector<std::pair<std::string, TokenId>> tokens)
    : tokens_(std::move(tokens)) {
  std::erase_if(tokens_, [](const auto& token) {
    return token.first.empty() || token.first.size() > kMaxLength;
  });
  std::sort(tokens_.begin(), tokens_.end());
  for (const auto& [text, token] : tokens_) ++first_[static_cast<uint8_t>(text[0]) + 1];
  for (size_t byte = 0; byte < 256; ++byte) first_[byte + 1] += first_[byte];
}

std::optional<SpecialTokens::Match> SpecialTokens::find(std::string_view text, size_t from) const {
  if (tokens_.empty()) return std::nullopt;
  for (size_t begin = from; begin < text.size(); ++begin) {
    const auto byte = static_cast<uint8_t>(text[begin]);
    if (first_[byte] == first_[byte + 1]) continue;
    if (auto match = longest_at(text, begin)) return match;
  }
  return std::nullopt;
}

// Narrows the range of tokens that agree with the text, byte by byte. In sorted order a token that
// ends here stands before those that go on.
std::optional<SpecialTokens::Match> SpecialTokens::longest_at(std::string_view text,
                                                              size_t begin) const {
  const auto byte = static_cast<uint8_t>(text[begin]);
  auto low = tokens_.begin() + first_[byte];
  auto high = tokens_.begin() + first_[byte + 1];
  std::optional<Match> longest;
  for (size_t length = 1;; ++length) {
    if (low->first.size() == length) {
      longest = Match{begin, length, low->second};
      while (low != high && low->first.size() == length) ++low;  // the same text again
    }
    if (low == high || begin + length == text.size()) return longest;
    const auto next = static_cast<uint8_t>(text[begin + length]);
    const auto byte_at = [length](const auto& token) {
      return static_cast<uint8_t>(token.first[length]);
    };
    low = std::partition_point(low, high, [&](const auto& t) { return byte_at(t) < next; });
    high = std::partition_point(low, high, [&](const auto& t) { return byte_at(t) <= next; });
    if (low == high) return longest;
  }
}

}  // namespace banyan
