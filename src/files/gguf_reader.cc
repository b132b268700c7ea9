// SPDX-License-Identifier: Apache-2.0
#include "files/gguf_reader.h"

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/printable.h"

namespace banyan {
namespace {

constexpr uint64_t kMaxNameBytes = uint64_t{64} << 10;

}  // namespace

std::string describe(const GgufPlace& place) {
  return fmt::format("{} '{}'", place.kind, printable(place.name));
}

std::string_view GgufReader::take_text(uint64_t size) {
  BANYAN_CHECK(size <= left(), "more text is taken than there are bytes");
  const auto* text = reinterpret_cast<const char*>(bytes_.data() + position_);
  position_ += size;
  return {text, size};
}

Result<std::string_view> GgufReader::take_name(std::string_view kind) {
  const uint64_t begin = position_;
  uint64_t size = 0;
  if (!take(size)) return truncated(fmt::format("the name of a {}", kind));
  if (size >= 1 && size <= kMaxNameBytes && size <= left()) return take_text(size);
  return error(fmt::format("the {} at byte {} claims a name of {} bytes; 1 to {} would be right",
                           kind, begin, size, std::min(kMaxNameBytes, left())));
}

Error GgufReader::error(std::string_view what) const {
  return bad_input(fmt::format("GGUF file '{}': {}", file_name_, what));
}

Error GgufReader::truncated(std::string_view inside) const {
  return error(fmt::format("it ends after {} bytes, inside {}; a complete file would go on",
                           bytes_.size(), inside));
}

}  // namespace banyan
