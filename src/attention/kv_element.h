// SPDX-License-Identifier: Apache-2.0
#pragma once
// One stored KV element as a number, by arithmetic on bits: the reference's own reading of f16,
// bf16 and q8_0, which shares no code with the kernels.

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "tensor/kv_layout.h"

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

// Dimension d of the K or V in `slot` of a panel, which is element `index` of it.
inline double load_kv(DType type, const std::byte* panel, int head_dim, int slot, int d,
                      size_t index) {
  if (type != DType::kQ8_0) return load_kv_element(type, panel, index);
  const size_t scale = size_t(d / kScaleDims) * kPanelTokens + slot;
  return load_kv_element(DType::kF16, panel + scales_offset(head_dim), scale) *
         static_cast<int8_t>(panel[index]);
}

inline double load_k(const KvShape& shape, const std::byte* panel, int slot, int d) {
  return load_kv(shape.k_type, panel, shape.head_dim, slot, d, size_t(d) * kPanelTokens + slot);
}

inline double load_v(const KvShape& shape, const std::byte* panel, int slot, int d) {
  return load_kv(shape.v_type, panel, shape.head_dim, slot, d, size_t(slot) * shape.head_dim + d);
}

}  // namespace banyan
