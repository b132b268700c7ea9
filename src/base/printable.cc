// SPDX-License-Identifier: Apache-2.0
#include "base/printable.h"

#include <fmt/format.h>

namespace banyan {

std::string printable(std::string_view text, size_t max_length) {
  std::string out;
  for (const char c : text) {
    if (out.size() >= max_length) return out + "..";
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      out += c;
    } else {
      out += fmt::format("\\x{:02x}", byte);
    }
  }
  return out;
}

}  // namespace banyan
