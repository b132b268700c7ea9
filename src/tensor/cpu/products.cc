// SPDX-License-Identifier: Apache-2.0
#include "tensor/cpu/products.h"

#include <algorithm>

namespace banyan {
namespace {

// Rows from which on Int8Gemm is faster than DotProducts for the types that both take (with AVX2:
// no slower), measured on two cores of a Zen 4 with the default model.
constexpr int64_t kInt8Border = 2;

// Rows from which on it keeps 16 bits for outliers only. It is faster at once, but short prompts,
// in which a logit may be 0.2 off by it, are left their 16 bits. No timing shifts this.
constexpr int64_t kOutliersBorder = 64;

// The same where the rows are of as many sequences: 32 took three quarters of the time.
constexpr int64_t kOutliersBorderBatch = 24;

// SlicedGemm expands the weights, which is worth four rows of dot products at least.
constexpr int64_t kFewestGemmRows = 4;

// Rows from which on SlicedGemm is faster than DotProducts, measured there (768x768 and 512x1536
// for types that the default model has not). It depends on how fast the dot products of the type
// are, and on the factors of the multiplication: bf16, or f32 with AVX2 or AVX-512.
struct GemmBorders {
  int64_t nibbles;    // below kInt8Border: our kernels, 80 GFLOP/s a core
  int64_t bytes;      // the same
  int64_t quantized;  // 60 to 70 GFLOP/s
  int64_t floats;     // and bf16: 75 to 85 GFLOP/s
};
constexpr GemmBorders kBordersBf16 = {32, 24, 12, 6};
constexpr GemmBorders kBordersF32 = {96, 64, 12, 12};  // oneDNN: about 105 GFLOP/s
// Both expand the weights, and SlicedGemm into a tile that more rows share.
constexpr GemmBorders kBordersExpanded = {4, 4, 4, 12};

// With fewer rows expanded weights, which are wider, take longer to arrive from memory: 8 sequences
// of the default model were a quarter slower than with dot products, 16 a quarter faster.
constexpr int64_t kFewestPanelRows = 12;

int64_t border(const GemmBorders& borders, WeightClass weights) {
  switch (weights) {
    case WeightClass::kNibbles:
      return borders.nibbles;
    case WeightClass::kBytes:
      return borders.bytes;
    case WeightClass::kQuantized:
      return borders.quantized;
    default:
      return borders.floats;
  }
}

}  // namespace

Products::Products(ThreadPool& pool, Isa isa, Compute compute, bool deterministic,
                   uint64_t panel_bytes)
    : kernels_(isa),
      compute_(compute),
      deterministic_(deterministic),
      dots_(pool, kernels_, compute),
      gemm_(pool, kernels_, compute, isa, panel_bytes),
      int8_(pool, isa) {}

WeightClass Products::class_of(DType type) const {
  if (type == DType::kBF16) return WeightClass::kBF16;
  if (!is_quantized(type)) return WeightClass::kFloats;
  if (kernels_.blocks.dots(type) == nullptr) return WeightClass::kQuantized;
  return type == DType::kQ8_0 ? WeightClass::kBytes : WeightClass::kNibbles;
}

DType Products::type_of(WeightClass weights) {
  switch (weights) {
    case WeightClass::kNibbles:
      return DType::kQ4_1;
    case WeightClass::kBytes:
      return DType::kQ8_0;
    case WeightClass::kQuantized:
      return DType::kQ4_K;
    case WeightClass::kFloats:
      return DType::kF16;
    case WeightClass::kBF16:
      return DType::kBF16;
  }
  return DType::kF32;
}

ProductPath Products::default_path(WeightClass weights, int64_t rows) const {
  const DType type = type_of(weights);
  const bool auto_compute = compute_ == Compute::kAuto;
  if (auto_compute && (rows >= kInt8Border || deterministic_) && int8_.takes(type)) {
    return ProductPath::kInt8;
  }
  if (deterministic_) return ProductPath::kDots;
  const GemmBorders& borders = !auto_compute           ? kBordersExpanded
                               : gemm_.uses_bf16(type) ? kBordersBf16
                                                       : kBordersF32;
  return rows >= border(borders, weights) ? ProductPath::kGemm : ProductPath::kDots;
}

ProductPaths Products::default_paths() const {
  ProductPaths paths;
  for (int w = 0; w < kWeightClasses; ++w) {
    for (int r = 0; r < kRowClasses; ++r) {
      const WeightClass weights{static_cast<uint8_t>(w)};
      paths.at(weights, r) = default_path(weights, kRowClassBegin[r]);
    }
  }
  return paths;
}

Int8Gemm::Rounding Products::rounding(int64_t rows) const {
  const bool many =
      rows >= kOutliersBorder || std::min<int64_t>(rows, n_sequences_) >= kOutliersBorderBatch;
  return many && !deterministic_ ? Int8Gemm::Rounding::kWideOutliers : Int8Gemm::Rounding::kWide;
}

bool Products::may_take(ProductPath path, WeightClass weights, int row_class) const {
  switch (path) {
    case ProductPath::kDots:
      // ggml rounds activations to 8 bits, with which prompts lose too much.
      return weights != WeightClass::kQuantized || compute_ == Compute::kF32 ||
             default_path(weights, kRowClassBegin[row_class]) == ProductPath::kDots;
    case ProductPath::kGemm:
      return kRowClassBegin[row_class] >= kFewestGemmRows;
    case ProductPath::kInt8:
      return compute_ == Compute::kAuto && kRowClassBegin[row_class] >= kInt8Border &&
             int8_.takes(type_of(weights));
  }
  return false;
}

bool Products::may_take(const ProductPaths& paths) const {
  for (int w = 0; w < kWeightClasses; ++w) {
    for (int r = 0; r < kRowClasses; ++r) {
      const WeightClass weights{static_cast<uint8_t>(w)};
      if (!may_take(paths.at(weights, r), weights, r)) return false;
    }
  }
  return true;
}

ProductPath Products::path_of(const ProductPaths& paths, const Weight& weight, int64_t rows) const {
  const ProductPath path = paths.at(class_of(weight.type), row_class(rows));
  if (path != ProductPath::kDots || rows < kFewestPanelRows || !gemm_.keeps(weight)) return path;
  const bool bf16 = gemm_.uses_bf16(weight.type);
  return paths.at(bf16 ? WeightClass::kBF16 : WeightClass::kFloats, row_class(rows));
}

void Products::run(ProductPath path, ConstMatrix x, std::span<const LinearTarget> targets) {
  switch (path) {
    case ProductPath::kDots:
      return dots_.run(x, targets);
    case ProductPath::kGemm:
      return gemm_.run(x, targets);
    case ProductPath::kInt8:
      return int8_.run(x, targets, rounding(x.rows));
  }
}

uint64_t Products::scratch_bytes() const {
  return dots_.scratch_bytes() + gemm_.scratch_bytes() + int8_.scratch_bytes();
}

}  // namespace banyan
