// SPDX-License-Identifier: Apache-2.0
#pragma once
// UTF-8 as the Unicode Standard defines it (chapter 3, table 3-7): no overlong forms, no
// surrogates, nothing above U+10FFFF.

#include <cstddef>
#include <string>
#include <string_view>

namespace banyan {

// What stands at the start of a text.
struct Utf8Unit {
  enum Kind {
    kCharacter,   // a well-formed character
    kInvalid,     // a maximal subpart of an ill-formed sequence: one U+FFFD stands for it
    kIncomplete,  // the text ends inside a character
  };
  Kind kind;
  size_t length;  // in bytes, >= 1
};

// Requires a text that is not empty.
Utf8Unit first_utf8_unit(std::string_view text);

// Length of the longest well-formed beginning of `text`.
size_t valid_utf8_length(std::string_view text);

// `text` with U+FFFD for each maximal subpart that is not UTF-8 (Unicode 15, section 3.9, "U+FFFD
// substitution of maximal subparts").
std::string make_valid_utf8(std::string_view text);

}  // namespace banyan
