// SPDX-License-Identifier: Apache-2.0
#include "attention/cpu/bf16_kernels.h"

#include <algorithm>

#include "hwy/base.h"

#if HWY_ARCH_X86_64
#include "attention/cpu/bf16-inl.h"

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
namespace banyan::bf16 {
namespace {

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

// 16 numbers to 8 pairs.
HWY_INLINE __m256i to_pairs(__m512 numbers) { return (__m256i)_mm512_cvtneps_pbh(numbers); }

void pack_q(const float* q, int n, int head_dim, int n_pairs, uint32_t* out, uint32_t* rest) {
  for (int r = 0; r < n; ++r) {
    const float* row = q + size_t(r) * head_dim;
    const size_t to = size_t(r) * n_pairs;
    for (int i = 0; i < 2 * n_pairs; i += kVectorFloats) {
      const int left = std::max(head_dim - i, 0);
      const __mmask16 keep = left >= kVectorFloats ? 0xffff : (1U << left) - 1;
      const int pairs_left = n_pairs - i / 2;
      const __mmask8 keep_pairs = pairs_left >= 8 ? 0xff : (1U << pairs_left) - 1;
      const __m512 numbers = _mm512_maskz_loadu_ps(keep, row + i);
      const __m256i pairs = to_pairs(numbers);
      _mm256_mask_storeu_epi32(out + to + i / 2, keep_pairs, pairs);
      if (rest == nullptr) continue;
      const __m512 rounded =
          _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(pairs), 16));
      _mm256_mask_storeu_epi32(rest + to + i / 2, keep_pairs,
                               to_pairs(_mm512_sub_ps(numbers, rounded)));
    }
  }
}

void pack_k(DType type, const void* panel, int head_dim, int n_pairs, uint32_t* out) {
  const StoredPanel from{type, panel, head_dim};
  for (int i = 0; i < head_dim; i += 2) {
    const size_t first = size_t(i) * kPanelTokens;
    const __m512 scales = load_scales(from, i);
    const __mmask16 has_second = i + 1 < head_dim ? 0xffff : 0;
    _mm512_storeu_si512(
        out + i / 2 * kPanelTokens,
        load_pairs(from, first, scales, 0xffff, first + kPanelTokens, scales, has_second));
  }
  std::fill(out + (head_dim + 1) / 2 * kPanelTokens, out + n_pairs * kPanelTokens, 0);
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

// After so many steps of products, as many lines are fetched: six rows and a block of 128
// dimensions take 128 steps, and of the next block 512 lines are wanted.
constexpr int kStepsPerFetch = 8;

// acc[r][c] += a[r][i] * b[c][i] for pairs i in [0, n): a broadcast, b 16 wide and b_step apart.
template <int R, int C>
HWY_INLINE void add_pairs(const uint32_t* a, size_t a_stride, const uint32_t* const (&b)[C],
                          size_t b_step, int n, __m512 (&acc)[R][C], LinesAhead& ahead) {
  for (int begin = 0; begin < n; begin += kStepsPerFetch) {
    const int end = HWY_MIN(begin + kStepsPerFetch, n);
    for (int i = begin; i < end; ++i) {
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
    ahead.fetch(kStepsPerFetch);
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
HWY_INLINE void score_tile(const Bf16Block& block, int panel, const uint32_t* q,
                           const uint32_t* q_rest, int n_pairs, float* scores, LinesAhead& ahead) {
  __m512 acc[R][C];
  const uint32_t* k[C];
  for (int c = 0; c < C; ++c) k[c] = block.k + (panel + c) * n_pairs * kPanelTokens;
  set_zero(acc);
  add_pairs<R, C>(q, n_pairs, k, kPanelTokens, n_pairs, acc, ahead);
  if (q_rest != nullptr) add_pairs<R, C>(q_rest, n_pairs, k, kPanelTokens, n_pairs, acc, ahead);
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(4)
    for (int c = 0; c < C; ++c) {
      _mm512_store_ps(scores + r * kChunkTokens + (panel + c) * kPanelTokens, acc[r][c]);
    }
  }
}

// Adds the values of C vectors of columns to R outputs.
template <int R, int C>
HWY_INLINE void value_tile(const Bf16Block& block, const uint32_t* p, int pair_begin, int pair_end,
                           int column, float* o, size_t o_stride, LinesAhead& ahead) {
  __m512 acc[R][C];
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(4)
    for (int c = 0; c < C; ++c) {
      acc[r][c] = _mm512_loadu_ps(o + r * o_stride + column + c * kVectorFloats);
    }
  }
  const uint32_t* v[C];
  for (int c = 0; c < C; ++c) {
    v[c] = block.v + pair_begin * block.v_stride + column + c * kVectorFloats;
  }
  add_pairs<R, C>(p + pair_begin, kBlockPairs, v, block.v_stride, pair_end - pair_begin, acc,
                  ahead);
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
void fold_rows(const Bf16Block& block, const uint32_t* q, const uint32_t* q_rest,
               const KeyRange* visible, int row, int head_dim, float softcap, const StateView& into,
               LinesAhead& ahead) {
  const int n_pairs = (head_dim + 1) / 2;
  const int columns = padded_columns(head_dim);
  const KeyRange seen = seen_by_any(visible + row, R);
  if (seen.begin >= seen.end) return;

  alignas(64) float scores[R * kChunkTokens];
  alignas(64) uint32_t weights[R * kBlockPairs];
  const uint32_t* q_rows = q + size_t(row) * n_pairs;
  const uint32_t* rest_rows = q_rest == nullptr ? nullptr : q_rest + size_t(row) * n_pairs;
  int panel = seen.begin / kPanelTokens;
  const int panel_end = (seen.end - 1) / kPanelTokens + 1;
  for (; panel + 4 <= panel_end; panel += 4) {
    score_tile<R, 4>(block, panel, q_rows, rest_rows, n_pairs, scores, ahead);
  }
  for (; panel < panel_end; ++panel) {
    score_tile<R, 1>(block, panel, q_rows, rest_rows, n_pairs, scores, ahead);
  }

  float* o = into.o + size_t(row) * into.stride;
  weigh_rows(scores, visible + row, R, softcap, columns,
             {o, into.stride, into.m + row, into.l + row}, weights);

  const int pair_begin = seen.begin / 2;
  const int pair_end = (seen.end + 1) / 2;
  int column = 0;
  for (; column + 4 * kVectorFloats <= columns; column += 4 * kVectorFloats) {
    value_tile<R, 4>(block, weights, pair_begin, pair_end, column, o, into.stride, ahead);
  }
  for (; column < columns; column += kVectorFloats) {
    value_tile<R, 1>(block, weights, pair_begin, pair_end, column, o, into.stride, ahead);
  }
}

void fold_block(const Bf16Block& block, const uint32_t* q, const uint32_t* q_rest,
                const KeyRange* visible, int n, int head_dim, float softcap, const StateView& into,
                LinesAhead& ahead) {
  static_assert(kBf16TileRows == 6);
  constexpr decltype(&fold_rows<1>) kOfRows[] = {fold_rows<1>, fold_rows<2>, fold_rows<3>,
                                                 fold_rows<4>, fold_rows<5>, fold_rows<6>};
  for (int row = 0; row < n; row += kBf16TileRows) {
    const int rows = std::min(kBf16TileRows, n - row);
    kOfRows[rows - 1](block, q, q_rest, visible, row, head_dim, softcap, into, ahead);
  }
}

constexpr Bf16Kernels kTable{.pair_step = 1,
                             .pack_q = pack_q,
                             .pack_k = pack_k,
                             .pack_v = pack_v,
                             .begin = [](int) {},
                             .fold_block = fold_block,
                             .end = [] {}};

}  // namespace
}  // namespace banyan::bf16
HWY_POP_ATTRIBUTES

namespace banyan {
const Bf16Kernels* bf16_kernels() { return &bf16::kTable; }
}  // namespace banyan

#else

namespace banyan {
const Bf16Kernels* bf16_kernels() { return nullptr; }
}  // namespace banyan

#endif
