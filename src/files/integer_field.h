// SPDX-License-Identifier: Apache-2.0
#pragma once
// Integers of recorded files, read as claims.

#include <fmt/format.h>

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/json.h"
#include "base/printable.h"
#include "base/result.h"

namespace banyan {

// Nothing for what is no integer, or none that fits.
inline std::optional<int64_t> integer(const nlohmann::json& value) {
  if (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX) return std::nullopt;
  return value.is_number_integer() ? std::optional(value.get<int64_t>()) : std::nullopt;
}

// `value`, which stands in the file as `given`. kBadInput: "FIELD is GIVEN, expected ..".
inline Result<int64_t> in_range(std::string_view field, std::string_view given,
                                std::optional<int64_t> value, int64_t least, int64_t most) {
  if (value && *value >= least && *value <= most) return *value;
  return bad_input(fmt::format("{} is {}, expected an integer from {} to {}", field,
                               printable(given, 40), least, most));
}

inline Result<int64_t> in_range(std::string_view field, const nlohmann::json& value, int64_t least,
                                int64_t most) {
  // Not before it is wrong: a long array would be written out for each of its entries.
  const auto number = integer(value);
  if (number && *number >= least && *number <= most) return *number;
  const bool is_short = !value.is_structured();
  return in_range(field, is_short ? value.dump() : value.type_name(), number, least, most);
}

}  // namespace banyan
