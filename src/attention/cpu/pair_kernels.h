// SPDX-License-Identifier: Apache-2.0
#pragma once
// The products of attention on pairs of 16-bit numbers, for many packed rows: one instruction adds
// two products to each sum. As whole numbers by VPDPWSSD (AVX512_VNNI: twice the multiply-adds of
// f32 in an instruction), or in bf16 by tiles (AMX). Scores, weights and outputs are f32.
//
// A pair is two numbers in 32 bits, the first in the low half. Q and K pair neighbouring
// dimensions, P and V two keys (which, is the kernels' own), so that one product of pairs adds two
// terms of a sum. Dimensions and keys that fill up the last pair are zero.

#include <cstddef>
#include <cstdint>

#include "attention/cpu/kernels.h"
#include "base/isa.h"
#include "tensor/kv_layout.h"

namespace banyan {

// A block of 64 positions as it is stored, piece by piece.
struct StoredBlock {
  // Keys [begin, end) of the block: slots begin % 16 .. of one panel.
  struct Piece {
    const void* k = nullptr;  // [head_dim][16], and scales behind it where k_type has them
    const void* v = nullptr;  // [16][head_dim]
    int begin = 0;
    int end = 0;
  };
  Piece pieces[kBlockTokens] = {};  // ascending, without gaps
  int n_pieces = 0;
  DType k_type = DType::kF16;  // f16, bf16 or q8_0
  DType v_type = DType::kF16;
  int head_dim = 0;
};

// The same in pairs. Keys that no row sees hold anything.
struct PairBlock {
  uint32_t* k = nullptr;      // [4 panels][n_pairs][16]
  uint32_t* v = nullptr;      // [32 pairs of keys][v_stride]
  size_t v_stride = 0;        // a multiple of 16, >= head_dim
  float* k_scales = nullptr;  // [64], by which products with these keys are multiplied
  float* v_scales = nullptr;  // [v_stride], the same of columns
};

// Packed rows in pairs.
struct PairRows {
  uint32_t* q = nullptr;      // [n][n_pairs]
  uint32_t* rest = nullptr;   // what rounding left of it; null: that is left out
  float* q_scales = nullptr;  // [n], by which products with them are multiplied
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

struct PairKernels {
  bool is_bf16;     // keeps 8 bits: rows that see few keys need more
  int fewest_rows;  // packed rows from which they are faster than products in f32

  int pair_step;  // of which n_pairs is a multiple; pairs behind head_dim are zero
  int n_pairs(int head_dim) const {
    return ((head_dim + 1) / 2 + pair_step - 1) / pair_step * pair_step;
  }

  // q: [n][head_dim], scaled. False if there are rows that cannot be taken so: not finite ones, or
  // of numbers so large that scores might not be.
  bool (*pack_q)(const float* q, int n, int head_dim, int n_pairs, const PairRows& out);

  // False if there are keys or values that cannot be taken so (a product with the zero weight of a
  // row that does not see an infinite value would not be zero).
  bool (*pack_block)(const StoredBlock& block, int n_pairs, const PairBlock& out);

  // Before the first block that n rows are folded over, on the thread that folds, and after the
  // last. In between the thread uses no other kernels that configure tiles.
  void (*begin)(int n);

  // Folds the block into the states of n packed rows: q . k, softmax over visible[i], and the sum
  // of V. softcap as AttendInputs; into.stride a multiple of 16 and >= head_dim. Row by row and
  // block by block in order, so that a row's state does not depend on its neighbours.
  void (*fold_block)(const PairBlock& block, const PairRows& rows, const KeyRange* visible, int n,
                     int head_dim, float softcap, const StateView& into, LinesAhead& ahead);

  void (*end)();
};

// Rows share the registers of a product evenly: a pass is best a multiple of this.
inline constexpr int kPairTileRows = 6;

// By VPDPWSSD. K and V become whole numbers of 13 and 12 bits beside their sign, in steps of the
// largest of their key or column; q of up to 15. Null where the compiler or the architecture has no
// such instructions. Whether the CPU has them is the caller's to know (has_avx512_vnni()).
const PairKernels* integer_kernels();

// By AMX tiles, in bf16, likewise; the machine has AVX512_BF16 too (Isa::kAmx and
// has_avx512_bf16()).
const PairKernels* tile_kernels();

// Those for a CPU, under the cap `isa`: tiles where there are such. Null: products stay in f32.
inline const PairKernels* pair_kernels_for(Isa isa, bool has_vnni, bool has_bf16) {
  if (isa >= Isa::kAmx && has_bf16) return tile_kernels();
  return isa >= Isa::kAvx512 && has_vnni ? integer_kernels() : nullptr;
}

}  // namespace banyan
