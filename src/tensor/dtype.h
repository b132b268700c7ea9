// SPDX-License-Identifier: Apache-2.0
#pragma once
// Element types of weights and KV. The numbers are ggml's, because GGUF files store them.

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace banyan {

// A ggml tensor type. Named here are only those that code speaks of; any other valid number is a
// quantised weight type that type_info() knows.
enum class DType : int32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ8_0 = 8,
  kQ4_K = 12,
  kBF16 = 30,
};

struct DTypeInfo {
  std::string_view name;    // as people write it: "Q4_1", "F16"
  uint32_t block_elements;  // elements stored together along a row
  uint32_t block_bytes;     // bytes of such a block
  bool quantized;
};

// Nothing (nullptr) for numbers that are no current ggml tensor type.
const DTypeInfo* type_info(DType type);

// out[i] = in[i] for n elements of an unquantised type (f32, f16, bf16), at any address, one by
// one: for vectors of a model's size, not for its matrices. False for other types.
bool expand_unquantized(DType type, const std::byte* in, float* out, int64_t n);

// Bytes of one element of f32, f16 or bf16, or of q8_0 without its scales.
constexpr uint32_t element_bytes(DType type) {
  if (type == DType::kQ8_0) return 1;
  return type == DType::kF32 ? 4 : 2;
}

}  // namespace banyan
