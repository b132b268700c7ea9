// SPDX-License-Identifier: Apache-2.0
#include "tensor/cpu/weight_rows.h"

#include <cstring>

namespace banyan {

RowDots row_dots(const CpuKernels& kernels, DType type) {
  if (type == DType::kF16) return kernels.simd.dots_f16;
  if (type == DType::kBF16) return kernels.simd.dots_bf16;
  return kernels.simd.dots_f32;
}

RoundedDots rounded_dots(const CpuKernels& kernels, DType type, int64_t cols) {
  if (const BlockDots dots = kernels.blocks.dots(type)) {
    return {kernels.blocks.round_row, rounded_row_bytes(cols), dots, nullptr};
  }
  const GgmlTypeKernels& ggml = kernels.of(type);
  const DType operand{ggml.vec_dot_type};
  const DTypeInfo& info = *type_info(operand);
  return {kernels.of(operand).from_float, cols / info.block_elements * info.block_bytes, nullptr,
          ggml.vec_dot};
}

void expand_row(const CpuKernels& kernels, const Weight& weight, int64_t row, float* out) {
  const std::byte* in = weight.row(row);
  switch (weight.type) {
    case DType::kF32:
      std::memcpy(out, in, static_cast<size_t>(weight.cols) * sizeof(float));
      return;
    case DType::kF16:
      return kernels.simd.f16_to_f32(in, out, weight.cols);
    case DType::kBF16:
      return kernels.simd.bf16_to_f32(in, out, weight.cols);
    default:
      return kernels.of(weight.type).to_float(in, out, weight.cols);
  }
}

}  // namespace banyan
