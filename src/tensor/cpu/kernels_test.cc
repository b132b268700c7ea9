// SPDX-License-Identifier: Apache-2.0
#include "tensor/cpu/kernels.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "tensor/cpu/testing_weights.h"

namespace banyan {
namespace {

using testing::random_floats;
using testing::runnable_isas;

// Bits of a value that is exact in f16 or bf16, written out from the formats' definitions.
double f16_value(uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const int mantissa = bits & 1023;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return bits >> 15 ? -magnitude : magnitude;
}
double bf16_value(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

struct Format {
  const char* name;
  double (*value)(uint16_t bits);
  uint16_t infinity;  // bits; the finite magnitudes are all below, in rising order
  void (*Kernels::*round)(const float*, uint16_t*, int64_t);
  void (*Kernels::*widen)(const std::byte*, float*, int64_t);
};
const Format kFormats[] = {
    {"f16", f16_value, 0x7C00, &Kernels::f32_to_f16, &Kernels::f16_to_f32},
    {"bf16", bf16_value, 0x7F80, &Kernels::f32_to_bf16, &Kernels::bf16_to_f32},
};

uint16_t rounded(const Kernels& kernels, const Format& format, float value) {
  uint16_t bits = 0;
  (kernels.*format.round)(&value, &bits, 1);
  return bits;
}

TEST(Conversions, EveryValueOfTheShortTypesSurvivesARoundTrip) {
  for (const Isa isa : runnable_isas()) {
    for (const Format& format : kFormats) {
      std::vector<uint16_t> bits;
      for (uint32_t b = 0; b < 0x10000; ++b) {
        if ((b & 0x7FFF) <= format.infinity) bits.push_back(static_cast<uint16_t>(b));
      }
      std::vector<float> values(bits.size());
      std::vector<uint16_t> back(bits.size());
      (kernels(isa).*format.widen)(reinterpret_cast<const std::byte*>(bits.data()), values.data(),
                                   static_cast<int64_t>(bits.size()));
      (kernels(isa).*format.round)(values.data(), back.data(), static_cast<int64_t>(bits.size()));
      EXPECT_EQ(bits, back) << format.name << " " << name(isa);
      for (size_t i = 0; i < bits.size(); ++i) {
        if ((bits[i] & 0x7FFF) == format.infinity) continue;
        ASSERT_EQ(values[i], format.value(bits[i])) << format.name << " " << bits[i];
      }
    }
  }
}

// All neighbours, their exact middle (which f32 can hold), and the f32 numbers next to it.
TEST(Conversions, RoundToNearestAndTiesToEven) {
  for (const Isa isa : runnable_isas()) {
    const Kernels& k = kernels(isa);
    for (const Format& format : kFormats) {
      for (uint32_t b = 0; b + 1 < format.infinity; ++b) {
        const auto low = static_cast<uint16_t>(b);
        const auto high = static_cast<uint16_t>(b + 1);
        const auto middle = static_cast<float>((format.value(low) + format.value(high)) / 2);
        const uint16_t even = b % 2 == 0 ? low : high;
        ASSERT_EQ(rounded(k, format, middle), even) << format.name << " " << name(isa) << " " << b;
        ASSERT_EQ(rounded(k, format, -middle), even | 0x8000) << format.name << " " << b;
        ASSERT_EQ(rounded(k, format, std::nextafter(middle, 0.0F)), low) << format.name << " " << b;
        ASSERT_EQ(rounded(k, format, std::nextafter(middle, INFINITY)), high)
            << format.name << " " << b;
      }
    }
  }
}

TEST(Conversions, LargeNumbersBecomeInfiniteAndNanStaysNan) {
  for (const Isa isa : runnable_isas()) {
    const Kernels& k = kernels(isa);
    EXPECT_EQ(rounded(k, kFormats[0], 65519.996F), 0x7BFF) << name(isa);
    EXPECT_EQ(rounded(k, kFormats[0], 65520.0F), 0x7C00) << name(isa);
    EXPECT_EQ(rounded(k, kFormats[0], -1e30F), 0xFC00) << name(isa);
    EXPECT_EQ(rounded(k, kFormats[1], std::numeric_limits<float>::max()), 0x7F80) << name(isa);
    for (const Format& format : kFormats) {
      EXPECT_EQ(rounded(k, format, INFINITY), format.infinity) << name(isa);
      // A NaN whose payload lies in the bits that are dropped.
      const float nan = std::bit_cast<float>(0x7F800001U);
      EXPECT_GT(rounded(k, format, nan) & 0x7FFF, format.infinity) << format.name << name(isa);
    }
  }
}

TEST(Conversions, WriteNoElementTooMany) {
  for (const Isa isa : runnable_isas()) {
    for (const Format& format : kFormats) {
      for (int64_t n = 0; n < 70; ++n) {
        const std::vector<float> in(n + 1, 1.0F);
        std::vector<uint16_t> out(n + 40, 7);
        (kernels(isa).*format.round)(in.data(), out.data(), n);
        EXPECT_EQ(std::count(out.begin(), out.end(), 7), 40) << format.name << " " << n;
      }
    }
  }
}

// The sum of n products in f32 is off by at most about n / 2 roundings of the terms' sum; with
// vectors of sums and random signs a small multiple of one rounding is what is left.
TEST(RowDots, EqualADoubleSumForEveryLengthAndType) {
  for (const Isa isa : runnable_isas()) {
    const Kernels& k = kernels(isa);
    const std::pair<DType, RowDots> types[] = {
        {DType::kF32, k.dots_f32}, {DType::kF16, k.dots_f16}, {DType::kBF16, k.dots_bf16}};
    for (const auto& [type, dots] : types) {
      for (const int64_t n : {1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 129, 577, 1536}) {
        const auto weight = testing::random_weight(type, 1, n, 5);
        const std::vector<float> w = weight.row(0);
        const int64_t stride = n + 3;
        const std::vector<float> x = random_floats(stride * 9, 6);
        std::array<float, 9> sums{};
        dots(weight.view.data, x.data(), stride, 9, n, sums.data());
        for (int r = 0; r < 9; ++r) {
          double exact = 0;
          double size = 0;
          for (int64_t i = 0; i < n; ++i) {
            exact += double{w[i]} * x[r * stride + i];
            size += std::fabs(double{w[i]} * x[r * stride + i]);
          }
          EXPECT_NEAR(sums[r], exact, 1e-6 * size) << name(isa) << " n " << n << " row " << r;
        }
      }
    }
  }
}

TEST(RowDots, ARowDoesNotDependOnItsNeighbours) {
  constexpr int64_t kLength = 577;
  for (const Isa isa : runnable_isas()) {
    const auto weight = testing::random_weight(DType::kF16, 1, kLength, 5);
    const std::vector<float> x = random_floats(kLength * 11, 6);
    std::array<float, 11> together{};
    kernels(isa).dots_f16(weight.view.data, x.data(), kLength, 11, kLength, together.data());
    for (int r = 0; r < 11; ++r) {
      float alone = 0;
      kernels(isa).dots_f16(weight.view.data, x.data() + r * kLength, kLength, 1, kLength, &alone);
      EXPECT_EQ(alone, together[r]) << name(isa) << " row " << r;
    }
  }
}

}  // namespace
}  // namespace banyan
