// SPDX-License-Identifier: Apache-2.0
#include "model/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace banyan {
namespace {

RopeSettings settings(int rot_dim, double base) {
  RopeSettings s;
  s.rot_dim = rot_dim;
  s.freq_base = base;
  return s;
}

struct Angles {
  std::vector<float> cos;
  std::vector<float> sin;
};

Angles angles_at(const Rope& rope, std::vector<Position> positions) {
  Angles angles;
  const RopeAngles view = rope.angles(positions, angles.cos, angles.sin);
  EXPECT_EQ(view.cos, angles.cos.data());
  EXPECT_EQ(view.sin, angles.sin.data());
  return angles;
}

TEST(Rope, PlainAnglesFollowTheFormula) {
  const Rope rope(settings(64, 100000), {});
  const Angles found = angles_at(rope, {0, 1, 8191});
  for (const Position row : {0, 1, 2}) {
    const double position = row == 2 ? 8191 : row;
    for (int i = 0; i < 32; ++i) {
      const double angle = position / std::pow(100000.0, 2.0 * i / 64);
      EXPECT_NEAR(found.cos[row * 32 + i], std::cos(angle), 1e-6);
      EXPECT_NEAR(found.sin[row * 32 + i], std::sin(angle), 1e-6);
    }
  }
}

TEST(Rope, LinearScalingStretchesPositions) {
  RopeSettings scaled = settings(32, 10000);
  scaled.scaling = RopeScaling::kLinear;
  scaled.factor = 4;
  const Angles found = angles_at(Rope(scaled, {}), {400});
  const Angles want = angles_at(Rope(settings(32, 10000), {}), {100});
  for (int i = 0; i < 16; ++i) EXPECT_NEAR(found.cos[i], want.cos[i], 1e-6);
}

TEST(Rope, DivisorsSlowTheirPairs) {
  const std::vector<float> divisors = {1, 2, 4, 8};
  const Angles found = angles_at(Rope(settings(8, 500000), divisors), {40});
  for (int i = 0; i < 4; ++i) {
    const double angle = 40 / std::pow(500000.0, 2.0 * i / 8) / divisors[i];
    EXPECT_NEAR(found.sin[i], std::sin(angle), 1e-6);
  }
}

// The ends of YaRN's ramp (section 3.2): fast pairs keep their frequency, slow ones are divided by
// the factor, and all are scaled by 0.1 ln(factor) + 1 (section 3.4).
TEST(Rope, YarnKeepsFastPairsAndDividesSlowOnes) {
  RopeSettings yarn = settings(128, 10000);
  yarn.scaling = RopeScaling::kYarn;
  yarn.factor = 8;
  yarn.original_context = 4096;
  const Angles found = angles_at(Rope(yarn, {}), {1});
  const double attention = 0.1 * std::log(8.0) + 1;
  EXPECT_NEAR(found.sin[0], std::sin(1.0) * attention, 1e-6);
  const double slowest = std::pow(10000.0, -126.0 / 128);
  EXPECT_NEAR(found.sin[63], std::sin(slowest / 8) * attention, 1e-9);
  // Between the ends frequencies lie between the two and fall with the pair's index.
  for (int i = 1; i < 64; ++i) {
    const double frequency = std::pow(10000.0, -2.0 * i / 128);
    EXPECT_LE(found.sin[i], std::sin(frequency) * attention * 1.0001);
    EXPECT_GE(found.sin[i], std::sin(frequency / 8) * attention * 0.9999);
    EXPECT_LT(found.sin[i], found.sin[i - 1]);
  }
}

TEST(Rope, YarnWithoutExtensionIsLinearWithItsAttentionFactor) {
  RopeSettings yarn = settings(32, 10000);
  yarn.scaling = RopeScaling::kYarn;
  yarn.factor = 4;
  yarn.original_context = 1024;
  yarn.ext_factor = 0;
  yarn.attn_factor = 1.5;
  RopeSettings linear = settings(32, 10000);
  linear.scaling = RopeScaling::kLinear;
  linear.factor = 4;
  const Angles a = angles_at(Rope(yarn, {}), {77});
  const Angles b = angles_at(Rope(linear, {}), {77});
  for (int i = 0; i < 16; ++i) EXPECT_NEAR(a.cos[i], 1.5 * b.cos[i], 1e-6);
}

// The three bands of the published code, written the other way around: by wave length.
TEST(Rope, Llama3DivisorsKeepShortWavesAndStretchLongOnes) {
  constexpr double kFactor = 8, kOriginal = 128, kLow = 1, kHigh = 4;
  const std::vector<float> found = llama3_divisors(32, 500000, kFactor, kOriginal, kLow, kHigh);
  ASSERT_EQ(found.size(), 16U);
  int bands[3] = {};
  for (int i = 0; i < 16; ++i) {
    const double wave = 2 * 3.14159265358979323846 * std::pow(500000.0, 2.0 * i / 32);
    double divisor = 0;
    if (wave < kOriginal / kHigh) {
      divisor = 1;
      ++bands[0];
    } else if (wave > kOriginal / kLow) {
      divisor = kFactor;
      ++bands[2];
    } else {
      const double smooth = (kOriginal / wave - kLow) / (kHigh - kLow);
      divisor = 1 / ((1 - smooth) / kFactor + smooth);
      ++bands[1];
    }
    EXPECT_NEAR(found[i], divisor, 1e-5 * divisor) << i;
  }
  EXPECT_TRUE(bands[0] > 0 && bands[1] > 0 && bands[2] > 0);
}

TEST(Rope, TheAttentionFactorScalesAnyAngles) {
  RopeSettings scaled = settings(8, 10000);
  scaled.attn_factor = 1.5;
  const Angles found = angles_at(Rope(scaled, {}), {3});
  const Angles plain = angles_at(Rope(settings(8, 10000), {}), {3});
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(found.cos[i], 1.5 * plain.cos[i], 1e-6);
}

TEST(Rope, ValidateRefusesWhatIsNoNumberOrOutOfRange) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double inf = std::numeric_limits<double>::infinity();
  EXPECT_TRUE(validate(settings(64, 10000)).has_value());
  EXPECT_FALSE(validate(settings(63, 10000)).has_value());
  EXPECT_FALSE(validate(settings(-2, 10000)).has_value());
  for (const double base : {0.0, 1.0, -5.0, nan, inf}) {
    EXPECT_FALSE(validate(settings(64, base)).has_value()) << base;
  }
  for (const double factor : {0.0, -1.0, nan, inf, 1e9}) {
    RopeSettings s = settings(64, 10000);
    s.factor = factor;
    EXPECT_FALSE(validate(s).has_value()) << factor;
  }
  RopeSettings yarn = settings(64, 10000);
  yarn.scaling = RopeScaling::kYarn;
  EXPECT_FALSE(validate(yarn).has_value());
  yarn.original_context = 4096;
  EXPECT_TRUE(validate(yarn).has_value());
  yarn.ext_factor = 2;
  EXPECT_FALSE(validate(yarn).has_value());
}

}  // namespace
}  // namespace banyan
