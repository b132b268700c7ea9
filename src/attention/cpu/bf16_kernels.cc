// SPDX-License-Identifier: Apache-2.0
#include "attention/cpu/bf16_kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "hwy/base.h"

#if HWY_ARCH_X86_64
#if HWY_COMPILER_GCC_ACTUAL
// GCC 12 takes the undefined operand of its own intrinsics for one of ours.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
namespace banyan {
namespace {

constexpr int kVectorFloats = 16;
static_assert(kVectorFloats == kPanelTokens);

// A stored panel; `index` counts its elements. Scales are those of q8_0, of the elements loaded.
struct StoredPanel {
  DType type;
  const void* data;
  int head_dim;
};

// 16 elements; those that `keep` says are not there are zero.
HWY_INLINE __m256i load_bits(const StoredPanel& panel, size_t index, __mmask16 keep) {
  return _mm256_maskz_loadu_epi16(keep, static_cast<const uint16_t*>(panel.data) + index);
}
HWY_INLINE __m512 load_floats(const StoredPanel& panel, size_t index, __m512 scales,
                              __mmask16 keep) {
  if (panel.type == DType::kF16) return _mm512_cvtph_ps(load_bits(panel, index, keep));
  const __m128i bytes = _mm_maskz_loadu_epi8(keep, static_cast<const int8_t*>(panel.data) + index);
  return _mm512_maskz_mul_ps(keep, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)), scales);
}

// The scales of 16 positions for dimension `dim`; anything for types without.
HWY_INLINE __m512 load_scales(const StoredPanel& panel, int dim) {
  if (panel.type != DType::kQ8_0) return _mm512_setzero_ps();
  const char* scales = static_cast<const char*>(panel.data) + scales_offset(panel.head_dim);
  const int at = dim / kScaleDims * kPanelTokens * int(sizeof(uint16_t));
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales + at)));
}

// 16 stored elements from each of two places as pairs of bf16; `keep` says which are there, the
// others are zero.
HWY_INLINE __m512i load_pairs(const StoredPanel& panel, size_t first, __m512 first_scales,
                              __mmask16 keep_first, size_t second, __m512 second_scales,
                              __mmask16 keep_second) {
  __m512i lines;
  if (panel.type == DType::kBF16) {
    lines = _mm512_inserti64x4(_mm512_castsi256_si512(load_bits(panel, first, keep_first)),
                               load_bits(panel, second, keep_second), 1);
  } else {
    lines = (__m512i)_mm512_cvtne2ps_pbh(load_floats(panel, second, second_scales, keep_second),
                                         load_floats(panel, first, first_scales, keep_first));
  }
  // Words 0, 16, 1, 17, ..
  const __m512i step = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i order = _mm512_add_epi32(_mm512_mullo_epi32(step, _mm512_set1_epi32(0x10001)),
                                         _mm512_set1_epi32(0x100000));
  return _mm512_permutexvar_epi16(order, lines);
}

HWY_INLINE __mmask32 not_finite(__m512i pairs) {
  const __m512i magnitude = _mm512_and_si512(pairs, _mm512_set1_epi16(0x7fff));
  return _mm512_cmpge_epu16_mask(magnitude, _mm512_set1_epi16(0x7f80));
}

void pack_q(const float* q, int n, int head_dim, uint32_t* out) {
  const int n_pairs = (head_dim + 1) / 2;
  for (int r = 0; r < n; ++r) {
    const float* row = q + size_t(r) * head_dim;
    uint32_t* to = out + size_t(r) * n_pairs;
    for (int i = 0; i < head_dim; i += kVectorFloats) {
      const int left = head_dim - i;
      const __mmask16 keep = left >= kVectorFloats ? 0xffff : (1U << left) - 1;
      const __m256i rounded = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(keep, row + i));
      const __mmask8 keep_pairs = left >= kVectorFloats ? 0xff : (1U << ((left + 1) / 2)) - 1;
      _mm256_mask_storeu_epi32(to + i / 2, keep_pairs, rounded);
    }
  }
}

void pack_k(DType type, const void* panel, int head_dim, uint32_t* out) {
  const StoredPanel from{type, panel, head_dim};
  for (int i = 0; i < head_dim; i += 2) {
    const size_t first = size_t(i) * kPanelTokens;
    const __m512 scales = load_scales(from, i);
    const __mmask16 has_second = i + 1 < head_dim ? 0xffff : 0;
    _mm512_storeu_si512(
        out + i / 2 * kPanelTokens,
        load_pairs(from, first, scales, 0xffff, first + kPanelTokens, scales, has_second));
  }
}

bool pack_v(DType type, const void* panel, int head_dim, int slot_begin, int slot_end,
            size_t stride, uint32_t* out) {
  const StoredPanel from{type, panel, head_dim};
  __mmask32 bad = 0;
  for (int slot = 0; slot < kPanelTokens; slot += 2) {
    const bool has_first = slot >= slot_begin && slot < slot_end;
    const bool has_second = slot + 1 >= slot_begin && slot + 1 < slot_end;
    uint32_t* to = out + slot / 2 * stride;
    for (int i = 0; i < static_cast<int>(stride); i += kVectorFloats) {
      const int left = head_dim - i;
      const __mmask16 there = left >= kVectorFloats ? 0xffff : left <= 0 ? 0 : (1U << left) - 1;
      const size_t at = size_t(slot) * head_dim + i;
      const __m512 scales = load_scales(from, i);
      const auto scale_of = [&](int s) {
        return _mm512_permutexvar_ps(_mm512_set1_epi32(s), scales);
      };
      const __m512i pairs = load_pairs(from, at, scale_of(slot), has_first ? there : 0,
                                       at + head_dim, scale_of(slot + 1), has_second ? there : 0);
      bad |= not_finite(pairs);
      _mm512_storeu_si512(to + i, pairs);
    }
  }
  return bad == 0;
}

// acc[r][c] += a[r][i] * b[c][i] for pairs i in [0, n): a broadcast, b 16 wide and b_step apart.
template <int R, int C>
HWY_INLINE void add_pairs(const uint32_t* a, size_t a_stride, const uint32_t* const (&b)[C],
                          size_t b_step, int n, __m512 (&acc)[R][C]) {
  for (int i = 0; i < n; ++i) {
    __m512i bv[C];
    HWY_UNROLL(4)
    for (int c = 0; c < C; ++c) bv[c] = _mm512_loadu_si512(b[c] + i * b_step);
    HWY_UNROLL(8)
    for (int r = 0; r < R; ++r) {
      const __m512i av = _mm512_set1_epi32(static_cast<int>(a[r * a_stride + i]));
      HWY_UNROLL(4)
      for (int c = 0; c < C; ++c) {
        acc[r][c] = _mm512_dpbf16_ps(acc[r][c], (__m512bh)av, (__m512bh)bv[c]);
      }
    }
  }
}

template <int R, int C>
HWY_INLINE void set_zero(__m512 (&acc)[R][C]) {
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(4)
    for (int c = 0; c < C; ++c) acc[r][c] = _mm512_setzero_ps();
  }
}

// scores[r][16 * panel ..] of C panels.
template <int R, int C>
HWY_INLINE void score_tile(const Bf16Block& block, int panel, const uint32_t* q, int n_pairs,
                           float* scores) {
  __m512 acc[R][C];
  const uint32_t* k[C];
  for (int c = 0; c < C; ++c) k[c] = block.k[panel + c];
  set_zero(acc);
  add_pairs<R, C>(q, n_pairs, k, kPanelTokens, n_pairs, acc);
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(4)
    for (int c = 0; c < C; ++c) {
      _mm512_store_ps(scores + r * kChunkTokens + (panel + c) * kPanelTokens, acc[r][c]);
    }
  }
}

// Coefficients of 2^x for x in [0, 1], lowest first: the polynomials with the smallest relative
// errors, 7e-5 (a twentieth of what bf16 rounds) and 7e-8.
constexpr float kRoughExp2[] = {0.999925219F, 0.695833537F, 0.226067159F, 0.0780245233F};
constexpr float kExp2[] = {0.999999925F,  0.693153073F,   0.240153617F,
                           0.0558263179F, 0.00898934014F, 0.00187757668F};

// 2^x; the whole part of x goes to the exponent. 2^-infinity is 0.
template <int N>
HWY_INLINE __m512 exp2(const float (&coefficients)[N], __m512 x) {
  constexpr int kToFloor = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
  const __m512 rest = _mm512_reduce_ps(x, kToFloor);
  __m512 y = _mm512_set1_ps(coefficients[N - 1]);
  HWY_UNROLL(8)
  for (int i = N - 2; i >= 0; --i) {
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(coefficients[i]));
  }
  return _mm512_scalef_ps(y, x);  // which takes the whole part of x itself
}

constexpr float kLog2E = 1.44269504088896341F;
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// The state of one row: its output so far, its largest score, and the sum of its weights.
struct RowState {
  float* o;
  float& m;
  float& l;
};

// cap * tanh(score / cap) of 64 scores, by 1 - 2 / (e^2x + 1).
void cap_scores(float* scores, float cap) {
  const __m512 one = _mm512_set1_ps(1);
  const __m512 two = _mm512_set1_ps(2);
  for (int i = 0; i < kChunkTokens; i += kVectorFloats) {
    const __m512 x = _mm512_mul_ps(_mm512_load_ps(scores + i), _mm512_set1_ps(2 * kLog2E / cap));
    const __m512 away = _mm512_div_ps(two, _mm512_add_ps(exp2(kExp2, x), one));
    _mm512_store_ps(scores + i, _mm512_mul_ps(_mm512_set1_ps(cap), _mm512_sub_ps(one, away)));
  }
}

void multiply(float* o, int columns, float factor) {
  const __m512 f = _mm512_set1_ps(factor);
  for (int i = 0; i < columns; i += kVectorFloats) {
    _mm512_storeu_ps(o + i, _mm512_mul_ps(_mm512_loadu_ps(o + i), f));
  }
}

// Of the scores of a block, 64, to weights exp(score - m) as pairs, zero outside `visible`. m and l
// follow, and o is scaled down where m grows. l adds up the rounded weights, by which their errors
// cancel.
HWY_INLINE void weigh(const float* scores, KeyRange visible, int columns, RowState row,
                      uint32_t* pairs) {
  constexpr int kVectors = kChunkTokens / kVectorFloats;
  const uint64_t seen = (~uint64_t{0} >> (kChunkTokens - (visible.end - visible.begin)))
                        << visible.begin;
  __m512 x[kVectors];
  HWY_UNROLL(4)
  for (int i = 0; i < kVectors; ++i) {
    x[i] = _mm512_mask_load_ps(_mm512_set1_ps(kMinusInfinity),
                               static_cast<__mmask16>(seen >> (i * kVectorFloats)),
                               scores + i * kVectorFloats);
  }
  const __m512 largest = _mm512_max_ps(_mm512_max_ps(x[0], x[1]), _mm512_max_ps(x[2], x[3]));
  const bool is_new = row.m == kMinusInfinity;
  // The largest score hardly ever grows after some blocks: asked first, as it is cheaper.
  if (_mm512_cmp_ps_mask(largest, _mm512_set1_ps(row.m), _CMP_GT_OQ) != 0) {
    const float m = _mm512_reduce_max_ps(largest);
    if (!is_new) {
      const float factor = std::exp(row.m - m);
      row.l *= factor;
      multiply(row.o, columns, factor);
    }
    row.m = m;
  }
  if (is_new) {
    row.l = 0;
    std::fill_n(row.o, columns, 0.0F);
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

// Adds the values of C vectors of columns to R outputs.
template <int R, int C>
HWY_INLINE void value_tile(const Bf16Block& block, const uint32_t* p, int pair_begin, int pair_end,
                           int column, float* o, size_t o_stride) {
  constexpr int kPanelPairs = kPanelTokens / 2;
  __m512 acc[R][C];
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(4)
    for (int c = 0; c < C; ++c) {
      acc[r][c] = _mm512_loadu_ps(o + r * o_stride + column + c * kVectorFloats);
    }
  }
  for (int pair = pair_begin; pair < pair_end;) {
    const int panel = pair / kPanelPairs;
    const int end = HWY_MIN(pair_end, (panel + 1) * kPanelPairs);
    const uint32_t* v[C];
    for (int c = 0; c < C; ++c) {
      v[c] = block.v[panel] + (pair % kPanelPairs) * block.v_stride + column + c * kVectorFloats;
    }
    add_pairs<R, C>(p + pair, kChunkTokens / 2, v, block.v_stride, end - pair, acc);
    pair = end;
  }
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(4)
    for (int c = 0; c < C; ++c) {
      _mm512_storeu_ps(o + r * o_stride + column + c * kVectorFloats, acc[r][c]);
    }
  }
}

// R rows from `row` on, in registers together.
template <int R>
void fold_rows(const Bf16Block& block, const uint32_t* q, const KeyRange* visible, int row,
               int head_dim, float softcap, const StateView& into) {
  const int n_pairs = (head_dim + 1) / 2;
  const int columns = (head_dim + kVectorFloats - 1) / kVectorFloats * kVectorFloats;
  const auto sees = [&](int r) { return visible[row + r].begin < visible[row + r].end; };
  KeyRange seen{kChunkTokens, 0};
  for (int r = 0; r < R; ++r) {
    if (!sees(r)) continue;
    seen.begin = std::min(seen.begin, visible[row + r].begin);
    seen.end = std::max(seen.end, visible[row + r].end);
  }
  if (seen.begin >= seen.end) return;

  alignas(64) float scores[R * kChunkTokens];
  alignas(64) uint32_t weights[R * kChunkTokens / 2];
  const uint32_t* q_rows = q + size_t(row) * n_pairs;
  int panel = seen.begin / kPanelTokens;
  const int panel_end = (seen.end - 1) / kPanelTokens + 1;
  for (; panel + 4 <= panel_end; panel += 4)
    score_tile<R, 4>(block, panel, q_rows, n_pairs, scores);
  for (; panel < panel_end; ++panel) score_tile<R, 1>(block, panel, q_rows, n_pairs, scores);

  float* o = into.o + size_t(row) * into.stride;
  for (int r = 0; r < R; ++r) {
    float* own = scores + r * kChunkTokens;
    uint32_t* pairs = weights + r * kChunkTokens / 2;
    if (!sees(r)) {
      std::fill_n(pairs, kChunkTokens / 2, 0);
      continue;
    }
    if (softcap > 0) cap_scores(own, softcap);
    weigh(own, visible[row + r], columns, {o + r * into.stride, into.m[row + r], into.l[row + r]},
          pairs);
  }

  const int pair_begin = seen.begin / 2;
  const int pair_end = (seen.end + 1) / 2;
  int column = 0;
  for (; column + 4 * kVectorFloats <= columns; column += 4 * kVectorFloats) {
    value_tile<R, 4>(block, weights, pair_begin, pair_end, column, o, into.stride);
  }
  for (; column < columns; column += kVectorFloats) {
    value_tile<R, 1>(block, weights, pair_begin, pair_end, column, o, into.stride);
  }
}

void fold_block(const Bf16Block& block, const uint32_t* q, const KeyRange* visible, int n,
                int head_dim, float softcap, const StateView& into) {
  static_assert(kBf16TileRows == 6);
  constexpr decltype(&fold_rows<1>) kOfRows[] = {fold_rows<1>, fold_rows<2>, fold_rows<3>,
                                                 fold_rows<4>, fold_rows<5>, fold_rows<6>};
  for (int row = 0; row < n; row += kBf16TileRows) {
    const int rows = std::min(kBf16TileRows, n - row);
    kOfRows[rows - 1](block, q, visible, row, head_dim, softcap, into);
  }
}

constexpr Bf16Kernels kTable{pack_q, pack_k, pack_v, fold_block};

}  // namespace
}  // namespace banyan
HWY_POP_ATTRIBUTES

namespace banyan {
const Bf16Kernels* bf16_kernels() { return &kTable; }
}  // namespace banyan

#else

namespace banyan {
const Bf16Kernels* bf16_kernels() { return nullptr; }
}  // namespace banyan

#endif
