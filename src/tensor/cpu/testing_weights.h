// SPDX-License-Identifier: Apache-2.0
#pragma once
// For tests: random weights of any type, and what they are as plain numbers.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/isa.h"
#include "ggml.h"
#include "tensor/matrix.h"

namespace banyan::testing {

// Numbers of a normal distribution with deviation `scale`.
inline std::vector<float> random_floats(int64_t n, uint32_t seed, float scale = 1.0F) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> distribution(0.0F, scale);
  std::vector<float> values(n);
  for (float& value : values) value = distribution(generator);
  return values;
}

// Owned weights of one type.
struct TestWeight {
  AlignedArray<std::byte> bytes;
  Weight view;

  // Row `row` as f32, by ggml's reference conversion.
  std::vector<float> row(int64_t row) const {
    std::vector<float> values(view.cols);
    if (view.type == DType::kF32) {
      std::memcpy(values.data(), view.row(row), values.size() * sizeof(float));
    } else {
      ggml_get_type_traits(static_cast<ggml_type>(view.type))
          ->to_float(view.row(row), values.data(), view.cols);
    }
    return values;
  }
};

// Types whose quantisation first builds tables, for seconds: IQ2_*, IQ3_* and IQ1_*.
inline bool is_slow_to_quantize(DType type) {
  const std::string_view name = type_info(type)->name;
  return name.starts_with("IQ1") || name.starts_with("IQ2") || name.starts_with("IQ3");
}

// Blocks of random bits, any of which are weights of those types, with an f16 scale of 2^-7. It is
// the first thing in a block, and in the top 4 bits of the last 4 numbers of one of IQ1_M.
inline void random_blocks(DType type, std::span<std::byte> bytes, uint32_t seed) {
  std::mt19937 generator(seed);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(generator());
  const DTypeInfo& info = *type_info(type);
  for (size_t begin = 0; begin < bytes.size(); begin += info.block_bytes) {
    const std::span<std::byte> block = bytes.subspan(begin, info.block_bytes);
    if (info.name == "IQ1_M") {
      const auto scales = block.last(8);
      for (const int i : {1, 3, 5, 7}) scales[i] &= std::byte{0x0F};
      scales[7] |= std::byte{0x20};
    } else {
      block[0] = std::byte{0x00};
      block[1] = std::byte{0x20};
    }
  }
}

inline TestWeight random_weight(DType type, int64_t rows, int64_t cols, uint32_t seed) {
  const DTypeInfo& info = *type_info(type);
  const int64_t row_bytes = cols / info.block_elements * info.block_bytes;
  TestWeight weight{AlignedArray<std::byte>(row_bytes * rows), {}};
  weight.view = {weight.bytes.data(), type, rows, cols, row_bytes};
  if (is_slow_to_quantize(type)) {
    random_blocks(type, weight.bytes.span(), seed);
    return weight;
  }
  const std::vector<float> values = random_floats(rows * cols, seed, 0.2F);
  ggml_quantize_chunk(static_cast<ggml_type>(type), values.data(), weight.bytes.data(), 0, rows,
                      cols, nullptr);
  return weight;
}

// All types that weights can have, ternary ones and the like included.
inline std::vector<DType> quantized_weight_types() {
  std::vector<DType> types;
  for (int32_t number = 0; number < GGML_TYPE_COUNT; ++number) {
    const ggml_type_traits& traits = *ggml_get_type_traits(static_cast<ggml_type>(number));
    if (traits.is_quantized && traits.to_float != nullptr) types.push_back(DType{number});
  }
  return types;
}

inline std::string name_of(DType type) { return std::string(type_info(type)->name); }

// Every instruction set that this machine has.
inline std::vector<Isa> runnable_isas() {
  std::vector<Isa> isas;
  for (const Isa isa : {Isa::kBaseline, Isa::kSse4, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (isa <= detect_isa()) isas.push_back(isa);
  }
  return isas;
}

}  // namespace banyan::testing
