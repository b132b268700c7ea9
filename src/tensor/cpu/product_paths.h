// SPDX-License-Identifier: Apache-2.0
#pragma once
// Which way products of weights and activations go, as data: a path for each class of weights and
// of row counts. Products::default_paths() gives what was measured on one machine, measure_paths()
// what is faster on this one.

#include <array>
#include <cstdint>
#include <string_view>

namespace banyan {

enum class ProductPath : uint8_t {
  kDots,  // DotProducts
  kGemm,  // SlicedGemm
  kInt8,  // Int8Gemm
};
inline constexpr int kProductPaths = 3;

enum class WeightClass : uint8_t {
  kNibbles,    // Q4_0 and Q4_1, for which we have kernels
  kBytes,      // Q8_0, the same
  kQuantized,  // other quantised types, which ggml's kernels multiply
  kFloats,     // f32 and f16
  kBF16,
};
inline constexpr int kWeightClasses = 5;

// The first row count of each class of them; the next class begins where one ends.
inline constexpr std::array<int64_t, 10> kRowClassBegin = {1, 2, 4, 6, 12, 24, 32, 64, 96, 256};
inline constexpr int kRowClasses = kRowClassBegin.size();

// Class of `rows` >= 1.
constexpr int row_class(int64_t rows) {
  int i = kRowClasses - 1;
  while (rows < kRowClassBegin[i]) --i;
  return i;
}

struct ProductPaths {
  std::array<std::array<ProductPath, kRowClasses>, kWeightClasses> path = {};  // all kDots

  ProductPath& at(WeightClass weights, int rows) { return path[static_cast<int>(weights)][rows]; }
  ProductPath at(WeightClass weights, int rows) const {
    return path[static_cast<int>(weights)][rows];
  }
  bool operator==(const ProductPaths&) const = default;
};

// Of every path that was measured, in GFLOP/s (a product and a sum are two); 0 where none was.
using PathRates =
    std::array<std::array<std::array<double, kProductPaths>, kRowClasses>, kWeightClasses>;

struct MeasuredPaths {
  ProductPaths paths;
  PathRates gflops = {};
};

constexpr std::string_view name(ProductPath path) {
  constexpr std::string_view kNames[] = {"dots", "gemm", "int8"};
  return kNames[static_cast<int>(path)];
}
constexpr std::string_view name(WeightClass weights) {
  constexpr std::string_view kNames[] = {"Q4_0 Q4_1", "Q8_0", "quantised", "F32 F16", "BF16"};
  return kNames[static_cast<int>(weights)];
}

}  // namespace banyan
