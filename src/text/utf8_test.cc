// SPDX-License-Identifier: Apache-2.0
#include "text/utf8.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace banyan {
namespace {

// Straight from the definition of the encoding form: code point to bytes.
std::string encode(uint32_t code_point) {
  const auto tail = [code_point](int shift) {
    return static_cast<char>(0x80 | (code_point >> shift & 0x3F));
  };
  if (code_point < 0x80) return {static_cast<char>(code_point)};
  if (code_point < 0x800) return {static_cast<char>(0xC0 | code_point >> 6), tail(0)};
  if (code_point < 0x10000) {
    return {static_cast<char>(0xE0 | code_point >> 12), tail(6), tail(0)};
  }
  return {static_cast<char>(0xF0 | code_point >> 18), tail(12), tail(6), tail(0)};
}

bool is_scalar_value(uint32_t code_point) {
  return code_point < 0x110000 && (code_point < 0xD800 || code_point > 0xDFFF);
}

TEST(Utf8, EveryScalarValueIsOneCharacterAndEveryBeginningOfItIsIncomplete) {
  for (uint32_t code_point = 0; code_point < 0x110000; ++code_point) {
    const std::string bytes = encode(code_point);
    if (!is_scalar_value(code_point)) {
      ASSERT_EQ(first_utf8_unit(bytes).kind, Utf8Unit::kInvalid) << code_point;
      continue;
    }
    const Utf8Unit unit = first_utf8_unit(bytes + "x");
    ASSERT_EQ(unit.kind, Utf8Unit::kCharacter) << code_point;
    ASSERT_EQ(unit.length, bytes.size()) << code_point;
    for (size_t cut = 1; cut < bytes.size(); ++cut) {
      const Utf8Unit part = first_utf8_unit(bytes.substr(0, cut));
      ASSERT_EQ(part.kind, Utf8Unit::kIncomplete) << code_point;
      ASSERT_EQ(part.length, cut) << code_point;
    }
  }
}

// All well-formed sequences, by enumeration; what is in none of them as a beginning is ill-formed.
TEST(Utf8, MaximalSubpartsAreTheLongestBeginningsOfCharacters) {
  std::vector<bool> begins(size_t{1} << 24,
                           false);  // index: up to three bytes, shorter ones padded
  const auto index = [](std::string_view bytes) {
    uint32_t value = 0;
    for (size_t i = 0; i < 3; ++i) {
      value = value << 8 | (i < bytes.size() ? static_cast<uint8_t>(bytes[i]) : 0);
    }
    return value;
  };
  for (uint32_t code_point = 0x80; code_point < 0x110000; ++code_point) {
    if (!is_scalar_value(code_point)) continue;
    const std::string bytes = encode(code_point);
    for (size_t n = 1; n < bytes.size(); ++n) begins[index(bytes.substr(0, n))] = true;
  }
  std::mt19937 random(1);
  for (int trial = 0; trial < 300'000; ++trial) {
    std::string bytes;
    for (int i = 0; i < 4; ++i) bytes += static_cast<char>(0x80 | (random() & 0x7F));
    if (trial % 2 == 0) bytes[1] = 'x';
    const Utf8Unit unit = first_utf8_unit(bytes);
    if (unit.kind == Utf8Unit::kCharacter) continue;
    size_t longest = 0;
    while (longest < 3 && begins[index(std::string_view(bytes).substr(0, longest + 1))]) ++longest;
    ASSERT_EQ(unit.kind, Utf8Unit::kInvalid);
    ASSERT_EQ(unit.length, longest == 0 ? 1 : longest);
  }
}

// The examples of the Unicode Standard, tables 3-8 to 3-11.
TEST(Utf8, ReplacesMaximalSubpartsAsTheStandardShows) {
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(make_valid_utf8("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"),
            r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(make_valid_utf8("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"),
            r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(make_valid_utf8("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"),
            r + r + r + r + r + "A" + r + r + "B");
  EXPECT_EQ(make_valid_utf8("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), r + r + r + r + "A");
}

TEST(Utf8, ValidLengthEndsAtTheFirstWrongByteWhereverItStands) {
  const std::string good = "Ab\xC3\xA9 long enough for words of eight bytes \xF0\x9F\x8C\xB3 end";
  EXPECT_EQ(valid_utf8_length(good), good.size());
  EXPECT_EQ(valid_utf8_length(""), 0U);
  for (size_t at = 0; at <= good.size(); ++at) {
    if (at < good.size() && (good[at] & 0xC0) == 0x80) continue;  // inside a character
    const std::string bad = good.substr(0, at) + '\xFF' + good.substr(at);
    EXPECT_EQ(valid_utf8_length(bad), at);
  }
}

}  // namespace
}  // namespace banyan
