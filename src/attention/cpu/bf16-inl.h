// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the kernels on pairs of bf16 share, for x86-64 with AVX512_BF16: from the scores of a block
// to the weights of its values.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "attention/cpu/bf16_kernels.h"
#include "hwy/base.h"
#if HWY_COMPILER_GCC_ACTUAL
// GCC 12 takes the undefined operand of its own intrinsics for one of ours.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
namespace banyan::bf16 {

inline constexpr int kVectorFloats = 16;
static_assert(kVectorFloats == kPanelTokens);
inline constexpr int kBlockPairs = kChunkTokens / 2;  // of keys

constexpr int padded_columns(int head_dim) {
  return (head_dim + kVectorFloats - 1) / kVectorFloats * kVectorFloats;
}

// The keys of a block that one of n rows sees, and those between.
inline KeyRange seen_by_any(const KeyRange* visible, int n) {
  KeyRange seen{kChunkTokens, 0};
  for (int r = 0; r < n; ++r) {
    if (visible[r].begin >= visible[r].end) continue;
    seen.begin = std::min(seen.begin, visible[r].begin);
    seen.end = std::max(seen.end, visible[r].end);
  }
  return seen;
}

// Coefficients of 2^x for x in [0, 1], lowest first: the polynomials with the smallest relative
// errors, 7e-5 (a twentieth of what bf16 rounds) and 7e-8.
inline constexpr float kRoughExp2[] = {0.999925219F, 0.695833537F, 0.226067159F, 0.0780245233F};
inline constexpr float kExp2[] = {0.999999925F,  0.693153073F,   0.240153617F,
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

inline constexpr float kLog2E = 1.44269504088896341F;
inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// The state of one row: its output so far, its largest score, and the sum of its weights.
struct RowState {
  float* o;
  float& m;
  float& l;
};

// cap * tanh(score / cap) of 64 scores, by 1 - 2 / (e^2x + 1).
inline void cap_scores(float* scores, float cap) {
  const __m512 one = _mm512_set1_ps(1);
  const __m512 two = _mm512_set1_ps(2);
  for (int i = 0; i < kChunkTokens; i += kVectorFloats) {
    const __m512 x = _mm512_mul_ps(_mm512_load_ps(scores + i), _mm512_set1_ps(2 * kLog2E / cap));
    const __m512 away = _mm512_div_ps(two, _mm512_add_ps(exp2(kExp2, x), one));
    _mm512_store_ps(scores + i, _mm512_mul_ps(_mm512_set1_ps(cap), _mm512_sub_ps(one, away)));
  }
}

inline void multiply(float* o, int columns, float factor) {
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

}  // namespace banyan::bf16
HWY_POP_ATTRIBUTES
