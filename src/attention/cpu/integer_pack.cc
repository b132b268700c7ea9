// SPDX-License-Identifier: Apache-2.0
#include "attention/cpu/integer_pack.h"

#include <algorithm>
#include <cmath>

#include "hwy/base.h"

#if HWY_ARCH_X86_64
#include "attention/cpu/stored_block-inl.h"

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512dq,avx512vl")
namespace banyan::pairs {
namespace {

// Rounding adds half a step to each dimension of q at most.
float largest_key(int head_dim) {
  const double root = std::sqrt(double(head_dim));
  const double largest = std::floor(kLargestSum / ((kQueryNorm + root / 2) * root));
  return static_cast<float>(std::min(largest, 32767.0));
}

// Numbers above are left to f32, whose scores stay finite; numbers below are zero beside others.
constexpr float kMostNorm = 1e15F;
constexpr float kMostKey = 1e15F;
constexpr float kMostValue = 1e30F;
constexpr float kLeast = 1e-30F;

// factor * x as whole numbers of 16 bits in the low halves: beside 1.5 * 2^23 a float's last bit is
// worth one. (A product and a conversion take twice as long.)
HWY_INLINE __m512i to_words(__m512 x, __m512 factor) {
  return _mm512_castps_si512(_mm512_fmadd_ps(x, factor, _mm512_set1_ps(12582912.0F)));
}

// The largest magnitudes of some numbers, as bits that compare like them, NaN above all.
template <DType kType>
HWY_INLINE __m512i larger(__m512i largest, __m512i bits) {
  if constexpr (kType == DType::kQ8_0) {
    return _mm512_max_epu32(largest, _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff)));
  }
  return _mm512_max_epu16(largest, _mm512_and_si512(bits, _mm512_set1_epi16(0x7fff)));
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
    largest = larger<kType>(largest, _mm512_maskz_loadu_epi16(0xffff, bits + i * kPanelTokens));
  }
  return to_floats<kType>(
      _mm256_max_epu16(_mm512_castsi512_si256(largest), _mm512_extracti64x4_epi64(largest, 1)));
}

template <DType kType>
bool pack_keys(const StoredBlock& block, int n_pairs, const PairBlock& out) {
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
      _mm512_mask_storeu_epi32(to, keys, pair_words(numbers(dim), numbers(dim + 1)));
    }
    if (dim < head_dim) {
      _mm512_mask_storeu_epi32(to, keys, pair_words(numbers(dim), _mm512_setzero_si512()));
    }
  }
  return true;
}

// The largest magnitudes of columns [column, column + 32).
template <DType kType>
HWY_INLINE void largest_of_columns(const ValueRows& values, int head_dim, int column,
                                   __m512 (&largest)[2]) {
  __m512i bits[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  const int left = head_dim - column;
  const __mmask32 keep = left >= 32 ? ~0U : (1U << left) - 1;
  for (int key = 0; key < kChunkTokens; ++key) {
    if (values.row[key] == nullptr) continue;
    if constexpr (kType == DType::kQ8_0) {
      for (int i = 0; i < 2; ++i) {
        const __m512 some = load_values<kType>(values, key, head_dim, column + i * kVectorFloats);
        bits[i] = larger<kType>(bits[i], _mm512_castps_si512(some));
      }
    } else {
      // Two chains of maxima.
      const auto* from = reinterpret_cast<const uint16_t*>(values.row[key]) + column;
      bits[key % 2] = larger<kType>(bits[key % 2], _mm512_maskz_loadu_epi16(keep, from));
    }
  }
  if constexpr (kType == DType::kQ8_0) {
    largest[0] = _mm512_castsi512_ps(bits[0]);
    largest[1] = _mm512_castsi512_ps(bits[1]);
  } else {
    const __m512i both = _mm512_max_epu16(bits[0], bits[1]);
    largest[0] = to_floats<kType>(_mm512_castsi512_si256(both));
    largest[1] = to_floats<kType>(_mm512_extracti64x4_epi64(both, 1));
  }
}

// Columns [column, column + 16) of a block's values as whole numbers, `factor` times as large.
// kIsFull: all keys and columns are there.
template <DType kType, bool kIsFull>
HWY_INLINE void pack_columns(const ValueRows& values, int head_dim, int column, __m512 factor,
                             const PairBlock& out) {
  const auto words = [&](int key) {
    if (!kIsFull && values.row[key] == nullptr) return _mm512_setzero_si512();
    if constexpr (kIsFull && kType != DType::kQ8_0) {
      return to_words(load_stored<kType>(values.row[key], column, 0xffff), factor);
    }
    return to_words(load_values<kType>(values, key, head_dim, column), factor);
  };
  uint32_t* to = out.v + column;
  for (int half = 0; half < kChunkTokens; half += 2 * kPanelTokens) {
    for (int key = half; key < half + kPanelTokens; ++key, to += out.v_stride) {
      _mm512_storeu_si512(to, pair_words(words(key), words(key + kPanelTokens)));
    }
  }
}

template <DType kType>
bool pack_values(const StoredBlock& block, const PairBlock& out) {
  const int head_dim = block.head_dim;
  const ValueRows values(block);
  const int columns = padded_columns(head_dim);
  const bool is_full = columns == head_dim && values.are_whole;
  __mmask16 too_large = 0;
  for (int column = 0; column < columns; column += 2 * kVectorFloats) {
    __m512 largest[2];
    largest_of_columns<kType>(values, head_dim, column, largest);
    const int n = std::min(2, (columns - column) / kVectorFloats);
    for (int i = 0; i < n; ++i) {
      too_large |= _mm512_cmp_ps_mask(largest[i], _mm512_set1_ps(kMostValue), _CMP_NLT_UQ);
      const __m512 bound = _mm512_max_ps(largest[i], _mm512_set1_ps(kLeast));
      const int at = column + i * kVectorFloats;
      _mm512_storeu_ps(out.v_scales + at,
                       _mm512_mul_ps(bound, _mm512_set1_ps(1.0F / kLargestValue)));
      const __m512 factor = _mm512_div_ps(_mm512_set1_ps(kLargestValue), bound);
      if (is_full) {
        pack_columns<kType, true>(values, head_dim, at, factor, out);
      } else {
        pack_columns<kType, false>(values, head_dim, at, factor, out);
      }
    }
  }
  return too_large == 0;
}

}  // namespace

bool pack_q(const float* q, int n, int head_dim, int n_pairs, const PairRows& out) {
  for (int r = 0; r < n; ++r) {
    const float* row = q + size_t(r) * head_dim;
    const auto load = [&](int i) {
      const int left = head_dim - i;
      return _mm512_maskz_loadu_ps(left >= kVectorFloats ? 0xffff : (1U << left) - 1, row + i);
    };
    __m512 squares = _mm512_setzero_ps();
    for (int i = 0; i < head_dim; i += kVectorFloats) {
      squares = _mm512_fmadd_ps(load(i), load(i), squares);
    }
    const float norm = std::sqrt(_mm512_reduce_add_ps(squares));
    if (!(norm < kMostNorm)) return false;
    out.q_scales[r] = std::max(norm, kLeast) / kQueryNorm;
    const __m512 factor = _mm512_set1_ps(norm < kLeast ? 0 : kQueryNorm / norm);
    uint32_t* pairs = out.q + size_t(r) * n_pairs;
    for (int i = 0; i < head_dim; i += kVectorFloats) {
      const __m256i words =
          _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(load(i), factor)));
      const int left = n_pairs - i / 2;
      _mm256_mask_storeu_epi32(pairs + i / 2, left >= 8 ? 0xff : (1U << left) - 1, words);
    }
  }
  return true;
}

bool pack_block(const StoredBlock& block, int n_pairs, const PairBlock& out) {
  return with_stored_type(
             block.k_type,
             [&](auto type) { return pack_keys<decltype(type)::value>(block, n_pairs, out); }) &&
         with_stored_type(block.v_type, [&](auto type) {
           return pack_values<decltype(type)::value>(block, out);
         });
}

}  // namespace banyan::pairs
HWY_POP_ATTRIBUTES
#endif
