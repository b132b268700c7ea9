// SPDX-License-Identifier: Apache-2.0
#include "base/bytes.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>

#include "base/cgroup.h"

namespace banyan {
namespace {

constexpr std::string_view kUnitLetters = "KMGTPE";

bool is_digit(char c) { return c >= '0' && c <= '9'; }
char to_lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; }

// log2 of the unit that "", "B", "K", "KB" or "KiB" (and so on) names, in any case.
std::optional<int> parse_unit(std::string_view text) {
  std::string unit(text);
  std::ranges::transform(unit, unit.begin(), to_lower);
  if (unit.empty() || unit == "b") return 0;
  for (size_t i = 0; i < kUnitLetters.size(); ++i) {
    if (unit[0] != to_lower(kUnitLetters[i])) continue;
    const std::string_view rest = std::string_view(unit).substr(1);
    if (rest.empty() || rest == "b" || rest == "ib") return static_cast<int>(10 * (i + 1));
  }
  return std::nullopt;
}

// Takes the leading digits off `text`.
std::string_view take_digits(std::string_view& text) {
  const auto end = std::ranges::find_if_not(text, is_digit);
  const std::string_view digits = text.substr(0, static_cast<size_t>(end - text.begin()));
  text.remove_prefix(digits.size());
  return digits;
}

std::optional<uint64_t> to_number(std::string_view digits) {
  uint64_t value = 0;
  for (const char digit : digits) {
    const auto tens = checked_mul(value, 10);
    const auto next = tens ? checked_add(*tens, static_cast<uint64_t>(digit - '0')) : tens;
    if (!next) return std::nullopt;
    value = *next;
  }
  return value;
}

// floor(0.digits * 2^shift), shift <= 60: long multiplication by 2^shift, digit by digit from the
// right; what moves past the point is the result.
uint64_t scale_fraction(std::string_view digits, int shift) {
  uint64_t carry = 0;
  for (size_t i = digits.size(); i-- > 0;) {
    const uint64_t digit = static_cast<uint64_t>(digits[i] - '0');
    carry = ((digit << shift) + carry) / 10;  // < 2^60, so that the sum is < 10 * 2^60 < 2^64
  }
  return carry;
}

}  // namespace

std::optional<uint64_t> parse_bytes(std::string_view text) {
  const std::string_view whole_digits = take_digits(text);
  if (whole_digits.empty()) return std::nullopt;
  std::string_view fraction_digits;
  if (text.starts_with('.')) {
    text.remove_prefix(1);
    fraction_digits = take_digits(text);
    if (fraction_digits.empty()) return std::nullopt;
  }
  if (text.starts_with(' ')) text.remove_prefix(1);
  const auto shift = parse_unit(text);
  const auto whole = to_number(whole_digits);
  if (!shift || !whole) return std::nullopt;
  // There is no half byte.
  if (*shift == 0 && fraction_digits.find_first_not_of('0') != std::string_view::npos) {
    return std::nullopt;
  }
  const auto scaled = checked_mul(*whole, uint64_t{1} << *shift);
  return scaled ? checked_add(*scaled, scale_fraction(fraction_digits, *shift)) : std::nullopt;
}

std::string format_bytes(uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  while (value >= 1023.95 && unit + 1 < kUnitLetters.size()) {  // "1024.0 KiB" is "1.0 MiB"
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.1f} {}iB", value, kUnitLetters[unit]);
}

uint64_t available_memory() {
  uint64_t available = 0;
  std::ifstream meminfo("/proc/meminfo");
  for (std::string line; std::getline(meminfo, line);) {
    if (line.starts_with("MemAvailable:")) {
      available = std::stoull("0" + line.substr(line.find_first_of("0123456789"))) * 1024;
    }
  }
  if (available == 0) {  // no such line: an old kernel, or no /proc
    available = static_cast<uint64_t>(std::max(sysconf(_SC_AVPHYS_PAGES), 0L)) *
                static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  }
  return std::min(available, cgroup_memory_left().value_or(UINT64_MAX));
}

}  // namespace banyan
