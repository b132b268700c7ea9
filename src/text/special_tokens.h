// SPDX-License-Identifier: Apache-2.0
#pragma once
// Tokens that are found by their text before the text is split into words.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ids.h"

namespace banyan {

class SpecialTokens {
 public:
  struct Match {
    size_t begin;  // offset in the text
    size_t length;
    TokenId token;
  };

  SpecialTokens() = default;
  // Empty texts, and texts longer than kMaxLength bytes, are never found.
  explicit SpecialTokens(std::vector<std::pair<std::string, TokenId>> tokens);

  // The leftmost token at or after `from`, and of those that begin there the longest. Linear in the
  // distance.
  std::optional<Match> find(std::string_view text, size_t from) const;

  static constexpr size_t kMaxLength = 256;  // those of real models have fewer than 100

 private:
  std::optional<Match> longest_at(std::string_view text, size_t begin) const;

  std::vector<std::pair<std::string, TokenId>> tokens_;  // sorted by text
  std::array<uint32_t, 257> first_{};  // tokens_[first_[b], first_[b + 1]) begin with byte b
};

}  // namespace banyan
