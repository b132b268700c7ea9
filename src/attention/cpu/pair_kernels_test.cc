// SPDX-License-Identifier: Apache-2.0
#include "attention/cpu/pair_kernels.h"

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

struct PairKernelsOfEachKind : InPairs {};

INSTANTIATE_TEST_SUITE_P(, PairKernelsOfEachKind, ::testing::ValuesIn(machine_ways()),
                         [](const auto& way) { return name(way.param); });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(PairKernelsOfEachKind);

uint16_t stored_as(DType type, float x) {
  if (type == DType::kF16) return hwy::BitCastScalar<uint16_t>(hwy::F16FromF32(x).bits);
  return hwy::BitCastScalar<uint16_t>(hwy::BF16FromF32(x).bits);
}

// Both types have it, or nearly.
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
  DType type = DType::kF16;  // or bf16
  std::vector<float> q;      // [n][head_dim]
  struct Block {
    std::vector<float> k;  // [64][head_dim]
    std::vector<float> v;
    int panel_begin = 0;
    int panel_end = kBlockPanels;
    int pieces = 1;                   // > 1: panels come in pieces of up to so many keys
    std::vector<KeyRange> visible{};  // [n]
  };
  std::vector<Block> blocks;

  Rows(int n_rows, int dim, int n_blocks, std::mt19937& random)
      : n(n_rows), head_dim(dim), q(random_values(size_t(n_rows) * dim, random)) {
    for (int i = 0; i < n_blocks; ++i) {
      blocks.push_back({random_values(size_t{kBlockTokens} * dim, random),
                        random_values(size_t{kBlockTokens} * dim, random)});
      blocks.back().pieces = n_rows % 5 == 0 ? 1 + i * 3 : 1;
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

State fold(const PairKernels& kernels, const Rows& rows, bool with_rest = false) {
  const int n_pairs = kernels.n_pairs(rows.head_dim);
  const size_t stride = (size_t(rows.head_dim) + 15) / 16 * 16;
  State state{stride, std::vector<float>(rows.n * stride, kNan),
              std::vector<float>(rows.n, -kInfinity), std::vector<float>(rows.n, 0)};
  std::vector<uint32_t> q(rows.n * size_t(n_pairs));
  std::vector<uint32_t> rest(with_rest ? q.size() : 0);
  std::vector<float> q_scales(rows.n);
  const PairRows packed{q.data(), with_rest ? rest.data() : nullptr, q_scales.data()};
  EXPECT_TRUE(kernels.pack_q(rows.q.data(), rows.n, rows.head_dim, n_pairs, packed));
  kernels.begin(rows.n);
  for (const Rows::Block& block : rows.blocks) {
    std::vector<uint32_t> k(size_t{kBlockTokens} * n_pairs, ~0U);  // NaN where nothing is
    std::vector<uint32_t> v(kBlockTokens / 2 * stride, ~0U);
    std::vector<float> k_scales(kBlockTokens, kNan);
    std::vector<float> v_scales(stride, kNan);
    const PairBlock pairs{k.data(), v.data(), stride, k_scales.data(), v_scales.data()};
    const size_t panel_size = size_t(rows.head_dim) * kPanelTokens;
    std::vector<uint16_t> panels(2 * kBlockTokens * panel_size, stored_as(rows.type, kNan));
    StoredBlock stored{.k_type = rows.type, .v_type = rows.type, .head_dim = rows.head_dim};
    const int first = block.panel_begin * kPanelTokens;
    const int last = block.panel_end * kPanelTokens;
    for (int begin = first; begin < last;) {
      // Panels in pieces where a block has them, as where a node ends inside one.
      const int whole = begin - begin % kPanelTokens + kPanelTokens;
      const int end = block.pieces > 1 ? std::min(whole, begin + 1 + begin % block.pieces) : whole;
      uint16_t* k_panel = &panels[2 * stored.n_pieces * panel_size];
      uint16_t* v_panel = k_panel + panel_size;
      for (int key = begin; key < end; ++key) {
        const int slot = key % kPanelTokens;
        for (int d = 0; d < rows.head_dim; ++d) {
          const size_t from = size_t(key) * rows.head_dim + d;
          k_panel[d * kPanelTokens + slot] = stored_as(rows.type, block.k[from]);
          v_panel[slot * rows.head_dim + d] = stored_as(rows.type, block.v[from]);
        }
      }
      stored.pieces[stored.n_pieces++] = {k_panel, v_panel, begin, end};
      begin = end;
    }
    EXPECT_TRUE(kernels.pack_block(stored, n_pairs, pairs));
    LinesAhead ahead;
    ahead.add(k.data(), k.size() * sizeof(uint32_t) - 1);
    ahead.add(v.data(), 1);
    kernels.fold_block(pairs, packed, block.visible.data(), rows.n, rows.head_dim, rows.softcap,
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

// Weights are rounded to 8 bits in bf16, to 12 of the largest as whole numbers; what adds them up
// to l is what they multiply. Whole numbers of q and K are off by some 1e-4 of a score, too.
void expect_near_truth(const PairKernels& kernels, const Rows& rows, const State& state) {
  for (int row = 0; row < rows.n; ++row) {
    const Truth truth = attend(rows, row);
    if (truth.lse == -kInfinity) {
      ASSERT_EQ(state.m[row], -kInfinity) << row;
      ASSERT_EQ(state.l[row], 0) << row;
      continue;
    }
    const double of_score = 1.5e-4 * std::abs(truth.lse);
    const double lse_bound = kernels.is_bf16 ? 4e-3 : 5e-4 + of_score;
    const double bound = kernels.is_bf16 ? 1e-2 : 1e-3 + of_score;
    ASSERT_NEAR(state.m[row] + std::log(state.l[row]), truth.lse, lse_bound) << row;
    for (int d = 0; d < rows.head_dim; ++d) {
      ASSERT_NEAR(state.o[row * state.stride + d] / state.l[row], truth.out[d], bound)
          << "row " << row << " of " << rows.n << " dimension " << d << " of " << rows.head_dim;
    }
  }
}

TEST_P(PairKernelsOfEachKind, AgreeWithSoftmaxForEveryNumberOfRowsAndHeadSize) {
  for (int n = 1; n <= 130; ++n) {
    std::mt19937 random(n);
    for (int i = 0; i < 3; ++i) {
      Rows rows(n, kHeadDims[(3 * n + i) % std::size(kHeadDims)], 3, random);
      if (random() % 3 == 0) rows.softcap = 3;
      if (i == 2) rows.type = DType::kBF16;
      if (i > 0) rows.draw_panels_and_ranges(random);
      expect_near_truth(*kernels_, rows, fold(*kernels_, rows));
    }
  }
}

TEST_P(PairKernelsOfEachKind, TakeTwiceTheBitsOfQWhereAskedTo) {
  for (int n : {1, 6, 20, 64}) {
    std::mt19937 random(n);
    Rows rows(n, n == 20 ? 40 : 64, 3, random);
    // Scores of some 20: what bf16 leaves of q is worth several percent of a weight.
    for (float& x : rows.q) x *= 20 * (1 + 1.0f / 300);
    expect_near_truth(*kernels_, rows, fold(*kernels_, rows, true));
  }
}

TEST_P(PairKernelsOfEachKind, GiveARowTheSameStateWhateverRowsAreWithIt) {
  for (int n : {2, 16, 17, 33, 45, 64, 100}) {
    std::mt19937 random(n);
    Rows rows(n, n % 2 == 0 ? 80 : 64, 3, random);
    rows.draw_panels_and_ranges(random);
    if (kernels_->is_bf16) {  // the others take finite rows only
      rows.q[0] = kNan;
      rows.q[(n - 1) * rows.head_dim] = kInfinity;
    }
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

TEST_P(PairKernelsOfEachKind, StayCloseWithExtremeScores) {
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
    expect_near_truth(*kernels_, rows, fold(*kernels_, rows));
  }
}

struct IntegerKernels : InPairs {};

INSTANTIATE_TEST_SUITE_P(, IntegerKernels, ::testing::ValuesIn(machine_ways({PairWay::kIntegers})),
                         [](const auto& way) { return name(way.param); });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(IntegerKernels);

TEST_P(IntegerKernels, HoldTheLargestSumsThatThereCanBe) {
  // Rows along a key that is as large in every dimension, weights of one, values all alike.
  for (int head_dim : {1, 16, 64, 100, 128, 256}) {
    std::mt19937 random(1);
    Rows rows(7, head_dim, 2, random);
    for (float sign : {1.0F, -1.0F}) {
      std::fill(rows.q.begin(), rows.q.end(), 0.25F);
      for (Rows::Block& block : rows.blocks) {
        std::fill(block.k.begin(), block.k.end(), sign * 2);
        std::fill(block.v.begin(), block.v.end(), -3.0F);
      }
      const State state = fold(*kernels_, rows);
      for (int row = 0; row < rows.n; ++row) {
        const double score = sign * 0.5 * head_dim;
        ASSERT_NEAR(state.m[row] + std::log(state.l[row]), score + std::log(128.0),
                    1e-4 * (1 + std::abs(score)))
            << head_dim;
        for (int d = 0; d < head_dim; ++d) {
          ASSERT_NEAR(state.o[row * state.stride + d] / state.l[row], -3, 1e-3) << head_dim;
        }
      }
    }
  }
}

TEST_P(IntegerKernels, KeepWhatIsSmallBesideOtherKeysAndColumns) {
  // Keys, columns of V and rows whose sizes lie far apart each have a scale of their own; so has
  // the weight of each block, whose largest may be far below the one before.
  for (DType type : {DType::kF16, DType::kBF16}) {
    const int span = type == DType::kF16 ? 8 : 20;  // binary orders between keys
    std::mt19937 random(3);
    Rows rows(12, 64, 4, random);
    rows.type = type;
    for (int row = 0; row < rows.n; ++row) {
      for (int d = 0; d < 64; ++d) rows.q[row * 64 + d] *= std::ldexp(1.0F, row - 6);
    }
    const auto column_size = [&](int d) { return std::ldexp(1.0F, d % span - span / 2); };
    for (size_t i = 0; i < rows.blocks.size(); ++i) {
      Rows::Block& block = rows.blocks[i];
      for (int key = 0; key < kBlockTokens; ++key) {
        const float size = std::ldexp(1.0F, -(key % span) - int(i));
        for (int d = 0; d < 64; ++d) {
          block.k[key * 64 + d] *= size;
          block.v[key * 64 + d] *= column_size(d);
        }
      }
    }
    const State state = fold(*kernels_, rows);
    for (int row = 0; row < rows.n; ++row) {
      const Truth truth = attend(rows, row);
      const double bound = 1e-3 + 3e-4 * std::abs(truth.lse);
      ASSERT_NEAR(state.m[row] + std::log(state.l[row]), truth.lse, bound);
      for (int d = 0; d < 64; ++d) {
        ASSERT_NEAR(state.o[row * state.stride + d] / state.l[row] / column_size(d),
                    truth.out[d] / column_size(d), bound);
      }
    }
  }
}

TEST_P(IntegerKernels, DeclineWhatIsNotFiniteOrTooLarge) {
  constexpr int kDim = 40;
  const int n_pairs = kernels_->n_pairs(kDim);
  std::vector<uint32_t> q(n_pairs);
  std::vector<float> q_scales(1);
  for (float bad : {kNan, kInfinity, -kInfinity, 1e20F}) {
    for (int at : {0, 17, kDim - 1}) {
      std::vector<float> row(kDim, 1);
      row[at] = bad;
      EXPECT_FALSE(
          kernels_->pack_q(row.data(), 1, kDim, n_pairs, {q.data(), nullptr, &q_scales[0]}));
    }
  }
  std::vector<uint32_t> k(size_t{kBlockTokens} * n_pairs);
  std::vector<uint32_t> v(kBlockTokens / 2 * 48);
  std::vector<float> k_scales(kBlockTokens);
  std::vector<float> v_scales(48);
  const PairBlock out{k.data(), v.data(), 48, k_scales.data(), v_scales.data()};
  const auto packs = [&](DType type, bool in_k, size_t index, float number) {
    std::vector<uint16_t> panels(2 * kDim * kPanelTokens, stored_as(type, 1));
    StoredBlock stored{.n_pieces = 1, .k_type = type, .v_type = type, .head_dim = kDim};
    stored.pieces[0] = {&panels[0], &panels[kDim * kPanelTokens], 2, 14};
    panels[in_k ? index : kDim * kPanelTokens + index] = stored_as(type, number);
    return kernels_->pack_block(stored, n_pairs, out);
  };
  for (DType type : {DType::kF16, DType::kBF16}) {
    for (float bad : {kNan, kInfinity, -kInfinity, 1e31F}) {  // infinite in f16
      for (int slot = 0; slot < kPanelTokens; ++slot) {
        const bool is_key = slot >= 2 && slot < 14;  // others hold anything
        for (int d : {0, 1, 31, 32, kDim - 1}) {
          EXPECT_EQ(packs(type, true, d * kPanelTokens + slot, bad), !is_key) << slot << " " << d;
          EXPECT_EQ(packs(type, false, slot * kDim + d, bad), !is_key) << slot << " " << d;
        }
      }
    }
  }
}

}  // namespace
}  // namespace banyan::testing
