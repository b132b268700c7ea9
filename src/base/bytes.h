// SPDX-License-Identifier: Apache-2.0
#pragma once
// Byte counts: checked arithmetic for sizes that come from files, and their text form for people.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace banyan {

// a * b and a + b, nothing on overflow.
inline std::optional<uint64_t> checked_mul(uint64_t a, uint64_t b) {
  uint64_t r = 0;
  if (__builtin_mul_overflow(a, b, &r)) return std::nullopt;
  return r;
}
inline std::optional<uint64_t> checked_add(uint64_t a, uint64_t b) {
  uint64_t r = 0;
  if (__builtin_add_overflow(a, b, &r)) return std::nullopt;
  return r;
}

// "4096", "512MiB", "1.5GiB", "64K" (binary units, KB = KiB as users mean it); nothing if it is
// not such a number or does not fit.
std::optional<uint64_t> parse_bytes(std::string_view text);

// "98.4 MB"-style text in binary units: "93.8 MiB".
std::string format_bytes(uint64_t bytes);

// Memory that could be given to a new allocation now (cgroup limit respected), in bytes.
uint64_t available_memory();

}  // namespace banyan
