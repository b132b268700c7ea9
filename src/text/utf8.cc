// SPDX-License-Identifier: Apache-2.0
#include "text/utf8.h"

#include <cstdint>
#include <cstring>

namespace banyan {
namespace {

// Table 3-7: how many bytes follow a first byte, and the range of the second one. The others are in
// [80, BF].
struct FirstByte {
  uint8_t following;
  uint8_t second_min;
  uint8_t second_max;
};

FirstByte classify(uint8_t byte) {
  if (byte < 0x80) return {0, 0, 0};
  if (byte >= 0xC2 && byte <= 0xDF) return {1, 0x80, 0xBF};
  if (byte == 0xE0) return {2, 0xA0, 0xBF};
  if (byte == 0xED) return {2, 0x80, 0x9F};
  if (byte >= 0xE1 && byte <= 0xEF) return {2, 0x80, 0xBF};
  if (byte == 0xF0) return {3, 0x90, 0xBF};
  if (byte >= 0xF1 && byte <= 0xF3) return {3, 0x80, 0xBF};
  if (byte == 0xF4) return {3, 0x80, 0x8F};
  return {1, 1, 0};  // no second byte is right
}

}  // namespace

Utf8Unit first_utf8_unit(std::string_view text) {
  const FirstByte first = classify(static_cast<uint8_t>(text[0]));
  if (first.second_min > first.second_max) return {Utf8Unit::kInvalid, 1};
  for (size_t i = 1; i <= first.following; ++i) {
    if (i == text.size()) return {Utf8Unit::kIncomplete, i};
    const auto byte = static_cast<uint8_t>(text[i]);
    const bool right = i == 1 ? byte >= first.second_min && byte <= first.second_max
                              : byte >= 0x80 && byte <= 0xBF;
    if (!right) return {Utf8Unit::kInvalid, i};
  }
  return {Utf8Unit::kCharacter, size_t{1} + first.following};
}

size_t valid_utf8_length(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    uint64_t eight = 0;
    if (i + sizeof eight <= text.size()) {
      std::memcpy(&eight, text.data() + i, sizeof eight);
      if ((eight & 0x8080808080808080U) == 0) {
        i += sizeof eight;
        continue;
      }
    }
    const Utf8Unit unit = first_utf8_unit(text.substr(i));
    if (unit.kind != Utf8Unit::kCharacter) break;
    i += unit.length;
  }
  return i;
}

std::string make_valid_utf8(std::string_view text) {
  std::string valid;
  valid.reserve(text.size());
  while (!text.empty()) {
    const size_t length = valid_utf8_length(text);
    valid.append(text, 0, length);
    text.remove_prefix(length);
    if (text.empty()) break;
    valid += "\xEF\xBF\xBD";
    text.remove_prefix(first_utf8_unit(text).length);
  }
  return valid;
}

}  // namespace banyan
