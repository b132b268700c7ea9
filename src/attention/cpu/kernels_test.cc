// SPDX-License-Identifier: Apache-2.0
#include "attention/cpu/kernels.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace banyan {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class KernelsOfEachIsa : public ::testing::TestWithParam<Isa> {
 protected:
  const AttentionKernels& kernels_ = attention_kernels(GetParam());
};

std::vector<Isa> machine_isas() {
  std::vector<Isa> isas{Isa::kBaseline};
  for (Isa isa : {Isa::kSse4, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (isa <= detect_isa()) isas.push_back(isa);
  }
  return isas;
}

INSTANTIATE_TEST_SUITE_P(, KernelsOfEachIsa, ::testing::ValuesIn(machine_isas()),
                         [](const auto& isa_info) { return std::string(name(isa_info.param)); });

double ulps(float got, double truth) {
  const float nearest = static_cast<float>(truth);
  const double ulp = std::nextafter(nearest, kInfinity) - nearest;
  return std::abs(got - truth) / ulp;
}

TEST_P(KernelsOfEachIsa, SoftmaxExponentialsAreWithinTwoUlps) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(0, 87.3f);
  double worst = 0;
  for (int round = 0; round < 3000; ++round) {
    std::array<float, kBlockTokens> scores;
    for (float& s : scores) s = round % 2 == 0 ? -uniform(random) : -uniform(random) * 1e-2f;
    scores[round % kBlockTokens] = 0;  // the maximum
    const std::array<float, kBlockTokens> x = scores;
    const KeyRange all{0, kBlockTokens};
    float m;
    float l;
    kernels_.softmax(scores.data(), &all, 1, 0, &m, &l);
    EXPECT_EQ(m, 0);
    EXPECT_EQ(scores[round % kBlockTokens], 1.0f);
    double sum = 0;
    for (int i = 0; i < kBlockTokens; ++i) {
      worst = std::max(worst, ulps(scores[i], std::exp(double{x[i]})));
      sum += std::exp(double{x[i]});
    }
    EXPECT_NEAR(l / sum, 1, 1e-6);
  }
  EXPECT_LE(worst, 2.0);
}

TEST_P(KernelsOfEachIsa, SoftmaxGivesZeroFarBelowTheMaximumAndOutsideTheRange) {
  for (const KeyRange visible : {KeyRange{0, 64}, {5, 6}, {17, 33}, {0, 1}, {63, 64}}) {
    std::array<float, kBlockTokens> scores;
    for (int i = 0; i < kBlockTokens; ++i) {
      const bool inside = i >= visible.begin && i < visible.end;
      scores[i] = !inside ? (i % 2 == 0 ? kNan : kInfinity) : i == visible.begin ? 500.0f : -500.0f;
    }
    float m;
    float l;
    kernels_.softmax(scores.data(), &visible, 1, 0, &m, &l);
    EXPECT_EQ(m, 500);
    EXPECT_EQ(l, 1);
    for (int i = 0; i < kBlockTokens; ++i) EXPECT_EQ(scores[i], i == visible.begin ? 1.0f : 0.0f);
  }
}

TEST_P(KernelsOfEachIsa, SoftmaxOfARowThatSeesNothingIsTheEmptyState) {
  std::array<float, kBlockTokens> scores;
  scores.fill(kNan);
  const KeyRange none{};
  float m = 3;
  float l = 3;
  kernels_.softmax(scores.data(), &none, 1, 0, &m, &l);
  EXPECT_EQ(m, -kInfinity);
  EXPECT_EQ(l, 0);
}

TEST_P(KernelsOfEachIsa, SoftcapFollowsTanh) {
  for (float cap : {1.0f, 30.0f, 50.0f}) {
    std::array<float, kBlockTokens> scores;
    for (int i = 0; i < kBlockTokens; ++i) scores[i] = (i - 40) * std::abs(i - 40) * 0.3f;
    const std::array<float, kBlockTokens> x = scores;
    const KeyRange all{0, kBlockTokens};
    float m;
    float l;
    kernels_.softmax(scores.data(), &all, 1, cap, &m, &l);
    double max = -kInfinity;
    for (float s : x) max = std::max(max, cap * std::tanh(double{s} / cap));
    EXPECT_NEAR(m, max, 1e-6 * cap);
    for (int i = 0; i < kBlockTokens; ++i) {
      const double p = std::exp(cap * std::tanh(double{x[i]} / cap) - max);
      EXPECT_NEAR(scores[i], p, 1e-6 * cap) << "cap " << cap << " score " << x[i];
    }
  }
}

TEST_P(KernelsOfEachIsa, FoldIntoAnEmptyStateCopiesAndFromAnEmptyOneChangesNothing) {
  for (int dim : {1, 7, 16, 33, 64}) {
    std::vector<float> from(dim, -0.0f);
    for (int d = 1; d < dim; ++d) from[d] = 0.1f * d;
    std::vector<float> into(dim, kNan);
    float from_m = -3;
    float from_l = 2;
    float into_m = -kInfinity;
    float into_l = 0;
    kernels_.fold({from.data(), size_t(dim), &from_m, &from_l}, 1, dim,
                  {into.data(), size_t(dim), &into_m, &into_l});
    EXPECT_EQ(0, std::memcmp(from.data(), into.data(), dim * sizeof(float)));
    EXPECT_EQ(into_m, -3);
    EXPECT_EQ(into_l, 2);

    const std::vector<float> before = into;
    std::fill(from.begin(), from.end(), kNan);
    from_m = -kInfinity;
    from_l = 0;
    kernels_.fold({from.data(), size_t(dim), &from_m, &from_l}, 1, dim,
                  {into.data(), size_t(dim), &into_m, &into_l});
    EXPECT_EQ(0, std::memcmp(before.data(), into.data(), dim * sizeof(float)));
    EXPECT_EQ(into_m, -3);
    EXPECT_EQ(into_l, 2);
  }
}

TEST_P(KernelsOfEachIsa, FoldWeighsByTheLargerMaximumAndKeepsBothSidesOfTheRow) {
  const int dim = 19;
  for (float difference : {-200.0f, -3.0f, 0.0f, 2.5f, 300.0f}) {
    std::vector<float> from(dim + 1, 2.0f);
    std::vector<float> into(dim + 1, 3.0f);
    float from_m = 10 + difference;
    float from_l = 5;
    float into_m = 10;
    float into_l = 7;
    kernels_.fold({from.data(), size_t(dim), &from_m, &from_l}, 1, dim,
                  {into.data(), size_t(dim), &into_m, &into_l});
    const double m = std::max(10.0, 10.0 + difference);
    const double a = std::exp(10 - m);
    const double b = std::exp(10 + difference - m);
    EXPECT_EQ(into_m, static_cast<float>(m));
    EXPECT_NEAR(into_l, 7 * a + 5 * b, 1e-5);
    for (int d = 0; d < dim; ++d) EXPECT_NEAR(into[d], 3 * a + 2 * b, 1e-5);
    EXPECT_EQ(into[dim], 3.0f);  // one past the row
  }
}

TEST_P(KernelsOfEachIsa, PackingPutsTwoHalvesOfAPanelTogether) {
  for (int head_dim : {1, 5, 16, 40}) {
    const size_t stride = (size_t(head_dim) + 15) / 16 * 16;
    for (int border = 1; border < kPanelTokens; ++border) {
      std::vector<float> left(head_dim * kPanelTokens, kNan);
      std::vector<float> right(left);
      const auto value = [](int d, int slot) { return d + 0.01f * slot; };
      for (int d = 0; d < head_dim; ++d) {
        for (int slot = 0; slot < kPanelTokens; ++slot) {
          (slot < border ? left : right)[d * kPanelTokens + slot] = value(d, slot);
        }
      }
      std::vector<float> k(head_dim * kPanelTokens, kNan);
      kernels_.pack_k(DType::kF32, left.data(), head_dim, 0, border, k.data());
      kernels_.pack_k(DType::kF32, right.data(), head_dim, border, kPanelTokens, k.data());
      for (int d = 0; d < head_dim; ++d) {
        for (int slot = 0; slot < kPanelTokens; ++slot) {
          EXPECT_EQ(k[d * kPanelTokens + slot], value(d, slot));
        }
      }
      for (int slot = 0; slot < kPanelTokens; ++slot) {
        for (int d = 0; d < head_dim; ++d) left[slot * head_dim + d] = value(d, slot);
      }
      std::vector<float> v(stride * kPanelTokens, kNan);
      kernels_.pack_v(DType::kF32, left.data(), head_dim, 0, border, stride, v.data());
      kernels_.pack_v(DType::kF32, left.data(), head_dim, border, kPanelTokens, stride, v.data());
      for (int slot = 0; slot < kPanelTokens; ++slot) {
        for (int d = 0; d < int(stride); ++d) {
          EXPECT_EQ(v[slot * stride + d], d < head_dim ? value(d, slot) : 0.0f);
        }
      }
    }
  }
}

TEST_P(KernelsOfEachIsa, ScoresOfARowAreTheSameInATileOfAnyHeight) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0, 1);
  const int head_dim = 37;
  std::vector<float> k(kBlockTokens * head_dim);
  std::vector<float> q(20 * head_dim);
  for (float& x : k) x = normal(random);
  for (float& x : q) x = normal(random);
  KvBlock block{.panel_end = kBlockPanels};
  for (int i = 0; i < kBlockPanels; ++i) block.k[i] = k.data() + i * kPanelTokens * head_dim;
  std::vector<float> alone(20 * kBlockTokens);
  for (int row = 0; row < 20; ++row) {
    kernels_.scores(block, &q[row * head_dim], 1, head_dim, &alone[row * kBlockTokens]);
  }
  for (int n = 1; n <= 20; ++n) {
    std::vector<float> together(20 * kBlockTokens);
    kernels_.scores(block, q.data(), n, head_dim, together.data());
    EXPECT_EQ(0, std::memcmp(alone.data(), together.data(), n * kBlockTokens * sizeof(float)));
  }
}

TEST(Kernels, OfAnIsaAreThoseOfTheBestTargetBelowIt) {
  EXPECT_EQ(&attention_kernels(Isa::kBaseline), &attention_kernels(Isa::kSse4));
  EXPECT_EQ(&attention_kernels(Isa::kAvx512), &attention_kernels(Isa::kAmx));
#if defined(__x86_64__) && !defined(__AVX2__)
  EXPECT_NE(&attention_kernels(Isa::kSse4), &attention_kernels(Isa::kAvx2));
  EXPECT_NE(&attention_kernels(Isa::kAvx2), &attention_kernels(Isa::kAvx512));
#endif
}

}  // namespace
}  // namespace banyan
