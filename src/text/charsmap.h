// SPDX-License-Identifier: Apache-2.0
#pragma once
// SentencePiece's "precompiled charsmap": replacements of character sequences, as a double-array
// trie (Aoe 1989, in the packing of Darts-clone) and the replacements' texts. The format is that of
// sentencepiece/src/normalizer.cc: the trie's size in bytes, its units, then texts that end in 0.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace banyan {

class Charsmap {
 public:
  struct Match {
    size_t length;  // in bytes of the text, >= 1
    std::string_view replacement;
  };

  // kBadInput, in a sentence without a file name, for sizes that contradict each other. A trie that
  // leads outside itself finds nothing there.
  static Result<Charsmap> create(std::string_view bytes);

  // The longest, or the shortest, beginning of `text` that has a replacement. Bounded by the trie's
  // size; texts do not hold NUL.
  std::optional<Match> longest(std::string_view text) const { return find(text, false); }
  std::optional<Match> shortest(std::string_view text) const { return find(text, true); }
  // Whether this byte alone has a replacement.
  bool replaces(char c) const { return replaces_[static_cast<uint8_t>(c)]; }

 private:
  std::optional<Match> find(std::string_view text, bool stop_at_first) const;

  std::vector<uint32_t> units_;
  std::string texts_;
  std::array<bool, 256> replaces_{};
};

}  // namespace banyan
