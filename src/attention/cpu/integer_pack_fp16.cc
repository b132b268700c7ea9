// SPDX-License-Identifier: Apache-2.0
#include "attention/cpu/integer_pack_fp16.h"

#include <algorithm>

#include "hwy/base.h"

#if BANYAN_HAS_AVX512_FP16
#include "attention/cpu/integer_pack-inl.h"

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512dq,avx512vl,avx512fp16")
namespace banyan::pairs {
namespace {

constexpr float kLeastF16 = 5.9604645e-8F;  // 2^-24

// y so that largest * 2^y is the most that is at most `most`, which lies in (2^(bits - 1), 2^bits].
HWY_INLINE __m512 exponents(__m512 largest, float most, int bits) {
  const __m512 bound = _mm512_max_ps(largest, _mm512_set1_ps(kLeastF16));
  const __m512 up = _mm512_set1_ps(static_cast<float>(1 << bits) / most);
  return _mm512_sub_ps(_mm512_set1_ps(static_cast<float>(bits - 1)),
                       _mm512_getexp_ps(_mm512_mul_ps(bound, up)));
}

// 2^-y.
HWY_INLINE __m512 steps(__m512 y) {
  return _mm512_scalef_ps(_mm512_set1_ps(1), _mm512_sub_ps(_mm512_setzero_ps(), y));
}

// 2^y * x as whole numbers, 32 each.
HWY_INLINE __m512i scaled_words(__m512i x, __m512h y) {
  return _mm512_cvtph_epi16(_mm512_scalef_ph(_mm512_castsi512_ph(x), y));
}

HWY_INLINE __m512h join(__m512 first, __m512 second) {
  return _mm512_castsi512_ph(_mm512_inserti64x4(
      _mm512_castsi256_si512(_mm512_cvtps_ph(first, _MM_FROUND_TO_NEAREST_INT)),
      _mm512_cvtps_ph(second, _MM_FROUND_TO_NEAREST_INT), 1));
}

bool pack_f16_keys(const StoredBlock& block, int n_pairs, const PairBlock& out) {
  const int head_dim = block.head_dim;
  const float most = largest_key(head_dim);
  const int bits = std::ilogb(most - 1) + 1;
  // Words 0, 16, 1, 17, ..
  const __m512i step = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i order = _mm512_add_epi32(_mm512_mullo_epi32(step, _mm512_set1_epi32(0x10001)),
                                         _mm512_set1_epi32(0x100000));
  for (int piece = 0; piece < block.n_pieces; ++piece) {
    const auto* panel = static_cast<const uint16_t*>(block.pieces[piece].k);
    const __mmask16 keys = keys_of(block.pieces[piece]);
    const int first = block.pieces[piece].begin / kPanelTokens * kPanelTokens;
    const __m512 largest = largest_of_keys<DType::kF16>(panel, head_dim);
    // NLT: true of NaN.
    if (_mm512_mask_cmp_ps_mask(keys, largest, _mm512_set1_ps(kMostKey), _CMP_NLT_UQ) != 0) {
      return false;
    }
    const __m512 y = exponents(largest, most, bits);
    _mm512_mask_storeu_ps(out.k_scales + first, keys, steps(y));
    const __m512h both = join(y, y);
    uint32_t* to = out.k + size_t(first) * n_pairs;
    int dim = 0;
    for (; dim + 2 <= head_dim; dim += 2, to += kPanelTokens) {
      const __m512i two = _mm512_loadu_si512(panel + dim * kPanelTokens);
      _mm512_mask_storeu_epi32(to, keys, _mm512_permutexvar_epi16(order, scaled_words(two, both)));
    }
    if (dim < head_dim) {
      const __m512i one = _mm512_maskz_loadu_epi16(0xffff, panel + dim * kPanelTokens);
      _mm512_mask_storeu_epi32(to, keys, _mm512_permutexvar_epi16(order, scaled_words(one, both)));
    }
  }
  return true;
}

bool pack_f16_values(const StoredBlock& block, const PairBlock& out) {
  const int head_dim = block.head_dim;
  const ValuePanels panels(block);
  const int columns = padded_columns(head_dim);
  constexpr int kBits = 13;
  static_assert(kLargestValue > 1 << (kBits - 1) && kLargestValue <= 1 << kBits);
  __mmask16 too_large = 0;
  for (int column = 0; column < columns; column += 2 * kVectorFloats) {
    __m512 largest[2];
    largest_of_columns<DType::kF16>(panels, head_dim, column, largest);
    const bool has_second = columns - column > kVectorFloats;
    __m512 y[2];
    for (int i = 0; i < 1 + has_second; ++i) {
      too_large |= _mm512_cmp_ps_mask(largest[i], _mm512_set1_ps(kMostValue), _CMP_NLT_UQ);
      y[i] = exponents(largest[i], kLargestValue, kBits);
      _mm512_storeu_ps(out.v_scales + column + i * kVectorFloats, steps(y[i]));
    }
    const __m512h both = join(y[0], has_second ? y[1] : y[0]);
    const int left = head_dim - column;
    const __mmask32 keep = left >= 32 ? ~0U : (1U << left) - 1;
    // In the order in which unpacking gives columns one after the other.
    const __m512i order = _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0);
    const auto words = [&](int key, int slot) {
      const void* panel = panels.of_key[key];
      if (panel == nullptr) return _mm512_setzero_si512();
      const uint16_t* from = static_cast<const uint16_t*>(panel) + size_t(slot) * head_dim + column;
      return _mm512_permutexvar_epi64(order, scaled_words(_mm512_maskz_loadu_epi16(keep, from), both));
    };
    uint32_t* to = out.v + column;
    for (int key = 0; key < kChunkTokens; key += 2 * kPanelTokens) {
      for (int slot = 0; slot < kPanelTokens; ++slot, to += out.v_stride) {
        const __m512i first = words(key + slot, slot);
        const __m512i second = words(key + slot + kPanelTokens, slot);
        _mm512_storeu_si512(to, _mm512_unpacklo_epi16(first, second));
        if (!has_second) continue;
        _mm512_storeu_si512(to + kVectorFloats, _mm512_unpackhi_epi16(first, second));
      }
    }
  }
  return too_large == 0;
}

}  // namespace

bool pack_block_fp16(const StoredBlock& block, int n_pairs, const PairBlock& out) {
  return (block.k_type == DType::kF16 ? pack_f16_keys(block, n_pairs, out)
                                      : pack_keys(block, n_pairs, out)) &&
         (block.v_type == DType::kF16 ? pack_f16_values(block, out) : pack_values(block, out));
}

}  // namespace banyan::pairs
HWY_POP_ATTRIBUTES

#else

namespace banyan::pairs {
bool pack_block_fp16(const StoredBlock&, int, const PairBlock&) { return false; }
}  // namespace banyan::pairs

#endif
