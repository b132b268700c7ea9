// SPDX-License-Identifier: Apache-2.0
#pragma once
// Keys and values as 16-bit whole numbers (integer_kernels.cc), in steps of the largest number of a
// key, and of a column of V in the block. For x86-64 with AVX-512.

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "attention/cpu/stored_block-inl.h"

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512dq,avx512vl")
namespace banyan::pairs {

inline constexpr int kBlockPairs = kChunkTokens / 2;  // of keys: i and i + 16 of 32

inline constexpr int64_t kLargestSum = (int64_t{1} << 31) - 1;
inline constexpr float kQueryNorm = 23170;  // 2^14.5
inline constexpr int kLargestWeight = 5792;
inline constexpr int kLargestValue = 5791;
static_assert(int64_t{kChunkTokens} * kLargestWeight * kLargestValue <= kLargestSum);

// Rounding adds half a step to each dimension of q at most.
inline float largest_key(int head_dim) {
  const double root = std::sqrt(double(head_dim));
  const double largest = std::floor(kLargestSum / ((kQueryNorm + root / 2) * root));
  return static_cast<float>(std::min(largest, 32767.0));
}

// Numbers above are left to f32, whose scores stay finite; numbers below are zero beside others.
inline constexpr float kMostNorm = 1e15F;
inline constexpr float kMostKey = 1e15F;
inline constexpr float kMostValue = 1e30F;
inline constexpr float kLeast = 1e-30F;

HWY_INLINE __m512i round_to_int(__m512 x) { return _mm512_cvtps_epi32(x); }

// factor * x as whole numbers of 16 bits in the low halves: beside 1.5 * 2^23 a float's last bit is
// worth one. (A product and a conversion take twice as long.)
HWY_INLINE __m512i to_words(__m512 x, __m512 factor) {
  return _mm512_castps_si512(_mm512_fmadd_ps(x, factor, _mm512_set1_ps(12582912.0F)));
}

// The low halves of two vectors as pairs.
HWY_INLINE __m512i pair_up(__m512i first, __m512i second) {
  return _mm512_mask_blend_epi16(0xaaaaaaaa, first, _mm512_slli_epi32(second, 16));
}

// The largest magnitudes of some numbers, as bits that compare like them, NaN above all.
template <DType kType>
HWY_INLINE __m512i larger(__m512i largest, __m512i bits) {
  if constexpr (kType == DType::kQ8_0) {
    return _mm512_max_epu32(largest, _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff)));
  }
  return _mm512_max_epu16(largest, _mm512_and_si512(bits, _mm512_set1_epi16(0x7fff)));
}

// 16 stored numbers.
template <DType kType>
HWY_INLINE __m512 to_floats(__m256i bits) {
  if constexpr (kType == DType::kF16) return _mm512_cvtph_ps(bits);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

template <DType kType>
HWY_INLINE __m512 largest_of_keys(const void* panel, int head_dim) {
  __m512i largest = _mm512_setzero_si512();
  if constexpr (kType == DType::kQ8_0) {
    for (int i = 0; i < head_dim; ++i) {
      largest = larger<kType>(largest, _mm512_castps_si512(load_keys<kType>(panel, head_dim, i)));
    }
    return _mm512_castsi512_ps(largest);
  }
  const auto* bits = static_cast<const uint16_t*>(panel);
  int i = 0;
  for (; i + 2 <= head_dim; i += 2) {
    largest = larger<kType>(largest, _mm512_loadu_si512(bits + i * kPanelTokens));
  }
  if (i < head_dim) {
    largest =
        larger<kType>(largest, _mm512_maskz_loadu_epi16(0xffff, bits + i * kPanelTokens));
  }
  return to_floats<kType>(_mm256_max_epu16(_mm512_castsi512_si256(largest),
                                           _mm512_extracti64x4_epi64(largest, 1)));
}

template <DType kType>
bool pack_keys_of(const StoredBlock& block, int n_pairs, const PairBlock& out) {
  const int head_dim = block.head_dim;
  const float most = largest_key(head_dim);
  for (int piece = 0; piece < block.n_pieces; ++piece) {
    const void* panel = block.pieces[piece].k;
    const __mmask16 keys = keys_of(block.pieces[piece]);
    const int first = block.pieces[piece].begin / kPanelTokens * kPanelTokens;
    const __m512 largest = largest_of_keys<kType>(panel, head_dim);
    // NLT: true of NaN.
    if (_mm512_mask_cmp_ps_mask(keys, largest, _mm512_set1_ps(kMostKey), _CMP_NLT_UQ) != 0) {
      return false;
    }
    const __m512 bound = _mm512_max_ps(largest, _mm512_set1_ps(kLeast));
    _mm512_mask_storeu_ps(out.k_scales + first, keys,
                          _mm512_mul_ps(bound, _mm512_set1_ps(1 / most)));
    const __m512 factor = _mm512_div_ps(_mm512_set1_ps(most), bound);
    const auto numbers = [&](int dim) {
      return to_words(load_keys<kType>(panel, head_dim, dim), factor);
    };
    uint32_t* to = out.k + size_t(first) * n_pairs;
    int dim = 0;
    for (; dim + 2 <= head_dim; dim += 2, to += kPanelTokens) {
      _mm512_mask_storeu_epi32(to, keys, pair_up(numbers(dim), numbers(dim + 1)));
    }
    if (dim < head_dim) {
      _mm512_mask_storeu_epi32(to, keys, pair_up(numbers(dim), _mm512_setzero_si512()));
    }
  }
  return true;
}

// The largest magnitudes of columns [column, column + 32).
template <DType kType>
HWY_INLINE void largest_of_columns(const ValuePanels& panels, int head_dim, int column,
                                   __m512 (&largest)[2]) {
  __m512i bits[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  const int left = head_dim - column;
  const __mmask32 keep = left >= 32 ? ~0U : (1U << left) - 1;
  for (int key = 0; key < kChunkTokens; ++key) {
    const void* panel = panels.of_key[key];
    if (panel == nullptr) continue;
    const int slot = key % kPanelTokens;
    if constexpr (kType == DType::kQ8_0) {
      for (int i = 0; i < 2; ++i) {
        const __m512 values =
            load_values<kType>(panel, slot, head_dim, column + i * kVectorFloats);
        bits[i] = larger<kType>(bits[i], _mm512_castps_si512(values));
      }
    } else {
      const size_t at = size_t(slot) * head_dim + column;
      bits[0] = larger<kType>(
          bits[0], _mm512_maskz_loadu_epi16(keep, static_cast<const uint16_t*>(panel) + at));
    }
  }
  if constexpr (kType == DType::kQ8_0) {
    largest[0] = _mm512_castsi512_ps(bits[0]);
    largest[1] = _mm512_castsi512_ps(bits[1]);
  } else {
    largest[0] = to_floats<kType>(_mm512_castsi512_si256(bits[0]));
    largest[1] = to_floats<kType>(_mm512_extracti64x4_epi64(bits[0], 1));
  }
}

// Columns [column, column + 16) of a block's values as whole numbers, `factor` times as large.
// kIsFull: all keys and columns are there.
template <DType kType, bool kIsFull>
HWY_INLINE void pack_columns(const ValuePanels& panels, int head_dim, int column, __m512 factor,
                             const PairBlock& out) {
  const auto numbers = [&](const void* panel, int slot) {
    if (!kIsFull && panel == nullptr) return _mm512_setzero_si512();
    __m512 values;
    if constexpr (kIsFull && kType != DType::kQ8_0) {
      values = load_stored<kType>(panel, size_t(slot) * head_dim + column, 0xffff);
    } else {
      values = load_values<kType>(panel, slot, head_dim, column);
    }
    return to_words(values, factor);
  };
  uint32_t* to = out.v + column;
  for (int key = 0; key < kChunkTokens; key += 2 * kPanelTokens) {
    for (int slot = 0; slot < kPanelTokens; ++slot, to += out.v_stride) {
      const __m512i first = numbers(panels.of_key[key + slot], slot);
      const __m512i second = numbers(panels.of_key[key + slot + kPanelTokens], slot);
      _mm512_storeu_si512(to, pair_up(first, second));
    }
  }
}

template <DType kType>
bool pack_values_of(const StoredBlock& block, const PairBlock& out) {
  const int head_dim = block.head_dim;
  const ValuePanels panels(block);
  const int columns = padded_columns(head_dim);
  const bool is_full = columns == head_dim && panels.are_whole;
  __mmask16 too_large = 0;
  for (int column = 0; column < columns; column += 2 * kVectorFloats) {
    __m512 largest[2];
    largest_of_columns<kType>(panels, head_dim, column, largest);
    const int n = std::min(2, (columns - column) / kVectorFloats);
    for (int i = 0; i < n; ++i) {
      too_large |= _mm512_cmp_ps_mask(largest[i], _mm512_set1_ps(kMostValue), _CMP_NLT_UQ);
      const __m512 bound = _mm512_max_ps(largest[i], _mm512_set1_ps(kLeast));
      const int at = column + i * kVectorFloats;
      _mm512_storeu_ps(out.v_scales + at,
                       _mm512_mul_ps(bound, _mm512_set1_ps(1.0F / kLargestValue)));
      const __m512 factor = _mm512_div_ps(_mm512_set1_ps(kLargestValue), bound);
      if (is_full) {
        pack_columns<kType, true>(panels, head_dim, at, factor, out);
      } else {
        pack_columns<kType, false>(panels, head_dim, at, factor, out);
      }
    }
  }
  return too_large == 0;
}

// As PairKernels::pack_block, of K and of V.
inline bool pack_keys(const StoredBlock& block, int n_pairs, const PairBlock& out) {
  return with_stored_type(block.k_type, [&](auto type) {
    return pack_keys_of<decltype(type)::value>(block, n_pairs, out);
  });
}
inline bool pack_values(const StoredBlock& block, const PairBlock& out) {
  return with_stored_type(block.v_type, [&](auto type) {
    return pack_values_of<decltype(type)::value>(block, out);
  });
}

}  // namespace banyan::pairs
HWY_POP_ATTRIBUTES
