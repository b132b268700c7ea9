// SPDX-License-Identifier: Apache-2.0
// Products as whole numbers: VPDPWSSD adds the products of two pairs of 16 bits to sums of 32,
// exactly. So that no sum overflows:
//   scores  |q . k| <= |q| |k| (Cauchy-Schwarz): q is scaled to a norm, each key to a largest
//           number that follows from it and from head_dim
//   values  64 keys times the largest weight times the largest value of a column
// Weights are whole numbers relative to the row's largest one in the block, which stands with the
// column's scale in the factor that a block's sums are multiplied with.
#include <algorithm>
#include <cmath>

#include "attention/cpu/pair_kernels.h"
#include "hwy/base.h"

#if HWY_ARCH_X86_64
#include "attention/cpu/stored_block-inl.h"

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
namespace banyan::pairs {
namespace {

constexpr int kTileRows = kPairTileRows;
constexpr int kBlockPairs = kChunkTokens / 2;  // of keys: i and i + 16 of 32
constexpr int kVectors = kChunkTokens / kVectorFloats;

constexpr int64_t kLargestSum = (int64_t{1} << 31) - 1;
constexpr float kQueryNorm = 23170;  // 2^14.5
constexpr int kLargestWeight = 5792;
constexpr int kLargestValue = 5791;
static_assert(int64_t{kChunkTokens} * kLargestWeight * kLargestValue <= kLargestSum);

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
      const __m256i words = _mm512_cvtepi32_epi16(round_to_int(_mm512_mul_ps(load(i), factor)));
      const int left = n_pairs - i / 2;
      _mm256_mask_storeu_epi32(pairs + i / 2, left >= 8 ? 0xff : (1U << left) - 1, words);
    }
  }
  return true;
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
bool pack_values(const StoredBlock& block, const PairBlock& out) {
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

bool pack_block(const StoredBlock& block, int n_pairs, const PairBlock& out) {
  return with_stored_type(block.k_type,
                          [&](auto type) {
                            return pack_keys<decltype(type)::value>(block, n_pairs, out);
                          }) &&
         with_stored_type(block.v_type, [&](auto type) {
           return pack_values<decltype(type)::value>(block, out);
         });
}

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
      return round_to_int(_mm512_mul_ps(weight, _mm512_set1_ps(kLargestWeight)));
    };
    const __m512i first = weights_of(x[i]);
    const __m512i second = weights_of(x[i + 1]);
    _mm512_store_si512(pairs + i * kVectorFloats / 2, pair_up(first, second));
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
  static_assert(kTileRows == 6);
  constexpr decltype(&fold_rows<1>) kOfRows[] = {fold_rows<1>, fold_rows<2>, fold_rows<3>,
                                                 fold_rows<4>, fold_rows<5>, fold_rows<6>};
  for (int row = 0; row < n; row += kTileRows) {
    const int some = std::min(kTileRows, n - row);
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
