// SPDX-License-Identifier: Apache-2.0
#pragma once
// Kernels of the products of 4- and 8-bit weights with rows of activations, in 8-bit arithmetic.
// Rows are taken in groups of four. A block of 32 activations is rounded to 16 bits, two numbers of
// 8, of which the upper one alone is its rounding to 8 bits: which of both a product takes is said
// for each block of a group. Outliers sit in few channels, and rounding errors of the other blocks
// hardly show.

#include <cstddef>
#include <cstdint>

#include "base/isa.h"
#include "tensor/dtype.h"

namespace banyan {

constexpr int kInt8GroupRows = 4;
constexpr int kInt8MostDirectRows = 12;  // of multiply_directly()

// Weights of a tile of outputs, expanded: for each block of 32 inputs and each tile output a scale
// and an offset, weight = scale * q + offset, and the q as bytes 0 .. 255.
//   quants   [block][8][output][4]: inputs 4 i .. 4 i + 3 of a block lie together
//   scales   [block][output] f32
//   offsets  [block][output] f32
struct Int8Tile {
  uint8_t* quants;
  float* scales;
  float* offsets;
};

// A group of rounded rows is a record for each block: what is in it only these kernels know.
constexpr int64_t kInt8RecordBytes = 320;

struct Int8Kernels {
  // Outputs of a tile; 0 where there is no such code, and the rest is null.
  int tile_outputs = 0;
  bool takes_bytes = false;  // weights of 8 bits too, not only of 4

  // Expands blocks [begin, end) of n_outputs rows of weights that are row_bytes apart into a tile
  // of (end - begin) blocks. Outputs from n_outputs on are zero.
  void (*expand)(DType type, const std::byte* weights, int64_t row_bytes, int n_outputs,
                 int64_t begin, int64_t end, const Int8Tile& tile);

  // Rounds a block of n_rows <= 4 rows of 32 activations, x_stride floats apart, to 8 and to 16
  // bits. Returns by how much the former would be off, as the expected square of an error but for
  // a factor.
  float (*round_block)(const float* x, int64_t x_stride, int n_rows, std::byte* record);

  // out[r][n] (+)= the products of n_blocks blocks, for a group of n_rows rows and n_outputs
  // outputs of a tile. is_wide says of each block whether it is taken with 16 bits.
  void (*multiply)(const Int8Tile& tile, const std::byte* records, const uint8_t* is_wide,
                   int64_t n_blocks, int n_rows, int n_outputs, bool accumulate, float* out,
                   int64_t out_stride);

  // The same for direct_outputs outputs, their weights as they lie in a file, row_bytes apart, each
  // block from `begin` on taken with 16 bits: for rows too few to pay for expanded weights, at most
  // kInt8MostDirectRows, in groups whose records are group_stride records apart. The bits are those
  // of multiply(). Fetches as many weights ahead.
  int direct_outputs = 0;
  void (*multiply_directly)(DType type, const std::byte* weights, int64_t row_bytes, int n_outputs,
                            int64_t begin, const std::byte* records, int64_t group_stride,
                            int64_t n_blocks, int n_rows, bool accumulate, float* out,
                            int64_t out_stride);
};

// Whether weights of this type can be expanded, if `bytes` says that the kernels take 8 bits.
bool int8_expands(DType type, bool bytes);

const Int8Kernels& int8_kernels(Isa isa);

}  // namespace banyan
