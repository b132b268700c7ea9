// SPDX-License-Identifier: Apache-2.0
#pragma once
// How kernels on pairs read a stored block, 16 numbers at a time. For x86-64 with AVX-512.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "attention/cpu/pair_kernels.h"
#include "hwy/base.h"
#if HWY_COMPILER_GCC_ACTUAL
// GCC 12 takes the undefined operand of its own intrinsics for one of ours.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512dq,avx512vl")
namespace banyan::pairs {

inline constexpr int kVectorFloats = 16;
static_assert(kVectorFloats == kPanelTokens);

inline constexpr int padded_columns(int head_dim) {
  return (head_dim + kVectorFloats - 1) / kVectorFloats * kVectorFloats;
}

// Calls f with a constant for the type.
template <class F>
HWY_INLINE bool with_stored_type(DType type, F f) {
  if (type == DType::kQ8_0) return f(std::integral_constant<DType, DType::kQ8_0>());
  if (type == DType::kBF16) return f(std::integral_constant<DType, DType::kBF16>());
  return f(std::integral_constant<DType, DType::kF16>());
}

// 16 numbers of f16 or bf16.
template <DType kType>
HWY_INLINE __m512 to_floats(__m256i bits) {
  if constexpr (kType == DType::kF16) return _mm512_cvtph_ps(bits);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

// 16 elements of a panel from `index` on, those that `keep` says are not there zero; q8_0 without
// its scales.
template <DType kType>
HWY_INLINE __m512 load_stored(const void* panel, size_t index, __mmask16 keep) {
  if constexpr (kType == DType::kQ8_0) {
    const __m128i bytes = _mm_maskz_loadu_epi8(keep, static_cast<const int8_t*>(panel) + index);
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
  } else {
    const __m256i bits =
        _mm256_maskz_loadu_epi16(keep, static_cast<const uint16_t*>(panel) + index);
    return to_floats<kType>(bits);
  }
}

// The scales of a panel's 16 positions for dimension `dim`, of q8_0; ones of types without.
template <DType kType>
HWY_INLINE __m512 load_scales(const void* panel, int head_dim, int dim) {
  if constexpr (kType != DType::kQ8_0) return _mm512_set1_ps(1);
  const char* scales = static_cast<const char*>(panel) + scales_offset(head_dim);
  const int at = dim / kScaleDims * kPanelTokens * int(sizeof(uint16_t));
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales + at)));
}

// Dimension `dim` of a panel's 16 keys.
template <DType kType>
HWY_INLINE __m512 load_keys(const void* panel, int head_dim, int dim) {
  const __m512 numbers = load_stored<kType>(panel, size_t(dim) * kPanelTokens, 0xffff);
  if constexpr (kType != DType::kQ8_0) return numbers;
  return _mm512_mul_ps(numbers, load_scales<kType>(panel, head_dim, dim));
}

// Which of a panel's 16 keys a piece has.
inline __mmask16 keys_of(const StoredBlock::Piece& piece) {
  const int begin = piece.begin % kPanelTokens;
  return static_cast<__mmask16>(((1U << (piece.end - piece.begin)) - 1) << begin);
}

// Where the values of each key of a block are; null where it has none.
struct ValueRows {
  explicit ValueRows(const StoredBlock& block)
      : are_whole(block.pieces[0].begin == 0 &&
                  block.pieces[block.n_pieces - 1].end == kBlockTokens) {
    const size_t bytes = block.head_dim * (block.v_type == DType::kQ8_0 ? 1 : 2);
    for (int i = 0; i < block.n_pieces; ++i) {
      const StoredBlock::Piece& piece = block.pieces[i];
      for (int key = piece.begin; key < piece.end; ++key) {
        panel[key] = piece.v;
        row[key] = static_cast<const std::byte*>(piece.v) + key % kPanelTokens * bytes;
      }
    }
  }
  const void* panel[kBlockTokens] = {};
  const std::byte* row[kBlockTokens] = {};
  bool are_whole;  // every key has some
};

// Columns [column, column + 16) of the value of a key that has one; zero behind head_dim.
template <DType kType>
HWY_INLINE __m512 load_values(const ValueRows& values, int key, int head_dim, int column) {
  const int left = head_dim - column;
  const __mmask16 keep = left >= kVectorFloats ? 0xffff : left <= 0 ? 0 : (1U << left) - 1;
  const __m512 numbers = load_stored<kType>(values.row[key], column, keep);
  if constexpr (kType != DType::kQ8_0) return numbers;
  const __m512 scales = load_scales<kType>(values.panel[key], head_dim, column);
  const __m512i slot = _mm512_set1_epi32(key % kPanelTokens);
  return _mm512_maskz_mul_ps(keep, numbers, _mm512_permutexvar_ps(slot, scales));
}

// The low halves of two vectors as pairs.
HWY_INLINE __m512i pair_words(__m512i first, __m512i second) {
  return _mm512_mask_blend_epi16(0xaaaaaaaa, first, _mm512_slli_epi32(second, 16));
}

// The keys of a block that one of n rows sees, and those between.
inline KeyRange seen_by_any(const KeyRange* visible, int n) {
  KeyRange seen{kChunkTokens, 0};
  for (int r = 0; r < n; ++r) {
    if (visible[r].begin >= visible[r].end) continue;
    seen.begin = visible[r].begin < seen.begin ? visible[r].begin : seen.begin;
    seen.end = visible[r].end > seen.end ? visible[r].end : seen.end;
  }
  return seen;
}

// 2^x by the polynomial of these coefficients, lowest first, for the fraction; the whole part of x
// goes to the exponent. 2^-infinity is 0.
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

// Coefficients for x in [0, 1] with small relative errors: 7e-8.
inline constexpr float kExp2[] = {0.999999925F,  0.693153073F,   0.240153617F,
                                  0.0558263179F, 0.00898934014F, 0.00187757668F};

inline constexpr float kLog2E = 1.44269504088896341F;
inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

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

// The state of one row: its output so far, its largest score, and the sum of its weights.
struct RowState {
  float* o;
  float& m;
  float& l;
};

// Makes `m` the row's largest score: all so far is scaled down to it. A new row begins.
HWY_INLINE void raise_maximum(RowState row, int columns, float m) {
  if (row.m == kMinusInfinity) {
    row.l = 0;
    for (int i = 0; i < columns; i += kVectorFloats) {
      _mm512_storeu_ps(row.o + i, _mm512_setzero_ps());
    }
  } else {
    const float factor = std::exp(row.m - m);
    row.l *= factor;
    multiply(row.o, columns, factor);
  }
  row.m = m;
}

// Scores [64] of a row as four vectors; -infinity where it does not see the key.
HWY_INLINE void load_scores(const float* scores, KeyRange visible, __m512 (&x)[4]) {
  const uint64_t seen = (~uint64_t{0} >> (kChunkTokens - (visible.end - visible.begin)))
                        << visible.begin;
  HWY_UNROLL(4)
  for (int i = 0; i < 4; ++i) {
    x[i] = _mm512_mask_load_ps(_mm512_set1_ps(kMinusInfinity),
                               static_cast<__mmask16>(seen >> (i * kVectorFloats)),
                               scores + i * kVectorFloats);
  }
}

HWY_INLINE __m512 largest_of(const __m512 (&x)[4]) {
  return _mm512_max_ps(_mm512_max_ps(x[0], x[1]), _mm512_max_ps(x[2], x[3]));
}

}  // namespace banyan::pairs
HWY_POP_ATTRIBUTES
