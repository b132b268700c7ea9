// SPDX-License-Identifier: Apache-2.0
#include "text/unicode.h"

#include <utf8proc.h>

#include <cstdlib>
#include <memory>

#include "base/check.h"

namespace banyan {
namespace {

// utf8proc sorts marks by insertion: a row of them without an end would take quadratic time. UAX 15
// knows a text as "stream-safe" if it has no more than 30 in a row.
constexpr int kMaxMarks = 256;

bool is_ascii(char c) { return static_cast<unsigned char>(c) < 0x80; }

struct Free {
  void operator()(utf8proc_uint8_t* text) const { std::free(text); }
};

void append_form(utf8proc_option_t options, std::string_view text, std::string& out) {
  utf8proc_uint8_t* mapped = nullptr;
  const utf8proc_ssize_t length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &mapped, options);
  const std::unique_ptr<utf8proc_uint8_t, Free> owner(mapped);
  BANYAN_CHECK(length >= 0, "utf8proc refuses well-formed text");
  out.append(reinterpret_cast<const char*>(mapped), static_cast<size_t>(length));
}

// Where a text that begins at 0 can be cut after at least one character: before an ASCII character,
// which composes with nothing before it, or in a long row of marks.
size_t end_of_piece(std::string_view text) {
  int marks = 0;
  size_t at = first_character(text).length;
  while (at < text.size()) {
    if (is_ascii(text[at])) return at;
    const Character c = first_character(text.substr(at));
    marks = utf8proc_get_property(c.code)->combining_class != 0 ? marks + 1 : 0;
    if (marks > kMaxMarks) return at;
    at += c.length;
  }
  return at;
}

}  // namespace

Character first_character(std::string_view text) {
  utf8proc_int32_t code = 0;
  const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                       static_cast<utf8proc_ssize_t>(text.size()), &code);
  BANYAN_CHECK(length > 0, "not UTF-8");
  return {code, static_cast<size_t>(length)};
}

Character last_character(std::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  return first_character(text.substr(begin));
}

void append_character(int32_t code, std::string& text) {
  utf8proc_uint8_t bytes[4];
  const auto length = utf8proc_encode_char(code, bytes);
  text.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
}

bool is_white_space(int32_t code) {
  if (code < 0x80) return code == ' ' || (code >= '\t' && code <= '\r');
  return code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
         code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

bool is_word_character(int32_t code) {
  if (code == 0x200C || code == 0x200D) return true;  // the joiners
  switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

bool is_number_character(int32_t code) {
  const utf8proc_category_t category = utf8proc_category(code);
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
         category == UTF8PROC_CATEGORY_NO;
}

bool is_mark(int32_t code) {
  const utf8proc_category_t category = utf8proc_category(code);
  return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
         category == UTF8PROC_CATEGORY_ME;
}

std::string to_form(UnicodeForm form, std::string_view text) {
  int options = UTF8PROC_STABLE;
  const bool compose = form == UnicodeForm::kNfc || form == UnicodeForm::kNfkc;
  options |= compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == UnicodeForm::kNfkc || form == UnicodeForm::kNfkd) options |= UTF8PROC_COMPAT;
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    size_t ascii = 0;  // all forms leave it as it is, unless a mark follows
    while (ascii < text.size() && is_ascii(text[ascii])) ++ascii;
    if (ascii < text.size() && ascii > 0) --ascii;
    out += text.substr(0, ascii);
    text.remove_prefix(ascii);
    if (text.empty()) break;
    const size_t end = end_of_piece(text);
    append_form(static_cast<utf8proc_option_t>(options), text.substr(0, end), out);
    text.remove_prefix(end);
  }
  return out;
}

std::string to_lower_case(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    if (is_ascii(text[0])) {
      const char c = text[0];
      out += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
      text.remove_prefix(1);
      continue;
    }
    const Character c = first_character(text);
    if (c.code == 0x130) {  // the only one that becomes two
      out += "i\xCC\x87";
    } else {
      append_character(utf8proc_tolower(c.code), out);
    }
    text.remove_prefix(c.length);
  }
  return out;
}

size_t first_grapheme_length(std::string_view text) {
  Character c = first_character(text);
  size_t length = c.length;
  utf8proc_int32_t state = 0;
  while (length < text.size()) {
    const Character next = first_character(text.substr(length));
    if (utf8proc_grapheme_break_stateful(c.code, next.code, &state)) break;
    length += next.length;
    c = next;
  }
  return length;
}

}  // namespace banyan
