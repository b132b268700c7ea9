// SPDX-License-Identifier: Apache-2.0
#pragma once
// The products of attention on pairs of bf16 (VDPBF16PS, AVX512_BF16), for many packed rows: twice
// the multiply-adds of f32 in an instruction. Q, K, P and V are rounded to bf16, sums are f32.
//
// A pair is two bf16 in 32 bits, the first in the low half. Q and K pair neighbouring dimensions,
// P and V neighbouring keys, so that one product of pairs adds two terms of a sum. Dimensions and
// keys that fill up the last pair are zero.

#include <cstddef>
#include <cstdint>

#include "tensor/kv_layout.h"

namespace banyan {

// 64 positions; panels outside [panel_begin, panel_end) hold nothing.
struct Bf16Block {
  const uint32_t* k[kChunkTokens / kPanelTokens] = {};  // [pairs of dimensions][16]
  const uint32_t* v[kChunkTokens / kPanelTokens] = {};  // [8 pairs of keys][v_stride]
  int panel_begin = 0;
  int panel_end = 0;
  size_t v_stride = 0;
};

inline constexpr int kBf16TileRows = 6;  // packed rows of a register tile

struct Bf16Kernels {
  // q: [n][head_dim]; out: [n][(head_dim + 1) / 2] pairs.
  void (*pack_q)(const float* q, int n, int head_dim, uint32_t* out);
  // A panel of f16 or bf16, as Bf16Block keeps it.
  void (*pack_k)(DType type, const void* panel, int head_dim, uint32_t* out);
  // The same for V, `stride` (a multiple of 16, >= head_dim) columns; slots outside
  // [slot_begin, slot_end) and further columns become zero. False if a value is Inf or NaN: a
  // product with the zero weight of a row that does not see it would not be zero.
  bool (*pack_v)(DType type, const void* panel, int head_dim, int slot_begin, int slot_end,
                 size_t stride, uint32_t* out);
  // p: [n][64] and l: [n], as AttentionKernels::softmax() leaves them; out: [n][32] pairs, zero
  // where a row sees nothing. l becomes the sum of the rounded p, by which their errors cancel.
  void (*pack_p)(const float* p, float* l, int n, uint32_t* out);

  // scores[i][16 * panel_begin .. 16 * panel_end) = q[i] . k; q: [n][n_pairs], scores: [n][64].
  void (*scores)(const Bf16Block& block, const uint32_t* q, int n, int n_pairs, float* scores);
  // o[i] = sum over keys in [key_begin, key_end) of p[i][key] * v[key], and at most the key beside
  // either end; n <= kBf16TileRows, columns a multiple of 16, o: [n][columns].
  void (*values)(const Bf16Block& block, const uint32_t* p, int n, int key_begin, int key_end,
                 int columns, float* o);
};

// Null where the compiler or the architecture has no such instructions. Whether the CPU has them is
// the caller's to know (has_avx512_bf16()).
const Bf16Kernels* bf16_kernels();

}  // namespace banyan
