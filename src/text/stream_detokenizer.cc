// SPDX-License-Identifier: Apache-2.0
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace banyan {

StreamDetokenizer::StreamDetokenizer(const Tokenizer& tokenizer, Special special,
                                     bool skip_first_space)
    : tokenizer_(tokenizer),
      special_(special),
      skip_space_(skip_first_space && tokenizer.space_prefix() != SpacePrefix::kNone) {}

// Same rule as Tokenizer::decode().
std::string StreamDetokenizer::push(TokenId token) {
  std::string_view bytes = tokenizer_.piece(token, special_);
  if (tokenizer_.is_special(token)) {
    skip_space_ = tokenizer_.space_prefix() == SpacePrefix::kEvery;
  } else if (!bytes.empty()) {
    if (skip_space_ && bytes[0] == ' ') bytes.remove_prefix(1);
    skip_space_ = false;
  }
  pending_ += bytes;
  return take(false);
}

std::string StreamDetokenizer::finish() { return take(true); }

// All of pending_ but, unless this is the end, a character that has only begun.
std::string StreamDetokenizer::take(bool at_end) {
  std::string_view rest = pending_;
  size_t keep = 0;
  // Only the last three bytes can hold the beginning of a character.
  for (size_t back = 1; !at_end && back <= 3 && back <= rest.size(); ++back) {
    const Utf8Unit unit = first_utf8_unit(rest.substr(rest.size() - back));
    if (unit.kind == Utf8Unit::kIncomplete) keep = back;
  }
  std::string text = make_valid_utf8(rest.substr(0, rest.size() - keep));
  pending_.erase(0, rest.size() - keep);
  return text;
}

}  // namespace banyan
