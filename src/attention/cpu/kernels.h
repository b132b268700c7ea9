// SPDX-License-Identifier: Apache-2.0
#pragma once
// The arithmetic of attention on packed rows (row x head) and blocks of 64 positions: written once
// (kernels-inl.h), compiled for each instruction set, chosen once. Within one instruction set the
// result of a packed row depends on its own q, keys and range only: products are sequential fused
// multiply-adds over head_dim (scores) and over keys (values), sums run over the 64 lanes of a
// block in a fixed order.

#include <cstddef>
#include <cstdint>

#include "base/isa.h"
#include "tensor/kv_layout.h"

namespace banyan {

inline constexpr int kBlockTokens = kChunkTokens;
inline constexpr int kBlockPanels = kBlockTokens / kPanelTokens;

// Keys [begin, end) of a block that a packed row sees.
struct KeyRange {
  int32_t begin = 0;
  int32_t end = 0;
};

// One block as kernels read it. Panels outside [panel_begin, panel_end) hold nothing.
struct KvBlock {
  const void* k[kBlockPanels] = {};  // [head_dim][16] of k_type; of q8_0 the 8-bit numbers
  const void* v[kBlockPanels] = {};  // [16][v_stride] of v_type
  // By which k and v are multiplied, f16 [scale_blocks(head_dim)][16]; all null: by one.
  const uint16_t* k_scales[kBlockPanels] = {};
  const uint16_t* v_scales[kBlockPanels] = {};
  int panel_begin = 0;
  int panel_end = 0;
  DType k_type = DType::kF32;
  DType v_type = DType::kF32;
  size_t v_stride = 0;  // elements between rows of V

  // Panels of the next block in memory, of the same types and strides, or null. Kernels may fetch
  // them into the cache while they work on this one.
  const void* ahead_k[kBlockPanels] = {};
  const void* ahead_v[kBlockPanels] = {};
  bool fetches_ahead = false;  // some of ahead_k and ahead_v are given
};

// Unfinished softmax of packed rows: o [n][stride] not divided by l. m = -infinity: no key yet, and
// then l is 0 and o is not read.
struct StateView {
  float* o = nullptr;
  size_t stride = 0;
  float* m = nullptr;
  float* l = nullptr;
};

struct AttentionKernels {
  // Copies slots [slot_begin, slot_end) of a panel as f32, q8_0 without its scales.
  // out: [head_dim][16], other slots kept.
  void (*pack_k)(DType type, const void* panel, int head_dim, int slot_begin, int slot_end,
                 float* out);
  // The same for V. out: [16][stride], columns [head_dim, stride) become zero.
  void (*pack_v)(DType type, const void* panel, int head_dim, int slot_begin, int slot_end,
                 size_t stride, float* out);

  // scores[i][16 * panel_begin .. 16 * panel_end) = q[i] . k; q: [n][head_dim], scores: [n][64].
  void (*scores)(const KvBlock& block, const float* q, int n, int head_dim, float* scores);

  // In place: scores [n][64] become exp(score - m), zero outside visible[i]; m and l: [n], the
  // block's maximum and sum. Scores outside visible[i] may be anything. softcap as AttendInputs.
  void (*softmax)(float* scores, const KeyRange* visible, int n, float softcap, float* m, float* l);

  // Folds the block into `into`: o = sum over visible[i] of p[i][key] * v[key]. V outside
  // visible[i] does not touch row i. `dim` columns, a multiple of 16 and <= block.v_stride.
  // `scratch` holds kTileRows * dim floats.
  void (*fold_block)(const KvBlock& block, const float* p, const KeyRange* visible, int n, int dim,
                     const float* m, const float* l, const StateView& into, float* scratch);

  // out[i] = factor * x[i]
  void (*scale)(const float* x, float factor, int n, float* out);

  // Folds n states into others; into an empty one, this is a copy.
  void (*fold)(const StateView& from, int n, int dim, const StateView& into);
};

inline constexpr int kTileRows = 6;  // packed rows of a register tile

// Kernels for `isa` or the best below it that this build has.
const AttentionKernels& attention_kernels(Isa isa);

}  // namespace banyan
