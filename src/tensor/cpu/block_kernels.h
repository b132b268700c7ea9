// SPDX-License-Identifier: Apache-2.0
#pragma once
// Dot products of the three plain formats in blocks of 32 (Q4_0, Q4_1, Q8_0) with activations
// rounded to 16 bits, as two numbers of 8. Several blocks fill a vector and share the work on
// scales, several rows of activations share one reading of the weights, and both 8-bit parts one
// unpacking of them: that is why the second costs next to nothing, and it takes the rounding error
// of the default model's logits from 0.15 (8 bits, as ggml) to 0.001.

#include <cstddef>
#include <cstdint>

#include "base/isa.h"
#include "tensor/dtype.h"

namespace banyan {

// sums[r] = dot product of one row of n weights (n a multiple of 32) with row r of the activations,
// for n_rows rows that lie x_stride bytes apart, written by round_row(). The arithmetic of a row
// does not depend on how many rows there are.
using BlockDots = void (*)(const std::byte* weights, const std::byte* x, int64_t x_stride,
                           int64_t n_rows, int64_t n, float* sums);

struct BlockKernels {
  BlockDots dots_q4_0 = nullptr;  // all null where there is no such code
  BlockDots dots_q4_1 = nullptr;
  BlockDots dots_q8_0 = nullptr;

  // Rounds a row of n activations, each block of 32 to multiples of its largest magnitude / 32384.
  // The layout is that of the instruction set's vectors; only the dots of the same table read it.
  void (*round_row)(const float* x, void* out, int64_t n) = nullptr;

  // Null for other types.
  BlockDots dots(DType type) const;
};

// Bytes of a row of n activations that round_row() writes; a multiple of 64, and rows must lie at
// multiples of 64.
int64_t rounded_row_bytes(int64_t n);

const BlockKernels& block_kernels(Isa isa);

}  // namespace banyan
