// SPDX-License-Identifier: Apache-2.0
#include "attention/cpu/bf16_pack.h"

#include <algorithm>

#include "hwy/base.h"

#if HWY_ARCH_X86_64
#include "attention/cpu/stored_block-inl.h"

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
namespace banyan::pairs {
namespace {

constexpr int kBlockPairs = kChunkTokens / 2;  // of keys

// Two vectors of numbers as pairs of bf16.
HWY_INLINE __m512i pair_up(__m512 first, __m512 second) {
  const __m512i lines = (__m512i)_mm512_cvtne2ps_pbh(second, first);
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

template <DType kType>
void pack_keys(const StoredBlock& block, int n_pairs, uint32_t* out) {
  const int head_dim = block.head_dim;
  for (int i = 0; i < block.n_pieces; ++i) {
    const StoredBlock::Piece& piece = block.pieces[i];
    const __mmask16 keys = keys_of(piece);
    uint32_t* to = out + size_t(piece.begin / kPanelTokens) * n_pairs * kPanelTokens;
    for (int dim = 0; dim < 2 * n_pairs; dim += 2, to += kPanelTokens) {
      const auto numbers = [&](int d) {
        return d < head_dim ? load_keys<kType>(piece.k, head_dim, d) : _mm512_setzero_ps();
      };
      _mm512_mask_storeu_epi32(to, keys, pair_up(numbers(dim), numbers(dim + 1)));
    }
  }
}

template <DType kType>
bool pack_values(const StoredBlock& block, const PairBlock& out) {
  const ValueRows values(block);
  const int columns = padded_columns(block.head_dim);
  __mmask32 bad = 0;
  for (int pair = 0; pair < kBlockPairs; ++pair) {
    for (int column = 0; column < columns; column += kVectorFloats) {
      const auto numbers = [&](int key) {
        return values.row[key] == nullptr ? _mm512_setzero_ps()
                                          : load_values<kType>(values, key, block.head_dim, column);
      };
      const __m512i pairs = pair_up(numbers(2 * pair), numbers(2 * pair + 1));
      bad |= not_finite(pairs);
      _mm512_storeu_si512(out.v + pair * out.v_stride + column, pairs);
    }
  }
  return bad == 0;
}

}  // namespace

bool pack_q_bf16(const float* q, int n, int head_dim, int n_pairs, const PairRows& out) {
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
      _mm256_mask_storeu_epi32(out.q + to + i / 2, keep_pairs, pairs);
      if (out.rest == nullptr) continue;
      const __m512 rounded =
          _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(pairs), 16));
      _mm256_mask_storeu_epi32(out.rest + to + i / 2, keep_pairs,
                               to_pairs(_mm512_sub_ps(numbers, rounded)));
    }
  }
  return true;
}

bool pack_block_bf16(const StoredBlock& block, int n_pairs, const PairBlock& out) {
  with_stored_type(block.k_type, [&](auto type) {
    pack_keys<decltype(type)::value>(block, n_pairs, out.k);
    return true;
  });
  return with_stored_type(
      block.v_type, [&](auto type) { return pack_values<decltype(type)::value>(block, out); });
}

}  // namespace banyan::pairs
HWY_POP_ATTRIBUTES
#endif
