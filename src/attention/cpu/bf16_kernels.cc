// SPDX-License-Identifier: Apache-2.0
#include "attention/cpu/bf16_kernels.h"

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

// 16 stored elements as bf16 in the low halves of 32 bits; `keep` says which are there.
HWY_INLINE __m512i load_bf16(DType type, const uint16_t* p, __mmask16 keep, __mmask16& not_finite) {
  const __m256i bits = _mm256_maskz_loadu_epi16(keep, p);
  __m512i rounded;
  if (type == DType::kF16) {
    rounded = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_cvtph_ps(bits)));
  } else {
    rounded = _mm512_cvtepu16_epi32(bits);
  }
  const __m512i magnitude = _mm512_and_si512(rounded, _mm512_set1_epi32(0x7fff));
  not_finite |= _mm512_cmpge_epi32_mask(magnitude, _mm512_set1_epi32(0x7f80));
  return rounded;
}

HWY_INLINE __m512i make_pairs(__m512i first, __m512i second) {
  return _mm512_or_si512(first, _mm512_slli_epi32(second, 16));
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
  const auto* from = static_cast<const uint16_t*>(panel);
  __mmask16 not_finite = 0;
  for (int i = 0; i < head_dim; i += 2) {
    const __m512i first = load_bf16(type, from + i * kPanelTokens, 0xffff, not_finite);
    const __mmask16 has_second = i + 1 < head_dim ? 0xffff : 0;
    const __m512i second = load_bf16(type, from + (i + 1) * kPanelTokens, has_second, not_finite);
    _mm512_storeu_si512(out + i / 2 * kPanelTokens, make_pairs(first, second));
  }
}

bool pack_v(DType type, const void* panel, int head_dim, int slot_begin, int slot_end,
            size_t stride, uint32_t* out) {
  const auto* from = static_cast<const uint16_t*>(panel);
  __mmask16 not_finite = 0;
  for (int slot = 0; slot < kPanelTokens; slot += 2) {
    const bool has_first = slot >= slot_begin && slot < slot_end;
    const bool has_second = slot + 1 >= slot_begin && slot + 1 < slot_end;
    uint32_t* to = out + slot / 2 * stride;
    for (int i = 0; i < static_cast<int>(stride); i += kVectorFloats) {
      const int left = head_dim - i;
      const __mmask16 there = left >= kVectorFloats ? 0xffff : left <= 0 ? 0 : (1U << left) - 1;
      const uint16_t* at = from + size_t(slot) * head_dim + i;
      const __m512i first = load_bf16(type, at, has_first ? there : 0, not_finite);
      const __m512i second = load_bf16(type, at + head_dim, has_second ? there : 0, not_finite);
      _mm512_storeu_si512(to + i, make_pairs(first, second));
    }
  }
  return not_finite == 0;
}

void pack_p(const float* p, float* l, int n, uint32_t* out) {
  for (int r = 0; r < n; ++r) {
    const float* row = p + r * kChunkTokens;
    uint32_t* to = out + r * kChunkTokens / 2;
    const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80);
    __m512 sum = _mm512_setzero_ps();
    for (int half = 0; half < 2; ++half) {
      __m512i rounded = _mm512_setzero_si512();
      if (l[r] > 0) {
        rounded = (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(row + half * 32 + 16),
                                               _mm512_loadu_ps(row + half * 32));
      }
      _mm512_storeu_si512(to + half * 16, rounded);
      sum = _mm512_dpbf16_ps(sum, (__m512bh)rounded, ones);
    }
    l[r] = _mm512_reduce_add_ps(sum);
  }
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

template <int R, int C>
HWY_INLINE void store(const __m512 (&acc)[R][C], float* out, size_t stride) {
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(4)
    for (int c = 0; c < C; ++c) _mm512_storeu_ps(out + r * stride + c * kVectorFloats, acc[r][c]);
  }
}

template <int R, int C>
void score_tile(const Bf16Block& block, int panel, const uint32_t* q, int n_pairs, float* scores) {
  __m512 acc[R][C];
  const uint32_t* k[C];
  for (int c = 0; c < C; ++c) k[c] = block.k[panel + c];
  set_zero(acc);
  add_pairs<R, C>(q, n_pairs, k, kPanelTokens, n_pairs, acc);
  store(acc, scores + panel * kPanelTokens, kChunkTokens);
}

template <int R>
void score_rows(const Bf16Block& block, const uint32_t* q, int n_pairs, float* scores) {
  int panel = block.panel_begin;
  for (; panel + 4 <= block.panel_end; panel += 4)
    score_tile<R, 4>(block, panel, q, n_pairs, scores);
  for (; panel < block.panel_end; ++panel) score_tile<R, 1>(block, panel, q, n_pairs, scores);
}

void scores(const Bf16Block& block, const uint32_t* q, int n, int n_pairs, float* out) {
  int r = 0;
  for (; r + kBf16TileRows <= n; r += kBf16TileRows) {
    score_rows<kBf16TileRows>(block, q + size_t(r) * n_pairs, n_pairs, out + r * kChunkTokens);
  }
  for (; r < n; ++r) {
    score_rows<1>(block, q + size_t(r) * n_pairs, n_pairs, out + r * kChunkTokens);
  }
}

template <int R, int C>
void value_tile(const Bf16Block& block, const uint32_t* p, int pair_begin, int pair_end, int column,
                int columns, float* o) {
  constexpr int kPanelPairs = kPanelTokens / 2;
  __m512 acc[R][C];
  set_zero(acc);
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
  store(acc, o + column, columns);
}

template <int R>
void value_rows(const Bf16Block& block, const uint32_t* p, int pair_begin, int pair_end,
                int columns, float* o) {
  int column = 0;
  for (; column + 4 * kVectorFloats <= columns; column += 4 * kVectorFloats) {
    value_tile<R, 4>(block, p, pair_begin, pair_end, column, columns, o);
  }
  for (; column < columns; column += kVectorFloats) {
    value_tile<R, 1>(block, p, pair_begin, pair_end, column, columns, o);
  }
}

void values(const Bf16Block& block, const uint32_t* p, int n, int key_begin, int key_end,
            int columns, float* o) {
  const int begin = key_begin / 2;
  const int end = (key_end + 1) / 2;
  if (n == kBf16TileRows) return value_rows<kBf16TileRows>(block, p, begin, end, columns, o);
  for (int r = 0; r < n; ++r) {
    value_rows<1>(block, p + r * kChunkTokens / 2, begin, end, columns, o + r * columns);
  }
}

constexpr Bf16Kernels kTable{pack_q, pack_k, pack_v, pack_p, scores, values};

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
