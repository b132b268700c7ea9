// SPDX-License-Identifier: Apache-2.0
#include "attention/cpu/bf16_kernels.h"

#include <gtest/gtest.h>
#include <hwy/base.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "attention/cpu/testing_tiles.h"

namespace banyan::testing {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr int kHeadDims[] = {16, 24, 32, 40, 64, 72, 80, 96, 100, 112, 128, 176, 255, 256, 1, 17};

struct Bf16KernelsOfEachKind : InBf16 {};

INSTANTIATE_TEST_SUITE_P(, Bf16KernelsOfEachKind, ::testing::ValuesIn(machine_ways()),
                         [](const auto& way) { return name(way.param); });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Bf16KernelsOfEachKind);

float rounded(float x) { return hwy::F32FromBF16(hwy::BF16FromF32(x)); }

std::vector<float> random_values(size_t n, std::mt19937& random) {
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> values(n);
  for (float& x : values) x = rounded(normal(random));
  return values;
}

// Rows and blocks of 64 keys, of which panels outside [panel_begin, panel_end) are not there.
struct Rows {
  int n;
  int head_dim;
  float softcap = 0;
  std::vector<float> q;  // [n][head_dim]
  struct Block {
    std::vector<float> k;  // [64][head_dim]
    std::vector<float> v;
    int panel_begin = 0;
    int panel_end = kBlockPanels;
    std::vector<KeyRange> visible{};  // [n]
  };
  std::vector<Block> blocks;

  Rows(int n_rows, int dim, int n_blocks, std::mt19937& random)
      : n(n_rows), head_dim(dim), q(random_values(size_t(n_rows) * dim, random)) {
    for (int i = 0; i < n_blocks; ++i) {
      blocks.push_back({random_values(size_t{kBlockTokens} * dim, random),
                        random_values(size_t{kBlockTokens} * dim, random)});
      blocks.back().visible.assign(n, {0, kBlockTokens});
    }
    for (float& x : q) x = rounded(x / std::sqrt(float(dim)));
  }

  void draw_panels_and_ranges(std::mt19937& random) {
    for (Block& block : blocks) {
      block.panel_begin = int(random() % kBlockPanels);
      block.panel_end = block.panel_begin + 1 + int(random() % (kBlockPanels - block.panel_begin));
      const int first = block.panel_begin * kPanelTokens;
      const int last = block.panel_end * kPanelTokens;
      for (KeyRange& range : block.visible) {
        range.begin = first + int(random() % (last - first));
        range.end = range.begin + int(random() % (last - range.begin + 1));
        if (range.begin == range.end || random() % 8 == 0) range = {};
        if (random() % 4 == 0) range = {first, last};
      }
    }
  }

  Rows some(int begin, int end) const {
    Rows rows = *this;
    rows.n = end - begin;
    rows.q.assign(q.begin() + begin * head_dim, q.begin() + end * head_dim);
    for (size_t i = 0; i < blocks.size(); ++i) {
      const std::vector<KeyRange>& visible = blocks[i].visible;
      rows.blocks[i].visible.assign(visible.begin() + begin, visible.begin() + end);
    }
    return rows;
  }
};

struct State {
  size_t stride;
  std::vector<float> o;  // [n][stride]
  std::vector<float> m;
  std::vector<float> l;
};

State fold(const Bf16Kernels& kernels, const Rows& rows, bool with_rest = false) {
  const int n_pairs = kernels.n_pairs(rows.head_dim);
  const size_t stride = (size_t(rows.head_dim) + 15) / 16 * 16;
  State state{stride, std::vector<float>(rows.n * stride, kNan),
              std::vector<float>(rows.n, -kInfinity), std::vector<float>(rows.n, 0)};
  std::vector<uint32_t> q(rows.n * size_t(n_pairs));
  std::vector<uint32_t> q_rest(with_rest ? q.size() : 0);
  uint32_t* rest = with_rest ? q_rest.data() : nullptr;
  kernels.pack_q(rows.q.data(), rows.n, rows.head_dim, n_pairs, q.data(), rest);
  kernels.begin(rows.n);
  for (const Rows::Block& block : rows.blocks) {
    const size_t k_size = n_pairs * kPanelTokens;
    const size_t v_size = kPanelTokens / 2 * stride;
    std::vector<uint32_t> k(kBlockPanels * k_size, ~0U);  // NaN where nothing is
    std::vector<uint32_t> v(kBlockPanels * v_size, ~0U);
    // Zero beside what is there.
    std::fill(v.begin() + block.panel_begin / 2 * 2 * v_size,
              v.begin() + (block.panel_end + 1) / 2 * 2 * v_size, 0);
    std::vector<hwy::bfloat16_t> k_panel(rows.head_dim * kPanelTokens);
    std::vector<hwy::bfloat16_t> v_panel(rows.head_dim * kPanelTokens);
    for (int panel = block.panel_begin; panel < block.panel_end; ++panel) {
      for (int slot = 0; slot < kPanelTokens; ++slot) {
        for (int d = 0; d < rows.head_dim; ++d) {
          const size_t from = size_t(panel * kPanelTokens + slot) * rows.head_dim + d;
          k_panel[d * kPanelTokens + slot] = hwy::BF16FromF32(block.k[from]);
          v_panel[slot * rows.head_dim + d] = hwy::BF16FromF32(block.v[from]);
        }
      }
      kernels.pack_k(DType::kBF16, k_panel.data(), rows.head_dim, n_pairs, &k[panel * k_size]);
      EXPECT_TRUE(kernels.pack_v(DType::kBF16, v_panel.data(), rows.head_dim, 0, kPanelTokens,
                                 stride, &v[panel * v_size]));
    }
    LinesAhead ahead;
    ahead.add(k.data(), k.size() * sizeof(uint32_t) - 1);
    ahead.add(v.data(), 1);
    kernels.fold_block({k.data(), v.data(), stride}, q.data(), rest, block.visible.data(), rows.n,
                       rows.head_dim, rows.softcap,
                       {state.o.data(), stride, state.m.data(), state.l.data()}, ahead);
  }
  kernels.end();
  return state;
}

// What the state of a row stands for, in double.
struct Truth {
  double lse = -kInfinity;
  std::vector<double> out;
};

Truth attend(const Rows& rows, int row) {
  Truth truth{-kInfinity, std::vector<double>(rows.head_dim, 0.0)};
  double sum = 0;
  for (const Rows::Block& block : rows.blocks) {
    for (int key = block.visible[row].begin; key < block.visible[row].end; ++key) {
      double score = 0;
      for (int d = 0; d < rows.head_dim; ++d) {
        score += double{rows.q[row * rows.head_dim + d]} * block.k[key * rows.head_dim + d];
      }
      if (rows.softcap > 0) score = rows.softcap * std::tanh(score / rows.softcap);
      const double weight = std::exp(score);
      sum += weight;
      for (int d = 0; d < rows.head_dim; ++d) {
        truth.out[d] += weight * block.v[key * rows.head_dim + d];
      }
    }
  }
  for (double& x : truth.out) x /= sum;
  truth.lse = std::log(sum);
  return truth;
}

// Weights are rounded to 8 bits; what adds them up to l is what they multiply.
void expect_near_truth(const Rows& rows, const State& state) {
  for (int row = 0; row < rows.n; ++row) {
    const Truth truth = attend(rows, row);
    if (truth.lse == -kInfinity) {
      ASSERT_EQ(state.m[row], -kInfinity) << row;
      ASSERT_EQ(state.l[row], 0) << row;
      continue;
    }
    ASSERT_NEAR(state.m[row] + std::log(state.l[row]), truth.lse, 4e-3) << row;
    for (int d = 0; d < rows.head_dim; ++d) {
      ASSERT_NEAR(state.o[row * state.stride + d] / state.l[row], truth.out[d], 1e-2)
          << "row " << row << " of " << rows.n << " dimension " << d << " of " << rows.head_dim;
    }
  }
}

TEST_P(Bf16KernelsOfEachKind, AgreeWithSoftmaxForEveryNumberOfRowsAndHeadSize) {
  for (int n = 1; n <= 130; ++n) {
    std::mt19937 random(n);
    for (int i = 0; i < 3; ++i) {
      Rows rows(n, kHeadDims[(3 * n + i) % std::size(kHeadDims)], 3, random);
      if (random() % 3 == 0) rows.softcap = 3;
      if (i > 0) rows.draw_panels_and_ranges(random);
      expect_near_truth(rows, fold(*kernels_, rows));
    }
  }
}

TEST_P(Bf16KernelsOfEachKind, TakeTwiceTheBitsOfQWhereAskedTo) {
  for (int n : {1, 6, 20, 64}) {
    std::mt19937 random(n);
    Rows rows(n, n == 20 ? 40 : 64, 3, random);
    // Scores of some 20: what bf16 leaves of q is worth several percent of a weight.
    for (float& x : rows.q) x *= 20 * (1 + 1.0f / 300);
    expect_near_truth(rows, fold(*kernels_, rows, true));
  }
}

TEST_P(Bf16KernelsOfEachKind, GiveARowTheSameStateWhateverRowsAreWithIt) {
  for (int n : {2, 16, 17, 33, 45, 64, 100}) {
    std::mt19937 random(n);
    Rows rows(n, n % 2 == 0 ? 80 : 64, 3, random);
    rows.draw_panels_and_ranges(random);
    rows.q[0] = kNan;
    rows.q[(n - 1) * rows.head_dim] = kInfinity;
    const State together = fold(*kernels_, rows);
    for (int row = 1; row < n - 1; ++row) {
      const State alone = fold(*kernels_, rows.some(row, row + 1));
      ASSERT_EQ(together.m[row], alone.m[0]) << row;
      ASSERT_EQ(together.l[row], alone.l[0]) << row;
      if (alone.m[0] == -kInfinity) continue;
      for (int d = 0; d < rows.head_dim; ++d) {
        ASSERT_EQ(together.o[row * together.stride + d], alone.o[d]) << row;
      }
    }
  }
}

TEST_P(Bf16KernelsOfEachKind, StayCloseWithExtremeScores) {
  // Scores of +-80: all alike, alternating, one far above the others; and denormals.
  for (int kind = 0; kind < 4; ++kind) {
    std::mt19937 random(kind);
    Rows rows(20, 32, 2, random);
    std::fill(rows.q.begin(), rows.q.end(), 1.0f);
    int i = 0;
    for (Rows::Block& block : rows.blocks) {
      for (int key = 0; key < kBlockTokens; ++key, ++i) {
        float k = 2.5f;  // score 2.5 * 32 = 80
        if (kind == 1 && i % 2 != 0) k = -2.5f;
        if (kind == 2 && i != 77) k = -2.5f;
        if (kind == 3) k = 1e-40f;
        std::fill_n(block.k.begin() + key * 32, 32, rounded(k));
      }
    }
    expect_near_truth(rows, fold(*kernels_, rows));
  }
}

}  // namespace
}  // namespace banyan::testing
