// SPDX-License-Identifier: Apache-2.0
#pragma once
// Blocks folded by tile instructions, which `Tiles` stands for (HardwareTiles; tests have others).
// A tile has 16 rows of 64 bytes: 16 pairs of bf16 or 16 f32. Of products A x B = C, A holds rows
// of q or of weights, B pairs of dimensions (for 16 keys) or of keys (for 16 columns of V).

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "attention/cpu/bf16_pack.h"
#include "attention/cpu/stored_block-inl.h"

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
namespace banyan::pairs {

inline constexpr int kTileSide = 16;  // rows of a tile, and 32-bit elements of its rows
inline constexpr int kBlockPairs = kChunkTokens / 2;  // of neighbouring keys

// Packed rows from which tiles take no longer than VDPBF16PS would, by published figures (not
// measured). For a row, 16 keys and 32 dimensions VDPBF16PS takes 8 cycles at best. A tile of up to
// 16 rows takes 16, and 44 with its loads and its share of C's loads and stores if none of them
// overlap. As rows share tiles evenly, from 13 on there are 9 or more in each.
inline constexpr int kFewestTileRows = 13;

// Lines fetched ahead with each tile or two of rows.
inline constexpr int kLinesPerFold = 64;

// Two tiles of rows by two of columns use all eight: each that is loaded serves two products.
inline constexpr int kC = 0;  // and 1 beside it, 2 and 3 below
inline constexpr int kA = 4;
inline constexpr int kB = 6;
inline constexpr int kTiles = 8;

// The rows of a tile of A and C where n rows share as few tiles as hold them. The last tile may
// hold some rows of the one before again.
constexpr int tile_rows(int n) {
  const int n_tiles = (n + kTileSide - 1) / kTileSide;
  return (n + n_tiles - 1) / n_tiles;
}

// Tiles of 32-bit elements in memory.
template <class T>
struct TileOperand {
  T* data;
  size_t stride;  // between rows
  size_t next;    // from a tile to the one below it (A, C) or beside it (B)
};

// Calls f(number, row, column) for the tiles of C.
template <int R, int C, class F>
HWY_INLINE void for_each_sum(F f) {
  f(std::integral_constant<int, kC>(), 0, 0);
  if constexpr (C == 2) f(std::integral_constant<int, kC + 1>(), 0, 1);
  if constexpr (R == 2) f(std::integral_constant<int, kC + 2>(), 1, 0);
  if constexpr (R == 2 && C == 2) f(std::integral_constant<int, kC + 3>(), 1, 1);
}

// C += A x B over n_steps tiles' worth of pairs.
template <class Tiles, int R, int C>
HWY_INLINE void add_products(TileOperand<const uint32_t> a, TileOperand<const uint32_t> b,
                             int n_steps) {
  for (int step = 0; step < n_steps; ++step) {
    const uint32_t* rows = a.data + step * kTileSide;
    const uint32_t* columns = b.data + step * kTileSide * b.stride;
    Tiles::template load<kA>(rows, a.stride);
    Tiles::template load<kB>(columns, b.stride);
    if constexpr (R == 2) Tiles::template load<kA + 1>(rows + a.next, a.stride);
    if constexpr (C == 2) Tiles::template load<kB + 1>(columns + b.next, b.stride);
    for_each_sum<R, C>([](auto number, int, int) {
      constexpr int kSum = decltype(number)::value;
      Tiles::template add_product<kSum, kA + (kSum - kC) / 2, kB + (kSum - kC) % 2>();
    });
  }
}

template <class Tiles, int R, int C>
HWY_INLINE void store_sums(TileOperand<float> to) {
  for_each_sum<R, C>([&](auto number, int row, int column) {
    Tiles::template store<decltype(number)::value>(to.data + row * to.next + column * kTileSide,
                                                   to.stride);
  });
}

// Coefficients of 2^x for x in [0, 1], lowest first: off by 7e-5, a twentieth of what bf16 rounds.
inline constexpr float kRoughExp2[] = {0.999925219F, 0.695833537F, 0.226067159F, 0.0780245233F};

// Of the scores of a block, 64, to weights exp(score - m) as pairs, zero outside `visible`. m and l
// follow, and o is scaled down where m grows. l adds up the rounded weights, by which their errors
// cancel.
HWY_INLINE void weigh(const float* scores, KeyRange visible, int columns, RowState row,
                      uint32_t* pairs) {
  constexpr int kVectors = kChunkTokens / kVectorFloats;
  __m512 x[kVectors];
  load_scores(scores, visible, x);
  const __m512 largest = largest_of(x);
  // The largest score hardly ever grows after some blocks: asked first, as it is cheaper.
  if (_mm512_cmp_ps_mask(largest, _mm512_set1_ps(row.m), _CMP_GT_OQ) != 0) {
    raise_maximum(row, columns, _mm512_reduce_max_ps(largest));
  }
  const __m512 offset = _mm512_set1_ps(row.m == kMinusInfinity ? 0 : row.m * -kLog2E);
  const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80);
  __m512 sum = _mm512_setzero_ps();
  HWY_UNROLL(2)
  for (int i = 0; i < kVectors; i += 2) {
    const auto exp_of = [&](__m512 score) {
      return exp2(kRoughExp2, _mm512_fmadd_ps(score, _mm512_set1_ps(kLog2E), offset));
    };
    const __m512bh rounded = _mm512_cvtne2ps_pbh(exp_of(x[i + 1]), exp_of(x[i]));
    _mm512_store_si512(pairs + i * kVectorFloats / 2, (__m512i)rounded);
    sum = _mm512_dpbf16_ps(sum, rounded, ones);
  }
  row.l += _mm512_reduce_add_ps(sum);
}

// Of the scores of n rows, [n][64], to weights as pairs, [n][32].
HWY_INLINE void weigh_rows(float* scores, const KeyRange* visible, int n, float softcap,
                           int columns, const StateView& into, uint32_t* weights) {
  for (int r = 0; r < n; ++r) {
    float* own = scores + r * kChunkTokens;
    uint32_t* pairs = weights + r * kBlockPairs;
    if (visible[r].begin >= visible[r].end) {
      std::fill_n(pairs, kBlockPairs, 0);
      continue;
    }
    if (softcap > 0) cap_scores(own, softcap);
    weigh(own, visible[r], columns, {into.o + r * into.stride, into.m[r], into.l[r]}, pairs);
  }
}

// Adds the values of C tiles of columns to the outputs of R tiles of rows.
template <class Tiles, int R, int C>
HWY_INLINE void add_values(TileOperand<const uint32_t> weights, TileOperand<const uint32_t> v,
                           int n_steps, TileOperand<float> o) {
  for_each_sum<R, C>([&](auto number, int row, int column) {
    Tiles::template load<decltype(number)::value>(o.data + row * o.next + column * kTileSide,
                                                  o.stride);
  });
  add_products<Tiles, R, C>(weights, v, n_steps);
  store_sums<Tiles, R, C>(o);
}

// Folds n rows, of one or two tiles of `rows` rows each, of which the first n_done are folded.
template <class Tiles, int R>
void fold_rows(const PairBlock& block, const uint32_t* q, const uint32_t* q_rest,
               const KeyRange* visible, int n, int n_done, int rows, int head_dim, float softcap,
               const StateView& into) {
  const int n_steps = (head_dim + 2 * kTileSide - 1) / (2 * kTileSide);
  const size_t q_stride = n_steps * kTileSide;
  const size_t k_size = q_stride * kPanelTokens;
  const int columns = padded_columns(head_dim);
  const size_t second = n - rows;  // where the second tile begins
  const KeyRange seen = seen_by_any(visible + n_done, n - n_done);
  if (seen.begin >= seen.end) return;
  // In tiles of pairs of keys.
  const int step_begin = seen.begin / (2 * kTileSide);
  const int n_key_steps = (seen.end - 1) / (2 * kTileSide) + 1 - step_begin;

  alignas(64) float scores[R * kTileSide * kChunkTokens];
  alignas(64) uint32_t weights[R * kTileSide * kBlockPairs];
  for (int panel = 2 * step_begin; panel < 2 * (step_begin + n_key_steps); panel += 2) {
    for_each_sum<R, 2>(
        [](auto number, int, int) { Tiles::template zero<decltype(number)::value>(); });
    const TileOperand<const uint32_t> k{block.k + panel * k_size, kPanelTokens, k_size};
    add_products<Tiles, R, 2>({q, q_stride, second * q_stride}, k, n_steps);
    if (q_rest != nullptr) {
      add_products<Tiles, R, 2>({q_rest, q_stride, second * q_stride}, k, n_steps);
    }
    store_sums<Tiles, R, 2>({scores + panel * kPanelTokens, kChunkTokens, second * kChunkTokens});
  }

  // A weight of zero leaves the outputs of rows that are done as they are.
  std::fill_n(weights, n_done * kBlockPairs, 0);
  weigh_rows(scores + n_done * kChunkTokens, visible + n_done, n - n_done, softcap, columns,
             {into.o + n_done * into.stride, into.stride, into.m + n_done, into.l + n_done},
             weights + n_done * kBlockPairs);

  // Both tiles are loaded before one is stored, so rows that are in both are added to once.
  const TileOperand<const uint32_t> p{weights + step_begin * kTileSide, kBlockPairs,
                                      second * kBlockPairs};
  const uint32_t* v = block.v + step_begin * kTileSide * block.v_stride;
  int column = 0;
  for (; column + 2 * kTileSide <= columns; column += 2 * kTileSide) {
    add_values<Tiles, R, 2>(p, {v + column, block.v_stride, kTileSide}, n_key_steps,
                            {into.o + column, into.stride, second * into.stride});
  }
  if (column < columns) {
    add_values<Tiles, R, 1>(p, {v + column, block.v_stride, 0}, n_key_steps,
                            {into.o + column, into.stride, second * into.stride});
  }
}

template <class Tiles>
void fold_block(const PairBlock& block, const PairRows& packed, const KeyRange* visible, int n,
                int head_dim, float softcap, const StateView& into, LinesAhead& ahead) {
  const int rows = tile_rows(n);
  const size_t q_stride = (head_dim + 2 * kTileSide - 1) / (2 * kTileSide) * kTileSide;
  const auto fold = [&](auto fold_some, int first, int n_some, int n_done) {
    ahead.fetch(kLinesPerFold);
    fold_some(block, packed.q + first * q_stride,
              packed.rest == nullptr ? nullptr : packed.rest + first * q_stride, visible + first,
              n_some, n_done, rows, head_dim, softcap,
              StateView{into.o + first * into.stride, into.stride, into.m + first, into.l + first});
  };
  int row = 0;
  for (; n - row > rows; row += 2 * rows) {
    fold(fold_rows<Tiles, 2>, row, std::min(2 * rows, n - row), 0);
  }
  if (row < n) fold(fold_rows<Tiles, 1>, n - rows, rows, row - (n - rows));
}

template <class Tiles>
PairKernels tile_kernels_by() {
  return {.is_bf16 = true,
          .fewest_rows = kFewestTileRows,
          .pair_step = kTileSide,
          .pack_q = pack_q_bf16,
          .pack_block = pack_block_bf16,
          .begin = [](int n) { Tiles::configure(tile_rows(n)); },
          .fold_block = fold_block<Tiles>,
          .end = Tiles::release};
}

}  // namespace banyan::pairs
HWY_POP_ATTRIBUTES
