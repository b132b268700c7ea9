// SPDX-License-Identifier: Apache-2.0
#pragma once
// Properties and forms of Unicode characters, on utf8proc.

#include <cstdint>
#include <string>
#include <string_view>

namespace banyan {

// A character of well-formed UTF-8 and its length in bytes. Requires a text that is not empty.
struct Character {
  int32_t code;
  size_t length;
};
Character first_character(std::string_view text);
Character last_character(std::string_view text);
void append_character(int32_t code, std::string& text);

bool is_white_space(int32_t code);       // Unicode's White_Space
bool is_word_character(int32_t code);    // letters, marks, numbers, connector punctuation: \w
bool is_number_character(int32_t code);  // \p{N}
bool is_mark(int32_t code);              // \p{M}

enum class UnicodeForm { kNfc, kNfd, kNfkc, kNfkd };

// Requires well-formed UTF-8. Linear; see Normalizer::apply().
std::string to_form(UnicodeForm form, std::string_view text);

// Each character by itself, as Unicode's full mapping without context has it.
std::string to_lower_case(std::string_view text);

// Length in bytes of the first character as people see it (an extended grapheme cluster of UAX 29).
// Requires well-formed UTF-8, not empty.
size_t first_grapheme_length(std::string_view text);

}  // namespace banyan
