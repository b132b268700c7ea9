// SPDX-License-Identifier: Apache-2.0
#pragma once
// One stored KV element as a number, by arithmetic on bits: the reference's own reading of f16 and
// bf16, which shares no code with the kernels.

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "tensor/dtype.h"

namespace banyan {

// IEEE 754 binary16.
inline double f16_to_double(uint16_t bits) {
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  const int exponent = (bits >> 10) & 0x1f;
  const int mantissa = bits & 0x3ff;
  if (exponent == 0x1f) {
    return mantissa != 0 ? std::numeric_limits<double>::quiet_NaN()
                         : sign * std::numeric_limits<double>::infinity();
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

// Element `index` of an array of `type`, which is f32, f16 or bf16.
inline double load_kv_element(DType type, const std::byte* array, size_t index) {
  if (type == DType::kF32) {
    float value;
    std::memcpy(&value, array + index * sizeof(float), sizeof(float));
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, array + index * sizeof(bits), sizeof(bits));
  if (type == DType::kF16) return f16_to_double(bits);
  return std::bit_cast<float>(uint32_t{bits} << 16);
}

}  // namespace banyan
