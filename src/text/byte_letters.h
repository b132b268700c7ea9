// SPDX-License-Identifier: Apache-2.0
#pragma once
// How vocabularies write bytes: byte-level BPE in GPT-2's printable alphabet (Radford et al. 2019),
// one character for each byte, SentencePiece by name.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace banyan {

// The bytes that `letters` spells; nothing if there is a character that is no byte's letter.
std::optional<std::string> bytes_of_letters(std::string_view letters);

// The letter of a byte, in UTF-8.
std::string letter_of_byte(uint8_t byte);

// The byte that SentencePiece's name of a byte token, "<0x0A>", means; nothing if it is no such
// name.
std::optional<uint8_t> parse_byte_token(std::string_view text);

}  // namespace banyan
