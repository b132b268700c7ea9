// SPDX-License-Identifier: Apache-2.0
#pragma once
// The products of attention on pairs of bf16, for many packed rows, by VDPBF16PS (AVX512_BF16:
// twice the multiply-adds of f32 in an instruction) or by tiles (AMX). Q, K, P and V are rounded to
// bf16, sums are f32.
//
// A pair is two bf16 in 32 bits, the first in the low half. Q and K pair neighbouring dimensions,
// P and V neighbouring keys, so that one product of pairs adds two terms of a sum. Dimensions and
// keys that fill up the last pair are zero.

#include <cstddef>
#include <cstdint>

#include "attention/cpu/kernels.h"
#include "base/isa.h"
#include "tensor/kv_layout.h"

namespace banyan {

// 64 positions. Where a row sees one of 32 keys from an even panel on, V of all 32 is finite; other
// panels that no row sees hold anything.
struct Bf16Block {
  const uint32_t* k = nullptr;  // [4 panels][n_pairs][16]
  const uint32_t* v = nullptr;  // [32 pairs of keys][v_stride]
  size_t v_stride = 0;
};

// Memory that is wanted soon: kernels fetch a line now and then while they multiply, so that rows
// too few to hide it do not wait for the next block.
class LinesAhead {
 public:
  static constexpr size_t kLine = 64;

  void add(const void* begin, size_t bytes) {
    if (n_ < kMost) areas_[n_++] = {static_cast<const std::byte*>(begin), bytes};
  }
  // The next `lines` lines, or what is left of an area.
  void fetch(int lines) {
    if (area_ == n_) return;
    const auto [begin, bytes] = areas_[area_];
    for (int i = 0; i < lines && offset_ < bytes; ++i, offset_ += kLine) {
      __builtin_prefetch(begin + offset_, 0, 2);
    }
    if (offset_ < bytes) return;
    ++area_;
    offset_ = 0;
  }

 private:
  static constexpr int kMost = 2 * kChunkTokens / kPanelTokens;
  struct Area {
    const std::byte* begin;
    size_t bytes;
  };
  Area areas_[kMost];
  int n_ = 0;
  int area_ = 0;
  size_t offset_ = 0;
};

inline constexpr int kBf16TileRows = 6;  // packed rows of a register tile

// Packed rows from which tiles take no longer than VDPBF16PS, by published figures (not measured).
// For a row, 16 keys and 32 dimensions VDPBF16PS takes 8 cycles at best. A tile of up to 16 rows
// takes 16, and 44 with its loads and its share of C's loads and stores if none of them overlap.
inline constexpr int kFewestTileRows = 6;

struct Bf16Kernels {
  int pair_step;  // of which n_pairs is a multiple; pairs behind head_dim are zero
  int n_pairs(int head_dim) const {
    return ((head_dim + 1) / 2 + pair_step - 1) / pair_step * pair_step;
  }

  // q: [n][head_dim]; out: [n][n_pairs]; rest: the same of what rounding left, if not null.
  void (*pack_q)(const float* q, int n, int head_dim, int n_pairs, uint32_t* out, uint32_t* rest);
  // A panel of f16, bf16 or q8_0, as Bf16Block keeps it.
  void (*pack_k)(DType type, const void* panel, int head_dim, int n_pairs, uint32_t* out);
  // The same for V, `stride` (a multiple of 16, >= head_dim) columns; slots outside
  // [slot_begin, slot_end) and further columns become zero. False if a value is Inf or NaN: a
  // product with the zero weight of a row that does not see it would not be zero.
  bool (*pack_v)(DType type, const void* panel, int head_dim, int slot_begin, int slot_end,
                 size_t stride, uint32_t* out);

  // Before the first block that n rows are folded over, on the thread that folds, and after the
  // last. In between the thread uses no other kernels that configure tiles.
  void (*begin)(int n);

  // Folds the block into the states of n packed rows: q . k, softmax over visible[i], and the sum
  // of V. q: [n][n_pairs], and q_rest, which is null or adds as much precision to it; softcap as
  // AttendInputs; into.stride a multiple of 16 and >= head_dim. Row by row and block by block in
  // order, so that a row's state does not depend on its neighbours.
  void (*fold_block)(const Bf16Block& block, const uint32_t* q, const uint32_t* q_rest,
                     const KeyRange* visible, int n, int head_dim, float softcap,
                     const StateView& into, LinesAhead& ahead);

  void (*end)();
};

// By VDPBF16PS. Null where the compiler or the architecture has no such instructions. Whether the
// CPU has them is the caller's to know (has_avx512_bf16()).
const Bf16Kernels* bf16_kernels();

// By AMX tiles, likewise; the machine has AVX512_BF16 too (Isa::kAmx and has_avx512_bf16()).
const Bf16Kernels* tile_kernels();

// Those for a CPU with AVX512_BF16 or without, under the cap `isa`: tiles where there are such.
// Null: products stay in f32.
inline const Bf16Kernels* bf16_kernels_for(Isa isa, bool has_bf16) {
  if (isa < Isa::kAvx512 || !has_bf16) return nullptr;
  return isa >= Isa::kAmx ? tile_kernels() : bf16_kernels();
}

}  // namespace banyan
