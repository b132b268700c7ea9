// SPDX-License-Identifier: Apache-2.0
#pragma once
// Where a text whose spaces are U+2581 can be cut into words without changing its tokens: in front
// of a space that no token holds together with what comes before it.

#include <array>
#include <cstdint>
#include <string_view>

#include "text/text_rules.h"

namespace banyan {

class SpaceCuts {
 public:
  // Tells of a token, or of a text on the way to one.
  void add(std::string_view text) {
    if (text == kSpaceLetter) space_is_token_ = true;
    for (size_t at = text.find(kSpaceLetter, 1); at != std::string_view::npos;
         at = text.find(kSpaceLetter, at + 1)) {
      if (!text.substr(0, at).ends_with(kSpaceLetter)) {
        joins_[static_cast<uint8_t>(text[at - 1])] = true;
      }
    }
  }

  // The length of the first word: its spaces, and what follows up to the next spaces that may be
  // cut off. Requires a text that is not empty.
  size_t first_word(std::string_view text) const {
    if (!space_is_token_) return text.size();
    size_t at = after_spaces(text, 0);
    while (true) {
      at = text.find(kSpaceLetter, at);
      if (at == std::string_view::npos) return text.size();
      if (at > 0 && !joins_[static_cast<uint8_t>(text[at - 1])]) return at;
      at = after_spaces(text, at);
    }
  }

 private:
  static size_t after_spaces(std::string_view text, size_t at) {
    while (text.substr(at).starts_with(kSpaceLetter)) at += kSpaceLetter.size();
    return at;
  }

  bool space_is_token_ = false;  // else rows of unknown characters span words
  // Last bytes of what some token holds in front of a row of spaces.
  std::array<bool, 256> joins_{};
};

}  // namespace banyan
