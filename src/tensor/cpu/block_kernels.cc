// SPDX-License-Identifier: Apache-2.0
#include "tensor/cpu/block_kernels.h"

#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/cpu/block_kernels.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

// Once for all targets.
#ifndef BANYAN_BLOCK_LAYOUT
#define BANYAN_BLOCK_LAYOUT
namespace banyan::block_layout {

constexpr int64_t kBlock = 32;  // elements

constexpr int64_t round_up_64(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// An activation is rounded to a multiple of its block's scale, kCoarse * coarse + fine, both of
// -127 .. 127: 16-bit precision from 8-bit products, and weights are unpacked once for both.
constexpr int kCoarse = 254;
constexpr int kLargest = 127 * kCoarse + 126;  // one more and the coarse part would round to 128

// A rounded row, in groups of as many blocks as 16-byte lanes fit a vector (what is left at the end
// in smaller groups). A group: the first halves of its blocks' coarse parts, the second halves, and
// the same of the fine parts. After the groups for each block its scale and the sum of its rounded
// activations, as f32.
constexpr int64_t kRoundedBytes = 2 * kBlock;
constexpr int64_t scales_offset(int64_t n) { return round_up_64(n / kBlock * kRoundedBytes); }

// Formats of weights. nibbles: element i of a block in the low, i + 16 in the high half of byte i.
struct Q4_0 {
  static constexpr int64_t kBytes = 18;  // f16 d, 16 bytes; weight = d * (q - 8)
  static constexpr int64_t kQuants = 2;
  static constexpr bool kNibbles = true;
  static constexpr bool kHasOffset = false;
  static constexpr float kOffsetOfScale = -8.0F;
};
struct Q4_1 {
  static constexpr int64_t kBytes = 20;  // f16 d, f16 m, 16 bytes; weight = d * q + m
  static constexpr int64_t kQuants = 4;
  static constexpr bool kNibbles = true;
  static constexpr bool kHasOffset = true;
  static constexpr float kOffsetOfScale = 1.0F;
};
struct Q8_0 {
  static constexpr int64_t kBytes = 34;  // f16 d, 32 signed bytes; weight = d * q
  static constexpr int64_t kQuants = 2;
  static constexpr bool kNibbles = false;
  static constexpr bool kHasOffset = false;
  static constexpr float kOffsetOfScale = 0.0F;
};

}  // namespace banyan::block_layout
#endif

HWY_BEFORE_NAMESPACE();
namespace banyan::HWY_NAMESPACE {
namespace {

#if !HWY_HAVE_SCALABLE && HWY_TARGET != HWY_SCALAR

namespace hn = hwy::HWY_NAMESPACE;
using namespace block_layout;  // NOLINT: three constants and three formats of this file

constexpr int kVectorBytes = HWY_MAX_BYTES < 64 ? HWY_MAX_BYTES : 64;
constexpr int kMaxGroup = kVectorBytes / 16;  // blocks: 1, 2 or 4

// Vectors for a group of kGroup blocks: a 16-byte lane, and so 4 sums of 32 bits, for each block.
template <int kGroup>
struct Tags {
  using U8 = hn::FixedTag<uint8_t, 16 * kGroup>;
  using I8 = hn::FixedTag<int8_t, 16 * kGroup>;
  using I16 = hn::FixedTag<int16_t, 8 * kGroup>;
  using I32 = hn::FixedTag<int32_t, 4 * kGroup>;
  using F32 = hn::FixedTag<float, 4 * kGroup>;
  using Pairs = hn::FixedTag<float, 2 * kGroup>;  // scale and offset of each block
};
using WholeF32 = Tags<kMaxGroup>::F32;
using Whole = hn::Vec<WholeF32>;

// 16 bytes from each of the blocks, which are `stride` apart.
template <int kGroup>
HWY_INLINE hn::Vec<typename Tags<kGroup>::U8> load_lanes(const uint8_t* p, int64_t stride) {
  if constexpr (kGroup == 1) {
    return hn::LoadU(typename Tags<1>::U8(), p);
  } else {
    return hn::Combine(typename Tags<kGroup>::U8(),
                       load_lanes<kGroup / 2>(p + kGroup / 2 * stride, stride),
                       load_lanes<kGroup / 2>(p, stride));
  }
}

// The scale of one block and its offset (or the scale again), as two f16 in one number.
template <class Format>
HWY_INLINE uint32_t scale_bits(const uint8_t* block) {
  if constexpr (Format::kHasOffset) {
    uint32_t both;
    std::memcpy(&both, block, sizeof(both));
    return both;
  }
  uint16_t scale;
  std::memcpy(&scale, block, sizeof(scale));
  return scale * 0x10001U;
}

template <class Format, int kGroup>
HWY_INLINE hn::Vec<typename Tags<kGroup>::Pairs> load_scales(const uint8_t* blocks) {
  const typename Tags<kGroup>::Pairs d;
  const hn::Rebind<hwy::float16_t, decltype(d)> df16;
  const hn::FixedTag<uint32_t, 4> du32;
  const uint32_t s0 = scale_bits<Format>(blocks);
  const uint32_t s1 = kGroup > 1 ? scale_bits<Format>(blocks + Format::kBytes) : 0;
  const uint32_t s2 = kGroup > 2 ? scale_bits<Format>(blocks + 2 * Format::kBytes) : 0;
  const uint32_t s3 = kGroup > 2 ? scale_bits<Format>(blocks + 3 * Format::kBytes) : 0;
  const auto bits = hn::Dup128VecFromValues(du32, s0, s1, s2, s3);
  return hn::PromoteTo(d, hn::ResizeBitCast(df16, bits));
}

// The four partial sums of each block's 32 integer products.
template <class Format, int kGroup, class V8>
HWY_INLINE hn::Vec<typename Tags<kGroup>::I32> integer_products(V8 low, V8 high, const int8_t* x) {
  const typename Tags<kGroup>::U8 du8;
  const typename Tags<kGroup>::I8 di8;
  const typename Tags<kGroup>::I16 di16;
  const typename Tags<kGroup>::I32 di32;
  const auto one = hn::Set(di16, int16_t{1});
  const auto coarse = hn::Set(di16, int16_t{kCoarse});
  const auto part = [&](int i) HWY_ATTR { return hn::Load(di8, x + i * 16 * kGroup); };
  if constexpr (Format::kNibbles) {
    // 4 * 15 * 127 at most: 16 bits hold the sum of both halves.
    const auto both_halves = [&](int i) HWY_ATTR {
      return hn::Add(hn::SatWidenMulPairwiseAdd(di16, low, part(i)),
                     hn::SatWidenMulPairwiseAdd(di16, high, part(i + 1)));
    };
    return hn::Add(hn::WidenMulPairwiseAdd(di32, both_halves(0), coarse),
                   hn::WidenMulPairwiseAdd(di32, both_halves(2), one));
  } else {
    // |w| * (x with the sign of w): 2 * 128 * 127 at most, which 16 bits just hold.
    const auto half = [&](V8 w, int i) HWY_ATTR {
      const auto signed_w = hn::BitCast(di8, w);
      const auto magnitude = hn::BitCast(du8, hn::Abs(signed_w));
      const auto product = [&](int j) HWY_ATTR {
        const auto signed_x = hn::IfNegativeThenNegOrUndefIfZero(signed_w, part(j));
        return hn::SatWidenMulPairwiseAdd(di16, magnitude, signed_x);
      };
      return hn::Add(hn::WidenMulPairwiseAdd(di32, product(i), coarse),
                     hn::WidenMulPairwiseAdd(di32, product(i + 2), one));
    };
    return hn::Add(half(low, 0), half(high, 1));
  }
}

// Adds the products of a group of blocks with kRows rows of activations to sums, one vector a row,
// and the offsets' part to offsets.
template <class Format, int kGroup, int kRows>
HWY_INLINE void add_group(const uint8_t* blocks, const int8_t* x, const float* x_scales,
                          int64_t x_stride, Whole* HWY_RESTRICT sums, Whole* HWY_RESTRICT offsets) {
  using T = Tags<kGroup>;
  const typename T::U8 du8;
  const typename T::F32 df;
  const typename T::Pairs dpairs;
  const WholeF32 dwhole;
  hn::Vec<typename T::U8> low;
  hn::Vec<typename T::U8> high;
  if constexpr (Format::kNibbles) {
    const auto bytes = load_lanes<kGroup>(blocks + Format::kQuants, Format::kBytes);
    const auto mask = hn::Set(du8, uint8_t{15});
    low = hn::And(bytes, mask);
    high =
        hn::And(hn::BitCast(du8, hn::ShiftRight<4>(hn::BitCast(typename T::I16(), bytes))), mask);
  } else {
    low = load_lanes<kGroup>(blocks + Format::kQuants, Format::kBytes);
    high = load_lanes<kGroup>(blocks + Format::kQuants + 16, Format::kBytes);
  }
  const auto w_scales = load_scales<Format, kGroup>(blocks);
  alignas(64) static constexpr int32_t kScaleOfLane[16] = {0, 0, 0, 0, 2, 2, 2, 2,
                                                           4, 4, 4, 4, 6, 6, 6, 6};
  const auto scale_of_lane = hn::SetTableIndices(df, kScaleOfLane);
  HWY_UNROLL(4)  // for the sums to be registers
  for (int r = 0; r < kRows; ++r) {
    const auto x_r = hn::LoadU(dpairs, reinterpret_cast<const float*>(
                                           reinterpret_cast<const char*>(x_scales) + r * x_stride));
    const auto products = integer_products<Format, kGroup>(low, high, x + r * x_stride);
    const auto scales =
        hn::TableLookupLanes(hn::ResizeBitCast(df, hn::Mul(w_scales, x_r)), scale_of_lane);
    // Lanes above a small group get 0 * 0 and stay as they are.
    sums[r] = hn::MulAdd(hn::ZeroExtendResizeBitCast(dwhole, df, hn::ConvertTo(df, products)),
                         hn::ZeroExtendResizeBitCast(dwhole, df, scales), sums[r]);
    if constexpr (Format::kOffsetOfScale != 0) {
      offsets[r] = hn::MulAdd(hn::ZeroExtendResizeBitCast(dwhole, dpairs, w_scales),
                              hn::ZeroExtendResizeBitCast(dwhole, dpairs, x_r), offsets[r]);
    }
  }
}

template <class Format, int kRows>
void dots_of(const uint8_t* weights, const int8_t* x, int64_t x_stride, int64_t n, float* sums) {
  const WholeF32 d;
  Whole products[kRows];
  Whole offsets[kRows];
  HWY_UNROLL(4)
  for (int r = 0; r < kRows; ++r) products[r] = offsets[r] = hn::Zero(d);
  const auto* x_scales = reinterpret_cast<const float*>(x + scales_offset(n));
  int64_t left = n / kBlock;
  const auto add = [&]<int kGroup>(std::integral_constant<int, kGroup>) HWY_ATTR {
    add_group<Format, kGroup, kRows>(weights, x, x_scales, x_stride, products, offsets);
    weights += kGroup * Format::kBytes;
    x += kGroup * kRoundedBytes;
    x_scales += kGroup * 2;
    left -= kGroup;
  };
  while (left >= kMaxGroup) add(std::integral_constant<int, kMaxGroup>());
  if constexpr (kMaxGroup > 2) {
    if (left >= 2) add(std::integral_constant<int, 2>());
  }
  if constexpr (kMaxGroup > 1) {
    if (left >= 1) add(std::integral_constant<int, 1>());
  }
  HWY_UNROLL(4)
  for (int r = 0; r < kRows; ++r) {
    // Of a pair, the first is a product of scales and belongs to no sum.
    const Whole offset = hn::OddEven(offsets[r], hn::Zero(d));
    sums[r] = hn::ReduceSum(d, hn::MulAdd(offset, hn::Set(d, Format::kOffsetOfScale), products[r]));
  }
}

template <class Format>
void block_dots(const std::byte* weights, const std::byte* x, int64_t x_stride, int64_t n_rows,
                int64_t n, float* sums) {
  const auto* w = reinterpret_cast<const uint8_t*>(weights);
  const auto* rows = reinterpret_cast<const int8_t*>(x);
  int64_t r = 0;
  for (; r + 4 <= n_rows; r += 4) dots_of<Format, 4>(w, rows + r * x_stride, x_stride, n, sums + r);
  for (; r < n_rows; ++r) dots_of<Format, 1>(w, rows + r * x_stride, x_stride, n, sums + r);
}

// One block of 32 numbers: 16-byte quarters at q, q + quarter, ..; its scale and sum at `pair`.
// The sum is that of the rounded numbers: times the weights' offset it then takes back the part of
// the rounding errors that the products (of weights without their offset) have too much.
void round_block(const float* x, int8_t* q, int64_t quarter, float* pair) {
  const hn::CappedTag<float, 16> d;
  const hn::RebindToSigned<decltype(d)> di32;
  const hn::Rebind<int8_t, decltype(d)> di8;
  const int lanes = static_cast<int>(hn::Lanes(d));
  auto largest = hn::Zero(d);
  for (int i = 0; i < kBlock; i += lanes) largest = hn::Max(largest, hn::Abs(hn::LoadU(d, x + i)));
  const float max = hn::ReduceMax(d, largest);
  const auto inverse = hn::Set(d, max > 0 ? kLargest / max : 0.0F);
  const auto inverse_coarse = hn::Set(d, 1.0F / kCoarse);
  auto sum = hn::Zero(di32);
  for (int i = 0; i < kBlock; i += lanes) {
    const auto whole = hn::NearestInt(hn::Mul(hn::LoadU(d, x + i), inverse));
    const auto coarse = hn::NearestInt(hn::Mul(hn::ConvertTo(d, whole), inverse_coarse));
    const auto fine = hn::Sub(whole, hn::Mul(coarse, hn::Set(di32, kCoarse)));
    sum = hn::Add(sum, whole);
    int8_t* to = i < 16 ? q + i : q + quarter + (i - 16);
    hn::StoreU(hn::DemoteTo(di8, coarse), di8, to);
    hn::StoreU(hn::DemoteTo(di8, fine), di8, to + 2 * quarter);
  }
  const float scale = max / kLargest;
  pair[0] = scale;
  pair[1] = scale * static_cast<float>(hn::ReduceSum(di32, sum));
}

void round_row(const float* x, void* out, int64_t n) {
  auto* q = static_cast<int8_t*>(out);
  auto* scales = reinterpret_cast<float*>(q + scales_offset(n));
  int64_t left = n / kBlock;
  for (int group = kMaxGroup; group >= 1; group /= 2) {
    for (; left >= group; left -= group) {
      for (int b = 0; b < group; ++b) {
        round_block(x + b * kBlock, q + b * 16, int64_t{group} * 16, scales + 2 * b);
      }
      x += group * kBlock;
      q += group * kRoundedBytes;
      scales += group * 2;
    }
  }
}

constexpr BlockKernels kTable = {block_dots<Q4_0>, block_dots<Q4_1>, block_dots<Q8_0>, round_row};

#else

constexpr BlockKernels kTable = {};

#endif

}  // namespace

const BlockKernels* block_table() {
  static constexpr BlockKernels kCopy = kTable;
  return &kCopy;
}

}  // namespace banyan::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace banyan {

BlockDots BlockKernels::dots(DType type) const {
  if (type == DType::kQ4_0) return dots_q4_0;
  if (type == DType::kQ4_1) return dots_q4_1;
  return type == DType::kQ8_0 ? dots_q8_0 : nullptr;
}

int64_t rounded_row_bytes(int64_t n) {
  const int64_t scale_bytes = n / block_layout::kBlock * 2 * static_cast<int64_t>(sizeof(float));
  return block_layout::scales_offset(n) + block_layout::round_up_64(scale_bytes);
}

const BlockKernels& block_kernels(Isa isa) {
#if HWY_TARGETS & HWY_AVX3
  if (isa >= Isa::kAvx512) return *N_AVX3::block_table();
#endif
#if HWY_TARGETS & HWY_AVX2
  if (isa >= Isa::kAvx2) return *N_AVX2::block_table();
#endif
  static_cast<void>(isa);
  return *HWY_STATIC_NAMESPACE::block_table();
}

}  // namespace banyan
#endif
