// SPDX-License-Identifier: Apache-2.0
// Products as whole numbers (integer_pack.h says why no sum overflows): VPDPWSSD adds the products
// of two pairs of 16 bits to sums of 32, exactly. Weights are whole numbers relative to the row's
// largest one in the block, which stands with the column's scale in the factor that a block's sums
// are multiplied with.
#include <algorithm>
#include <cmath>

#include "attention/cpu/integer_pack.h"
#include "attention/cpu/pair_kernels.h"
#include "hwy/base.h"

#if HWY_ARCH_X86_64
#include "attention/cpu/stored_block-inl.h"

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
namespace banyan::pairs {
namespace {

constexpr int kVectors = kChunkTokens / kVectorFloats;
constexpr int kBlockPairs = kChunkTokens / 2;  // of keys: i and i + 16 of 32

// After so many steps of products, as many lines are fetched: six rows and a block of 128
// dimensions take 128 steps, and of the next block 512 lines are wanted.
constexpr int kStepsPerFetch = 8;

// 16 sums. Not __m512i, whose elements are of 64 bits: GCC 12 keeps arrays of that in memory.
using Sums = int32_t __attribute__((vector_size(64)));

// acc[r][c] += a[r][i] * b[c][i] for pairs i in [0, n): a broadcast, b 16 wide and b_step apart.
template <int R, int C>
HWY_INLINE void add_pairs(const uint32_t* a, size_t a_stride, const uint32_t* const (&b)[C],
                          size_t b_step, int n, Sums (&acc)[R][C], LinesAhead& ahead) {
  for (int begin = 0; begin < n; begin += kStepsPerFetch) {
    const int end = std::min(begin + kStepsPerFetch, n);
    for (int i = begin; i < end; ++i) {
      __m512i bv[C];
      HWY_UNROLL(4)
      for (int c = 0; c < C; ++c) bv[c] = _mm512_loadu_si512(b[c] + i * b_step);
      HWY_UNROLL(8)
      for (int r = 0; r < R; ++r) {
        const __m512i av = _mm512_set1_epi32(static_cast<int>(a[r * a_stride + i]));
        HWY_UNROLL(4)
        for (int c = 0; c < C; ++c) {
          acc[r][c] = (Sums)_mm512_dpwssd_epi32((__m512i)acc[r][c], av, bv[c]);
        }
      }
    }
    ahead.fetch(kStepsPerFetch);
  }
}

template <int R, int C>
HWY_INLINE void set_zero(Sums (&acc)[R][C]) {
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(4)
    for (int c = 0; c < C; ++c) acc[r][c] = Sums{};
  }
}

// scores[r][16 * panel ..] of C panels.
template <int R, int C>
HWY_INLINE void score_tile(const PairBlock& block, int panel, const uint32_t* q,
                           const float* q_scales, int n_pairs, float* scores, LinesAhead& ahead) {
  Sums acc[R][C];
  const uint32_t* k[C];
  for (int c = 0; c < C; ++c) k[c] = block.k + size_t(panel + c) * n_pairs * kPanelTokens;
  set_zero(acc);
  add_pairs<R, C>(q, n_pairs, k, kPanelTokens, n_pairs, acc, ahead);
  HWY_UNROLL(4)
  for (int c = 0; c < C; ++c) {
    const int at = (panel + c) * kPanelTokens;
    const __m512 k_scale = _mm512_loadu_ps(block.k_scales + at);
    HWY_UNROLL(8)
    for (int r = 0; r < R; ++r) {
      const __m512 scale = _mm512_mul_ps(k_scale, _mm512_set1_ps(q_scales[r]));
      _mm512_store_ps(scores + r * kChunkTokens + at,
                      _mm512_mul_ps(_mm512_cvtepi32_ps((__m512i)acc[r][c]), scale));
    }
  }
}

// Adds the values of C vectors of columns to R outputs, times the row's factor.
template <int R, int C>
HWY_INLINE void value_tile(const PairBlock& block, const uint32_t* p, const float* factors,
                           int pair_begin, int pair_end, int column, float* o, size_t o_stride,
                           LinesAhead& ahead) {
  Sums acc[R][C];
  set_zero(acc);
  const uint32_t* v[C];
  for (int c = 0; c < C; ++c) {
    v[c] = block.v + pair_begin * block.v_stride + column + c * kVectorFloats;
  }
  add_pairs<R, C>(p + pair_begin, kBlockPairs, v, block.v_stride, pair_end - pair_begin, acc,
                  ahead);
  HWY_UNROLL(4)
  for (int c = 0; c < C; ++c) {
    const __m512 v_scale = _mm512_loadu_ps(block.v_scales + column + c * kVectorFloats);
    HWY_UNROLL(8)
    for (int r = 0; r < R; ++r) {
      float* to = o + r * o_stride + column + c * kVectorFloats;
      const __m512 scale = _mm512_mul_ps(v_scale, _mm512_set1_ps(factors[r]));
      _mm512_storeu_ps(
          to, _mm512_fmadd_ps(_mm512_cvtepi32_ps((__m512i)acc[r][c]), scale, _mm512_loadu_ps(to)));
    }
  }
}

// Coefficients of 2^x for x in [0, 1], lowest first: off by 4e-6, a twentieth of half
// a step of the largest weight.
constexpr float kWeightExp2[] = {1.0000034929F, 0.6929729222F, 0.2416043573F, 0.0517449978F,
                                 0.0136703095F};

// Of the scores of a block, 64, to weights exp(score - largest of them) as pairs, zero outside
// `visible`. m and l follow, and o is scaled down where m grows; l adds up the rounded weights, by
// which their errors cancel. Returns by what products with the weights are multiplied.
HWY_INLINE float weigh(const float* scores, KeyRange visible, int columns, RowState row,
                       uint32_t* pairs) {
  __m512 x[kVectors];
  load_scores(scores, visible, x);
  const float m = _mm512_reduce_max_ps(largest_of(x));
  if (m > row.m) raise_maximum(row, columns, m);
  const float factor = (m == row.m ? 1 : std::exp(m - row.m)) / kLargestWeight;
  __m512i sum = _mm512_setzero_si512();
  HWY_UNROLL(2)
  for (int i = 0; i < kVectors; i += 2) {
    const auto weights_of = [&](__m512 score) {
      const __m512 below = _mm512_sub_ps(score, _mm512_set1_ps(m));
      const __m512 weight = exp2(kWeightExp2, _mm512_mul_ps(below, _mm512_set1_ps(kLog2E)));
      return _mm512_cvtps_epi32(_mm512_mul_ps(weight, _mm512_set1_ps(kLargestWeight)));
    };
    const __m512i first = weights_of(x[i]);
    const __m512i second = weights_of(x[i + 1]);
    _mm512_store_si512(pairs + i * kVectorFloats / 2, pair_words(first, second));
    sum = _mm512_add_epi32(sum, _mm512_add_epi32(first, second));
  }
  row.l += factor * static_cast<float>(_mm512_reduce_add_epi32(sum));
  return factor;
}

// R rows from `row` on, in registers together.
template <int R>
void fold_rows(const PairBlock& block, const PairRows& rows, const KeyRange* visible, int row,
               int head_dim, float softcap, const StateView& into, LinesAhead& ahead) {
  const int n_pairs = (head_dim + 1) / 2;
  const int columns = padded_columns(head_dim);
  const KeyRange seen = seen_by_any(visible + row, R);
  if (seen.begin >= seen.end) return;

  alignas(64) float scores[R * kChunkTokens];
  alignas(64) uint32_t weights[R * kBlockPairs];
  float factors[R];
  const uint32_t* q = rows.q + size_t(row) * n_pairs;
  const float* q_scales = rows.q_scales + row;
  int panel = seen.begin / kPanelTokens;
  const int panel_end = (seen.end - 1) / kPanelTokens + 1;
  for (; panel + 4 <= panel_end; panel += 4) {
    score_tile<R, 4>(block, panel, q, q_scales, n_pairs, scores, ahead);
  }
  for (; panel < panel_end; ++panel) {
    score_tile<R, 1>(block, panel, q, q_scales, n_pairs, scores, ahead);
  }

  float* o = into.o + size_t(row) * into.stride;
  for (int r = 0; r < R; ++r) {
    uint32_t* pairs = weights + r * kBlockPairs;
    const KeyRange own = visible[row + r];
    if (own.begin >= own.end) {
      std::fill_n(pairs, kBlockPairs, 0);
      factors[r] = 0;
      continue;
    }
    float* own_scores = scores + r * kChunkTokens;
    if (softcap > 0) cap_scores(own_scores, softcap);
    factors[r] = weigh(own_scores, own, columns,
                       {o + r * into.stride, into.m[row + r], into.l[row + r]}, pairs);
  }

  // In halves of 32 keys: pairs are of both panels of one.
  const int pair_begin = seen.begin / (2 * kPanelTokens) * kPanelTokens;
  const int pair_end = ((seen.end - 1) / (2 * kPanelTokens) + 1) * kPanelTokens;
  int column = 0;
  for (; column + 4 * kVectorFloats <= columns; column += 4 * kVectorFloats) {
    value_tile<R, 4>(block, weights, factors, pair_begin, pair_end, column, o, into.stride, ahead);
  }
  for (; column < columns; column += kVectorFloats) {
    value_tile<R, 1>(block, weights, factors, pair_begin, pair_end, column, o, into.stride, ahead);
  }
}

void fold_block(const PairBlock& block, const PairRows& rows, const KeyRange* visible, int n,
                int head_dim, float softcap, const StateView& into, LinesAhead& ahead) {
  static_assert(kPairTileRows == 6);
  constexpr decltype(&fold_rows<1>) kOfRows[] = {fold_rows<1>, fold_rows<2>, fold_rows<3>,
                                                 fold_rows<4>, fold_rows<5>, fold_rows<6>};
  for (int row = 0; row < n; row += kPairTileRows) {
    const int some = std::min(kPairTileRows, n - row);
    kOfRows[some - 1](block, rows, visible, row, head_dim, softcap, into, ahead);
  }
}

constexpr PairKernels kTable{.is_bf16 = false,
                             .fewest_rows = 9,
                             .pair_step = 1,
                             .pack_q = pack_q,
                             .pack_block = pack_block,
                             .begin = [](int) {},
                             .fold_block = fold_block,
                             .end = [] {}};

}  // namespace
}  // namespace banyan::pairs
HWY_POP_ATTRIBUTES

namespace banyan {
const PairKernels* integer_kernels() { return &pairs::kTable; }
}  // namespace banyan

#else

namespace banyan {
const PairKernels* integer_kernels() { return nullptr; }
}  // namespace banyan

#endif
