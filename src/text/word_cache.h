// SPDX-License-Identifier: Apache-2.0
#pragma once
// Remembers, within one text, which tokens a short word became: most words of a text have come
// before. Holds no tokens itself, only where they stand in the output.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "base/ids.h"

namespace banyan {

// `tokens` may only grow while the cache is in use.
class WordCache {
 public:
  static constexpr size_t kMaxWordBytes = 24;

  // Appends the tokens of `word` and returns true, or returns false if it is not known.
  bool append(std::string_view word, std::vector<TokenId>& tokens) const {
    if (slots_.empty() || word.size() > kMaxWordBytes) return false;
    const Slot& slot = slots_[slot_of(word)];
    if (std::string_view(slot.word, slot.length) != word) return false;
    for (uint32_t i = 0; i < slot.n_tokens; ++i) tokens.push_back(tokens[slot.first + i]);
    return true;
  }

  // tokens[first ..) are those of `word`.
  void remember(std::string_view word, size_t first, const std::vector<TokenId>& tokens) {
    if (word.size() > kMaxWordBytes) return;
    if (slots_.empty()) slots_.resize(kSlots);
    Slot& slot = slots_[slot_of(word)];
    std::memcpy(slot.word, word.data(), word.size());
    slot.length = static_cast<uint32_t>(word.size());
    slot.n_tokens = static_cast<uint32_t>(tokens.size() - first);
    slot.first = first;
  }

 private:
  static constexpr size_t kSlots = 8192;  // 320 KiB: stays in the second cache level
  struct Slot {
    char word[kMaxWordBytes];
    size_t first = 0;
    uint32_t n_tokens = 0;
    uint32_t length = 0;
  };

  static size_t slot_of(std::string_view word) {
    uint64_t hash = word.size();
    while (!word.empty()) {
      uint64_t bytes = 0;
      const size_t n = word.size() < sizeof bytes ? word.size() : sizeof bytes;
      std::memcpy(&bytes, word.data(), n);
      hash = (hash ^ bytes) * 0x9E3779B97F4A7C15U;
      hash ^= hash >> 32;
      word.remove_prefix(n);
    }
    return hash % kSlots;
  }

  std::vector<Slot> slots_;  // direct-mapped
};

}  // namespace banyan
