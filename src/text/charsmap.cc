// SPDX-License-Identifier: Apache-2.0
#include "text/charsmap.h"

namespace banyan {
namespace {

// A replacement may be this many times as long as what it replaces: NFKC's longest is 11 times.
constexpr size_t kMaxGrowth = 16;

uint32_t little_endian(std::string_view bytes) {
  uint32_t value = 0;
  for (size_t i = 4; i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes[i]);
  return value;
}

// Darts-clone's packing of a unit: a label (bits 0 to 7, and 31, which is set in units that hold a
// value), whether a value follows (8), and an offset (10 to 30, times 256 if bit 9 is set).
uint32_t label_of(uint32_t unit) { return unit & (1U << 31 | 0xFFU); }
bool has_value(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t offset_of(uint32_t unit) { return unit >> 10 << ((unit & 1U << 9) >> 6); }
uint32_t value_of(uint32_t unit) { return unit & ((1U << 31) - 1); }

}  // namespace

Result<Charsmap> Charsmap::create(std::string_view bytes) {
  const uint32_t trie_bytes = bytes.size() < 4 ? 0 : little_endian(bytes);
  if (bytes.size() < 4 || trie_bytes % 4 != 0 || trie_bytes > bytes.size() - 4) {
    return bad_input("its precompiled charsmap of " + std::to_string(bytes.size()) +
                     " bytes does not hold the " + std::to_string(trie_bytes) +
                     " bytes of its trie");
  }
  Charsmap map;
  map.units_.reserve(trie_bytes / 4);
  for (size_t at = 4; at < 4 + size_t{trie_bytes}; at += 4) {
    map.units_.push_back(little_endian(bytes.substr(at, 4)));
  }
  map.texts_ = bytes.substr(4 + size_t{trie_bytes});
  for (int byte = 0; byte < 256; ++byte) {
    const auto c = static_cast<char>(byte);
    map.replaces_[byte] = map.find({&c, 1}, true).has_value();
  }
  return map;
}

std::optional<Charsmap::Match> Charsmap::find(std::string_view text, bool stop_at_first) const {
  if (units_.empty()) return std::nullopt;
  std::optional<Match> best;
  size_t node = offset_of(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    node ^= byte;
    if (byte == 0 || node >= units_.size() || label_of(units_[node]) != byte) break;
    const uint32_t unit = units_[node];
    node ^= offset_of(unit);
    if (!has_value(unit) || node >= units_.size()) continue;
    const size_t begin = value_of(units_[node]);
    const size_t end = begin < texts_.size() ? texts_.find('\0', begin) : std::string::npos;
    if (end == std::string::npos || end - begin > kMaxGrowth * (i + 1)) continue;
    best = Match{i + 1, std::string_view(texts_).substr(begin, end - begin)};
    if (stop_at_first) break;
  }
  return best;
}

}  // namespace banyan
