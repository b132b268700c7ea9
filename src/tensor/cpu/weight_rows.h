// SPDX-License-Identifier: Apache-2.0
#pragma once
// Reading weights of any type, with the functions of one instruction set.

#include <cstdint>

#include "base/isa.h"
#include "tensor/cpu/block_kernels.h"
#include "tensor/cpu/ggml_kernels.h"
#include "tensor/cpu/kernels.h"
#include "tensor/matrix.h"

namespace banyan {

// The tables that belong to an instruction set.
struct CpuKernels {
  const Kernels& simd;
  const BlockKernels& blocks;
  const GgmlKernels& ggml;

  explicit CpuKernels(Isa isa)
      : simd(kernels(isa)), blocks(block_kernels(isa)), ggml(ggml_kernels(isa)) {}
  const GgmlTypeKernels& of(DType type) const { return ggml.types[static_cast<int32_t>(type)]; }
};

inline bool is_quantized(DType type) {
  return type != DType::kF32 && type != DType::kF16 && type != DType::kBF16;
}

// Dot products of rows of an unquantised type.
RowDots row_dots(const CpuKernels& kernels, DType type);

// How weights of a quantised type meet rounded activations: our own dot products (16 bits)
// where there are any for the type, else ggml's.
struct RoundedDots {
  void (*round_row)(const float* x, void* out, int64_t n);  // who has the same shares the rows
  int64_t row_bytes;                                        // of a rounded row
  BlockDots block_dots;                                     // or null:
  GgmlVecDot vec_dot;
};
RoundedDots rounded_dots(const CpuKernels& kernels, DType type, int64_t cols);

// out[0, weight.cols) = row `row` of the weights as f32, exactly.
void expand_row(const CpuKernels& kernels, const Weight& weight, int64_t row, float* out);

}  // namespace banyan
