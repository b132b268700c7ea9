// SPDX-License-Identifier: Apache-2.0
#include "text/byte_letters.h"

#include <array>

namespace banyan {
namespace {

// Bytes that print in Latin-1 stand for themselves; the others are numbered from U+0100.
constexpr bool prints(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr int kLetters = 0x100 + 68;  // one past the last letter's code point

struct Alphabet {
  std::array<uint16_t, 256> letter{};
  std::array<int16_t, kLetters> byte{};  // -1: no letter
};

constexpr Alphabet make_alphabet() {
  Alphabet alphabet;
  for (int16_t& byte : alphabet.byte) byte = -1;
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const int letter = prints(byte) ? byte : next++;
    alphabet.letter[byte] = static_cast<uint16_t>(letter);
    alphabet.byte[letter] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = make_alphabet();

}  // namespace

std::optional<std::string> bytes_of_letters(std::string_view letters) {
  std::string bytes;
  bytes.reserve(letters.size());
  for (size_t i = 0; i < letters.size(); ++i) {
    int letter = static_cast<uint8_t>(letters[i]);
    if (letter >= 0x80) {  // all letters fit two bytes
      if ((letter & 0xE0) != 0xC0 || i + 1 == letters.size()) return std::nullopt;
      const int second = static_cast<uint8_t>(letters[++i]);
      if ((second & 0xC0) != 0x80) return std::nullopt;
      letter = (letter & 0x1F) << 6 | (second & 0x3F);
    }
    if (letter >= kLetters || kAlphabet.byte[letter] < 0) return std::nullopt;
    bytes += static_cast<char>(kAlphabet.byte[letter]);
  }
  return bytes;
}

std::string letter_of_byte(uint8_t byte) {
  const int letter = kAlphabet.letter[byte];
  if (letter < 0x80) return std::string(1, static_cast<char>(letter));
  return {static_cast<char>(0xC0 | letter >> 6), static_cast<char>(0x80 | (letter & 0x3F))};
}

std::optional<uint8_t> parse_byte_token(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return std::nullopt;
  int value = 0;
  for (const char c : text.substr(3, 2)) {
    const bool digit = c >= '0' && c <= '9';
    const bool letter = c >= 'A' && c <= 'F';
    if (!digit && !letter) return std::nullopt;
    value = value * 16 + (digit ? c - '0' : c - 'A' + 10);
  }
  return static_cast<uint8_t>(value);
}

}  // namespace banyan
