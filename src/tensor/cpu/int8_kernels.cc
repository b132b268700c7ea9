// SPDX-License-Identifier: Apache-2.0
#include "tensor/cpu/int8_kernels.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

// Dot products of bytes are in the AVX-512 of Ice Lake and Zen 4 (VNNI), not in the first.
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS \
  (HWY_SSE2 | HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_ZEN4 | HWY_AVX3_SPR | HWY_AVX10_2)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/cpu/int8_kernels.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

// Once for all targets.
#ifndef BANYAN_INT8_LAYOUT
#define BANYAN_INT8_LAYOUT
namespace banyan::int8_layout {

constexpr int kBlock = 32;
constexpr int kWords = kBlock / 4;  // of four bytes, which one instruction multiplies and adds

// The rounded activations of one block, four rows side by side, in two ways: narrow (0),
// x = scale * coarse, and wide (1), x = scale * (256 * coarse + fine).
struct alignas(64) Record {
  float scale[2][kInt8GroupRows];
  float sum[2][kInt8GroupRows];  // of the x: meets the weights' offsets
  int8_t coarse[kWords][kInt8GroupRows][4];
  int8_t fine[kWords][kInt8GroupRows][4];
};
static_assert(sizeof(Record) == kInt8RecordBytes);

constexpr int kNarrowLargest = 127;
constexpr int kWideFactor = 256;

}  // namespace banyan::int8_layout
#endif

HWY_BEFORE_NAMESPACE();
namespace banyan::HWY_NAMESPACE {
namespace {

#if HWY_TARGET <= HWY_AVX2

namespace hn = hwy::HWY_NAMESPACE;
using namespace int8_layout;  // NOLINT: a struct and constants of this file

constexpr bool kHasByteDots = HWY_TARGET <= HWY_AVX3_DL;

using DF = hn::FixedTag<float, HWY_MAX_BYTES / 4>;
using DI32 = hn::RebindToSigned<DF>;
using DI16 = hn::Repartition<int16_t, DF>;
using DI8 = hn::Repartition<int8_t, DF>;
using DU8 = hn::Repartition<uint8_t, DF>;
using DU32 = hn::Repartition<uint32_t, DF>;
using VF = hn::Vec<DF>;
using VI32 = hn::Vec<DI32>;
using VI16 = hn::Vec<DI16>;
constexpr int kLanes = HWY_MAX_BYTES / 4;

// Vectors of outputs in a tile, and rows whose sums are registers at once: what of the 32 registers
// of AVX-512 or the 16 of AVX2 was fastest. More rounds of the innermost loop side by side made
// compilers spill those 16.
constexpr int kVectors = 2;
constexpr int kRowStep = HWY_TARGET == HWY_AVX2 ? 2 : kInt8GroupRows;
constexpr int kTileOutputs = kVectors * kLanes;

// Sums of products of bytes, u8 * s8. A wide block's coarse products are summed first.
struct Sum32 {
  using V = VI32;
  static HWY_INLINE V zero() { return hn::Zero(DI32()); }
  static HWY_INLINE V add(V sum, hn::Vec<DU8> w, hn::Vec<DI8> x) {
    return hn::SumOfMulQuadAccumulate(DI32(), w, x, sum);
  }
};

// The same in 16 bits, which hold 8 words if the weights have 4: 8 * 2 * 15 * 128 < 2^15.
struct Sum16 {
  using V = VI16;
  static HWY_INLINE V zero() { return hn::Zero(DI16()); }
  static HWY_INLINE V add(V sum, hn::Vec<DU8> w, hn::Vec<DI8> x) {
    return hn::Add(sum, hn::SatWidenMulPairwiseAdd(DI16(), w, x));
  }
};

using Sum = std::conditional_t<kHasByteDots, Sum32, Sum16>;

HWY_INLINE VI32 widen(VI16 sums, int16_t factor) {
  return hn::WidenMulPairwiseAdd(DI32(), sums, hn::Set(DI16(), factor));
}

template <int kRows>
HWY_INLINE void add_words(const uint8_t* HWY_RESTRICT quants, const int8_t (*x)[kInt8GroupRows][4],
                          int row, Sum::V (&sums)[kRows][kVectors]) {
#if HWY_TARGET == HWY_AVX2
  HWY_UNROLL(4)
#else
  HWY_UNROLL(8)
#endif
  for (int i = 0; i < kWords; ++i) {
    hn::Vec<DU8> w[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      w[v] = hn::Load(DU8(), quants + (i * kVectors + v) * kLanes * 4);
    }
    for (int r = 0; r < kRows; ++r) {
      int32_t word;
      std::memcpy(&word, x[i][row + r], sizeof(word));
      const auto xr = hn::BitCast(DI8(), hn::Set(DI32(), word));
      for (int v = 0; v < kVectors; ++v) sums[r][v] = Sum::add(sums[r][v], w[v], xr);
    }
  }
}

// The same address, but compilers do not know: else they hold a whole block of weights in registers
// from the coarse products to the fine ones, and spill the sums.
HWY_INLINE const uint8_t* read_again(const uint8_t* quants) {
#if HWY_COMPILER_GCC_ACTUAL || HWY_COMPILER_CLANG
  asm("" : "+r"(quants));
#endif
  return quants;
}

// Adds a block's products with rows [row, row + kRows) of a group.
template <int kRows>
HWY_INLINE void add_block(const uint8_t* quants, const float* scales, const float* offsets,
                          const Record& record, bool is_wide, int row,
                          VF (*HWY_RESTRICT acc)[kVectors]) {
  const DF df;
  VI32 products[kRows][kVectors];
  Sum::V sums[kRows][kVectors];
  const auto for_each = [&](auto f) HWY_ATTR {
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVectors; ++v) f(r, v);
    }
  };
  for_each([&](int r, int v) HWY_ATTR { sums[r][v] = Sum::zero(); });
  add_words<kRows>(quants, record.coarse, row, sums);
  if constexpr (kHasByteDots) {
    if (is_wide) {
      for_each([&](int r, int v) HWY_ATTR { sums[r][v] = hn::ShiftLeft<8>(sums[r][v]); });
      add_words<kRows>(read_again(quants), record.fine, row, sums);
    }
    for_each([&](int r, int v) HWY_ATTR { products[r][v] = sums[r][v]; });
  } else {
    if (is_wide) {
      for_each([&](int r, int v) HWY_ATTR { products[r][v] = widen(sums[r][v], kWideFactor); });
      for_each([&](int r, int v) HWY_ATTR { sums[r][v] = Sum::zero(); });
      add_words<kRows>(read_again(quants), record.fine, row, sums);
      for_each([&](int r, int v)
                   HWY_ATTR { products[r][v] = hn::Add(products[r][v], widen(sums[r][v], 1)); });
    } else {
      for_each([&](int r, int v) HWY_ATTR { products[r][v] = widen(sums[r][v], 1); });
    }
  }
  VF scale[kVectors];
  VF offset[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    scale[v] = hn::Load(df, scales + v * kLanes);
    offset[v] = hn::Load(df, offsets + v * kLanes);
  }
  for (int r = 0; r < kRows; ++r) {
    const VF row_scale = hn::Set(df, record.scale[is_wide][row + r]);
    const VF row_sum = hn::Set(df, record.sum[is_wide][row + r]);
    for (int v = 0; v < kVectors; ++v) {
      const VF both = hn::Mul(scale[v], row_scale);
      acc[row + r][v] = hn::MulAdd(offset[v], row_sum, acc[row + r][v]);
      acc[row + r][v] = hn::MulAdd(hn::ConvertTo(df, products[r][v]), both, acc[row + r][v]);
    }
  }
}

// Writes, or adds, the first n of a vector of sums.
HWY_INLINE void store_sums(VF sums, int n, bool accumulate, float* to) {
  const DF df;
  if (n >= kLanes) {
    hn::StoreU(accumulate ? hn::Add(hn::LoadU(df, to), sums) : sums, df, to);
  } else if (n > 0) {
    hn::StoreN(hn::Add(accumulate ? hn::LoadN(df, to, n) : hn::Zero(df), sums), df, to, n);
  }
}

template <int kRows>
void multiply_rows(const Int8Tile& tile, const Record* records, const uint8_t* is_wide,
                   int64_t n_blocks, int n_outputs, bool accumulate, float* HWY_RESTRICT out,
                   int64_t out_stride) {
  const DF df;
  VF acc[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) acc[r][v] = hn::Zero(df);
  }
  // Rows of `out` are far apart, and no hardware foresees them.
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) hwy::Prefetch(out + r * out_stride + v * kLanes);
  }
  for (int64_t b = 0; b < n_blocks; ++b) {
    const auto add = [&]<int kStep>(std::integral_constant<int, kStep>, int row) HWY_ATTR {
      add_block<kStep>(tile.quants + b * kTileOutputs * kBlock, tile.scales + b * kTileOutputs,
                       tile.offsets + b * kTileOutputs, records[b], is_wide[b] != 0, row, acc);
    };
    constexpr int kWhole = kRows / kRowStep * kRowStep;
    for (int row = 0; row < kWhole; row += kRowStep) {
      add(std::integral_constant<int, std::min(kRowStep, kRows)>(), row);
    }
    if constexpr (kWhole < kRows) add(std::integral_constant<int, kRows - kWhole>(), kWhole);
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      store_sums(acc[r][v], n_outputs - v * kLanes, accumulate, out + r * out_stride + v * kLanes);
    }
  }
}

void multiply(const Int8Tile& tile, const std::byte* records, const uint8_t* is_wide,
              int64_t n_blocks, int n_rows, int n_outputs, bool accumulate, float* out,
              int64_t out_stride) {
  const auto* r = reinterpret_cast<const Record*>(records);
  constexpr decltype(&multiply_rows<1>) kOfRows[] = {multiply_rows<1>, multiply_rows<2>,
                                                     multiply_rows<3>, multiply_rows<4>};
  kOfRows[n_rows - 1](tile, r, is_wide, n_blocks, n_outputs, accumulate, out, out_stride);
}

using DWords = hn::FixedTag<uint32_t, 4>;
using Words = hn::Vec<DWords>;

// From four words of each of four things to the things' first words, second words and so on; in
// longer vectors each 16 bytes for themselves.
template <class V>
HWY_INLINE void transpose(V (&w)[4]) {
  const hn::DFromV<V> d;
  const hn::Repartition<uint64_t, hn::DFromV<V>> d64;
  const auto low01 = hn::BitCast(d64, hn::InterleaveLower(d, w[0], w[1]));
  const auto low23 = hn::BitCast(d64, hn::InterleaveLower(d, w[2], w[3]));
  const auto high01 = hn::BitCast(d64, hn::InterleaveUpper(d, w[0], w[1]));
  const auto high23 = hn::BitCast(d64, hn::InterleaveUpper(d, w[2], w[3]));
  w[0] = hn::BitCast(d, hn::InterleaveLower(d64, low01, low23));
  w[1] = hn::BitCast(d, hn::InterleaveUpper(d64, low01, low23));
  w[2] = hn::BitCast(d, hn::InterleaveLower(d64, high01, high23));
  w[3] = hn::BitCast(d, hn::InterleaveUpper(d64, high01, high23));
}

// 16 activations times `inverse`, rounded to integers: their upper bytes, rounded, go to `coarse`,
// and what is left to `fine`.
template <int kParts = 16 / kLanes>
HWY_INLINE void round_16(const float* x, float inverse, Words& coarse, Words& fine) {
  const hn::Rebind<int8_t, DF> d8;
  hn::Vec<decltype(d8)> upper[kParts];
  hn::Vec<decltype(d8)> lower[kParts];
  for (int i = 0; i < kParts; ++i) {
    const VI32 whole =
        hn::NearestInt(hn::Mul(hn::LoadU(DF(), x + i * kLanes), hn::Set(DF(), inverse)));
    const VI32 rounded = hn::ShiftRight<8>(hn::Add(whole, hn::Set(DI32(), kWideFactor / 2)));
    upper[i] = hn::DemoteTo(d8, rounded);
    lower[i] = hn::DemoteTo(d8, hn::Sub(whole, hn::ShiftLeft<8>(rounded)));
  }
  if constexpr (kParts == 1) {
    coarse = hn::BitCast(DWords(), upper[0]);
    fine = hn::BitCast(DWords(), lower[0]);
  } else {
    const hn::FixedTag<int8_t, 16> d;
    coarse = hn::BitCast(DWords(), hn::Combine(d, upper[kParts - 1], upper[0]));
    fine = hn::BitCast(DWords(), hn::Combine(d, lower[kParts - 1], lower[0]));
  }
}

using DRows = hn::FixedTag<float, kInt8GroupRows>;  // a lane for each row of a group

template <class V>
HWY_INLINE hn::Vec<DRows> largest_quarter(V v) {
  if constexpr (hn::MaxLanes(hn::DFromV<V>()) == 4) {
    return v;
  } else {
    const hn::Half<hn::DFromV<V>> d;
    return largest_quarter(hn::Max(hn::LowerHalf(d, v), hn::UpperHalf(d, v)));
  }
}

// The largest magnitudes of 32 activations of each row.
HWY_INLINE hn::Vec<DRows> largest_of(const float* const (&rows)[kInt8GroupRows]) {
  Words parts[kInt8GroupRows];
  for (int r = 0; r < kInt8GroupRows; ++r) {
    VF largest = hn::Abs(hn::LoadU(DF(), rows[r]));
    for (int i = kLanes; i < kBlock; i += kLanes) {
      largest = hn::Max(largest, hn::Abs(hn::LoadU(DF(), rows[r] + i)));
    }
    parts[r] = hn::BitCast(DWords(), largest_quarter(largest));
  }
  transpose(parts);
  const auto of = [&](int i) HWY_ATTR { return hn::BitCast(DRows(), parts[i]); };
  return hn::Max(hn::Max(of(0), of(1)), hn::Max(of(2), of(3)));
}

float round_block(const float* x, int64_t x_stride, int n_rows, std::byte* to) {
  Record& record = *reinterpret_cast<Record*>(to);
  const DRows d;
  const hn::RebindToSigned<DRows> di;
  const hn::FixedTag<int8_t, 16> di8;
  const auto ones = hn::Set(hn::FixedTag<uint8_t, 16>(), uint8_t{1});
  // Rows that are not there repeat the first, and nobody reads their products.
  const float* rows[kInt8GroupRows];
  for (int r = 0; r < kInt8GroupRows; ++r) rows[r] = x + (r < n_rows ? r : 0) * x_stride;
  const auto largest = largest_of(rows);
  const auto steps = hn::Set(d, kNarrowLargest * kWideFactor);
  const auto is_zero = hn::Eq(largest, hn::Zero(d));
  alignas(16) float inverse[kInt8GroupRows];
  hn::Store(hn::IfThenZeroElse(is_zero, hn::Div(steps, largest)), d, inverse);
  auto coarse_sum = hn::Zero(di);
  auto fine_sum = hn::Zero(di);
  for (int half = 0; half < 2; ++half) {
    Words coarse[kInt8GroupRows];
    Words fine[kInt8GroupRows];
    for (int r = 0; r < kInt8GroupRows; ++r) {
      round_16(rows[r] + half * 16, inverse[r], coarse[r], fine[r]);
    }
    const auto store = [&](Words(&words)[4], int8_t(*out)[kInt8GroupRows][4], auto sum) HWY_ATTR {
      transpose(words);
      for (int i = 0; i < 4; ++i) {
        hn::Store(words[i], DWords(), reinterpret_cast<uint32_t*>(out[half * 4 + i]));
        sum = hn::SumOfMulQuadAccumulate(di, ones, hn::BitCast(di8, words[i]), sum);
      }
      return sum;
    };
    coarse_sum = store(coarse, record.coarse, coarse_sum);
    fine_sum = store(fine, record.fine, fine_sum);
  }
  const auto scale = hn::Div(largest, steps);
  const auto upper_sum = hn::ShiftLeft<8>(coarse_sum);
  hn::Store(hn::Mul(scale, hn::Set(d, kWideFactor)), d, record.scale[0]);
  hn::Store(scale, d, record.scale[1]);
  hn::Store(hn::Mul(scale, hn::ConvertTo(d, upper_sum)), d, record.sum[0]);
  hn::Store(hn::Mul(scale, hn::ConvertTo(d, hn::Add(upper_sum, fine_sum))), d, record.sum[1]);
  return hn::ReduceSum(d, hn::Mul(largest, largest));
}

// How a type's block of 32 weights lies.
struct BlockFormat {
  int64_t bytes;
  int64_t quants;   // offset of the nibbles or bytes; the scale, f16, comes first
  bool nibbles;     // element i in the low, i + 16 in the high half of byte i
  bool has_offset;  // f16, after the scale; else the offset is a multiple of the scale:
  float zero;
};
constexpr BlockFormat format_of(DType type) {
  if (type == DType::kQ4_0) return {18, 2, true, false, -8};
  if (type == DType::kQ4_1) return {20, 4, true, true, 0};
  return {34, 2, false, false, -128};  // Q8_0
}

// Blocks of outputs that are expanded together, a vector of them, `stride` bytes apart. (An array
// of pointers is what compilers make vectors of, to take them apart again for every load.)
struct Blocks {
  const std::byte* first;
  int64_t stride;

  const std::byte* operator[](int i) const { return first + i * stride; }
};

// Where fewer than a vector of outputs are left, their blocks stand here and the others are zeros.
// Nothing is written where all are there.
struct PaddedBlocks {
  static constexpr int64_t kStride = 40;  // a block of any type
  alignas(64) std::byte bytes[kLanes * kStride];

  Blocks copy(const BlockFormat& format, const std::byte* weights, int64_t row_bytes, int n) {
    std::memset(bytes, 0, sizeof(bytes));
    for (int i = 0; i < n; ++i) {
      std::memcpy(bytes + i * kStride, weights + i * row_bytes, format.bytes);
    }
    return {bytes, kStride};
  }
};

// The first four bytes of each block.
HWY_INLINE hn::Vec<DU32> load_firsts(const Blocks& blocks) {
  const auto lane = [&](int i) HWY_ATTR {
    uint32_t w[4];
    for (int n = 0; n < 4; ++n) std::memcpy(&w[n], blocks[i * 4 + n], sizeof(w[n]));
    return hn::Dup128VecFromValues(DWords(), w[0], w[1], w[2], w[3]);
  };
  auto v = hn::InsertBlock<1>(hn::ResizeBitCast(DU32(), lane(0)), lane(1));
  if constexpr (kLanes == 16) v = hn::InsertBlock<3>(hn::InsertBlock<2>(v, lane(2)), lane(3));
  return v;
}

// The f16 in the low halves.
HWY_INLINE VF halves(hn::Vec<DU32> words) {
  const hn::Rebind<uint16_t, DF> d16;
  return hn::PromoteTo(DF(),
                       hn::BitCast(hn::Rebind<hwy::float16_t, DF>(), hn::TruncateTo(d16, words)));
}

struct Scales {
  VF scale;
  VF offset;
};
HWY_INLINE Scales load_scales(const BlockFormat& format, const Blocks& blocks) {
  const hn::Vec<DU32> firsts = load_firsts(blocks);
  const VF scale = halves(firsts);
  return {scale, format.has_offset ? halves(hn::ShiftRight<16>(firsts))
                                   : hn::Mul(scale, hn::Set(DF(), format.zero))};
}

// 16 bytes of each block, as vectors of all blocks' first words, second words and so on.
HWY_INLINE void load_words(const Blocks& blocks, int64_t at, hn::Vec<DU32> (&w)[4]) {
  const hn::FixedTag<uint8_t, 16> d8;
  for (int i = 0; i < 4; ++i) {
    const auto load = [&](int lane) HWY_ATTR {
      return hn::BitCast(
          DWords(), hn::LoadU(d8, reinterpret_cast<const uint8_t*>(blocks[lane * 4 + i] + at)));
    };
    w[i] = hn::InsertBlock<1>(hn::ResizeBitCast(DU32(), load(0)), load(1));
    if constexpr (kLanes == 16) {
      w[i] = hn::InsertBlock<3>(hn::InsertBlock<2>(w[i], load(2)), load(3));
    }
  }
  transpose(w);
}

// Weights of a block as multiply() meets them: four bytes of each output in a word.
template <bool kNibbles>
HWY_INLINE void load_quants(const BlockFormat& format, const Blocks& blocks,
                            hn::Vec<DU32> (&out)[kWords]) {
  const DU32 d;
  hn::Vec<DU32> w[4];
  load_words(blocks, format.quants, w);
  if constexpr (kNibbles) {
    const auto mask = hn::Set(d, 0x0F0F0F0FU);
    for (int i = 0; i < 4; ++i) {
      out[i] = hn::And(w[i], mask);
      out[i + 4] = hn::And(hn::ShiftRight<4>(w[i]), mask);
    }
  } else {
    const auto flip = hn::Set(d, 0x80808080U);
    for (int i = 0; i < 4; ++i) out[i] = hn::Xor(w[i], flip);
    load_words(blocks, format.quants + 16, w);
    for (int i = 0; i < 4; ++i) out[i + 4] = hn::Xor(w[i], flip);
  }
}

template <bool kNibbles>
HWY_INLINE void expand_blocks(const BlockFormat& format, const Blocks& blocks, uint8_t* quants,
                              float* scales, float* offsets) {
  hn::Vec<DU32> w[kWords];
  load_quants<kNibbles>(format, blocks, w);
  for (int i = 0; i < kWords; ++i) {
    hn::Store(w[i], DU32(), reinterpret_cast<uint32_t*>(quants + i * kTileOutputs * 4));
  }
  const Scales both = load_scales(format, blocks);
  hn::Store(both.scale, DF(), scales);
  hn::Store(both.offset, DF(), offsets);
}

void expand(DType type, const std::byte* weights, int64_t row_bytes, int n_outputs, int64_t begin,
            int64_t end, const Int8Tile& tile) {
  const BlockFormat format = format_of(type);
  PaddedBlocks padded;
  for (int first = 0; first < kTileOutputs; first += kLanes) {
    const int n = std::clamp(n_outputs - first, 0, kLanes);
    for (int64_t b = begin; b < end; ++b) {
      const std::byte* own = weights + first * row_bytes + b * format.bytes;
      const Blocks blocks =
          n == kLanes ? Blocks{own, row_bytes} : padded.copy(format, own, row_bytes, n);
      const int64_t at = (b - begin) * kTileOutputs + first;
      uint8_t* quants = tile.quants + (b - begin) * kTileOutputs * kBlock + first * 4;
      if (format.nibbles) {
        expand_blocks<true>(format, blocks, quants, tile.scales + at, tile.offsets + at);
      } else {
        expand_blocks<false>(format, blocks, quants, tile.scales + at, tile.offsets + at);
      }
    }
  }
}

// The products of a wide block with one row of a group. Several sums side by side: one would wait
// for itself.
template <class S = Sum>
HWY_INLINE VI32 wide_products(const hn::Vec<DU32> (&w)[kWords], const Record& record, int row) {
  typename S::V coarse[2] = {S::zero(), S::zero()};
  typename S::V fine[2] = {S::zero(), S::zero()};
  HWY_UNROLL(8)
  for (int i = 0; i < kWords; ++i) {
    const auto add = [&](const int8_t(*x)[kInt8GroupRows][4], typename S::V& sum) HWY_ATTR {
      int32_t word;
      std::memcpy(&word, x[i][row], sizeof(word));
      sum = S::add(sum, hn::BitCast(DU8(), w[i]), hn::BitCast(DI8(), hn::Set(DI32(), word)));
    };
    add(record.coarse, coarse[i % 2]);
    add(record.fine, fine[i % 2]);
  }
  const auto upper = hn::Add(coarse[0], coarse[1]);
  const auto lower = hn::Add(fine[0], fine[1]);
  if constexpr (std::is_same_v<S, Sum32>) {
    return hn::Add(hn::ShiftLeft<8>(upper), lower);
  } else {
    return hn::Add(widen(upper, kWideFactor), widen(lower, 1));
  }
}

template <int kRows, bool kNibbles>
void multiply_directly_rows(const BlockFormat& format, const std::byte* weights, int64_t row_bytes,
                            int n_outputs, int64_t begin, const Record* records,
                            int64_t group_stride, int64_t n_blocks, bool accumulate,
                            float* HWY_RESTRICT out, int64_t out_stride) {
  const DF df;
  PaddedBlocks padded;
  const std::byte* own = weights + begin * format.bytes;
  const std::byte* ahead = weights + 3 * kLanes * row_bytes + kLanes * begin * format.bytes;
  VF acc[kRows];
  for (int r = 0; r < kRows; ++r) acc[r] = hn::Zero(df);
  for (int64_t b = 0; b < n_blocks; ++b) {
    for (int64_t i = 0; i < kLanes * format.bytes; i += 64) __builtin_prefetch(ahead + i, 0, 2);
    ahead += kLanes * format.bytes;
    const Blocks blocks = n_outputs == kLanes ? Blocks{own, row_bytes}
                                              : padded.copy(format, own, row_bytes, n_outputs);
    own += format.bytes;
    hn::Vec<DU32> w[kWords];
    load_quants<kNibbles>(format, blocks, w);
    const Scales scales = load_scales(format, blocks);
    HWY_UNROLL(12)
    for (int r = 0; r < kRows; ++r) {
      const Record& record = records[r / kInt8GroupRows * group_stride + b];
      const int row = r % kInt8GroupRows;
      const VI32 products = wide_products(w, record, row);
      const VF both = hn::Mul(scales.scale, hn::Set(df, record.scale[1][row]));
      acc[r] = hn::MulAdd(scales.offset, hn::Set(df, record.sum[1][row]), acc[r]);
      acc[r] = hn::MulAdd(hn::ConvertTo(df, products), both, acc[r]);
    }
  }
  for (int r = 0; r < kRows; ++r) store_sums(acc[r], n_outputs, accumulate, out + r * out_stride);
}

template <bool kNibbles, int... kRows>
void multiply_directly_of(std::integer_sequence<int, kRows...>, int n_rows, auto... arguments) {
  constexpr decltype(&multiply_directly_rows<1, kNibbles>) kOfRows[] = {
      multiply_directly_rows<kRows + 1, kNibbles>...};
  kOfRows[n_rows - 1](arguments...);
}

void multiply_directly(DType type, const std::byte* weights, int64_t row_bytes, int n_outputs,
                       int64_t begin, const std::byte* records, int64_t group_stride,
                       int64_t n_blocks, int n_rows, bool accumulate, float* out,
                       int64_t out_stride) {
  constexpr std::make_integer_sequence<int, kInt8MostDirectRows> kRows;
  const BlockFormat format = format_of(type);
  const auto run = [&](auto... arguments) {
    if (format.nibbles) return multiply_directly_of<true>(kRows, n_rows, arguments...);
    multiply_directly_of<false>(kRows, n_rows, arguments...);
  };
  run(format, weights, row_bytes, n_outputs, begin, reinterpret_cast<const Record*>(records),
      group_stride, n_blocks, accumulate, out, out_stride);
}

constexpr Int8Kernels kTable = {kTileOutputs, kHasByteDots, expand,           round_block,
                                multiply,     kLanes,       multiply_directly};

#else

constexpr Int8Kernels kTable = {};

#endif

}  // namespace

const Int8Kernels* int8_table() {
  static constexpr Int8Kernels kCopy = kTable;
  return &kCopy;
}

}  // namespace banyan::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace banyan {

bool int8_expands(DType type, bool bytes) {
  return type == DType::kQ4_0 || type == DType::kQ4_1 || (bytes && type == DType::kQ8_0);
}

const Int8Kernels& int8_kernels(Isa isa) {
#if HWY_TARGETS & HWY_AVX3_DL
  if (isa >= Isa::kAvx512 && (hwy::SupportedTargets() & HWY_AVX3_DL) != 0) {
    return *N_AVX3_DL::int8_table();
  }
#endif
#if HWY_TARGETS & HWY_AVX3
  if (isa >= Isa::kAvx512) return *N_AVX3::int8_table();
#endif
#if HWY_TARGETS & HWY_AVX2
  if (isa >= Isa::kAvx2) return *N_AVX2::int8_table();
#endif
  static constexpr Int8Kernels kNone = {};
  static_cast<void>(isa);
  return kNone;
}

}  // namespace banyan
#endif
