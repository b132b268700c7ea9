// SPDX-License-Identifier: Apache-2.0
#include "tensor/cpu/cpu_ops.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "tensor/cpu/testing_weights.h"

namespace banyan {
namespace {

using testing::name_of;
using testing::random_floats;
using testing::random_weight;
using testing::runnable_isas;

// Runs a test body for every instruction set and for one to three threads.
template <class F>
void for_each_machine(F body) {
  for (const Isa isa : runnable_isas()) {
    for (int n_threads = 1; n_threads <= 3; ++n_threads) {
      SCOPED_TRACE(std::string(name(isa)) + ", threads: " + std::to_string(n_threads));
      ThreadPool pool(n_threads, init_worker_thread);
      body(*make_cpu_ops(pool, {.isa = isa}));
    }
  }
}

// A matrix of random numbers with a stride wider than its rows.
struct TestMatrix {
  std::vector<float> values;
  Matrix view;
  TestMatrix(int64_t rows, int64_t cols, uint32_t seed, float scale = 1.0F)
      : values(random_floats(rows * (cols + 5), seed, scale)),
        view{values.data(), rows, cols, cols + 5} {}
};

TEST(CpuOps, EmbedReadsRowsOfEveryWeightType) {
  std::vector<DType> types = testing::quantized_weight_types();
  types.insert(types.end(), {DType::kF32, DType::kF16, DType::kBF16});
  for_each_machine([&](CpuOps& ops) {
    for (const DType type : types) {
      const auto table = random_weight(type, 9, 256, 1);
      const std::vector<TokenId> tokens = {3, 0, 8, 3, 5};
      TestMatrix out(5, 256, 2);
      ops.embed(table.view, tokens, out.view);
      for (int r = 0; r < 5; ++r) {
        const std::vector<float> expected = table.row(tokens[r]);
        EXPECT_TRUE(std::equal(expected.begin(), expected.end(), out.view.row(r))) << name_of(type);
      }
    }
  });
}

TEST(CpuOps, RmsNormDividesByTheRootOfTheMeanSquare) {
  for_each_machine([](CpuOps& ops) {
    for (const int64_t cols : {1, 3, 15, 16, 17, 64, 575, 576, 2050}) {
      for (const int64_t rows : {1, 2, 40}) {
        TestMatrix x(rows, cols, 3, 4.0F);
        TestMatrix out(rows, cols, 4);
        const std::vector<float> weight = random_floats(cols, 5);
        ops.rms_norm(x.view, weight.data(), 1e-5F, out.view);
        for (int64_t r = 0; r < rows; ++r) {
          double squares = 0;
          for (int64_t i = 0; i < cols; ++i) squares += double{x.view.row(r)[i]} * x.view.row(r)[i];
          for (int64_t i = 0; i < cols; ++i) {
            const double expected = x.view.row(r)[i] / std::sqrt(squares / cols + 1e-5) * weight[i];
            ASSERT_NEAR(out.view.row(r)[i], expected, 1e-6 * std::fabs(expected) + 1e-30);
          }
        }
        const std::vector<float> first = {out.view.row(0), out.view.row(0) + cols};
        ops.rms_norm(x.view, weight.data(), 1e-5F, x.view);
        EXPECT_TRUE(std::equal(first.begin(), first.end(), x.view.row(0))) << "in place";
      }
    }
  });
}

TEST(CpuOps, LayerNormIsOfMeanZeroAndVarianceOneBeforeWeightAndBias) {
  for_each_machine([](CpuOps& ops) {
    for (const int64_t cols : {1, 3, 15, 16, 17, 64, 575, 576, 2050}) {
      for (const int64_t rows : {1, 2, 40}) {
        TestMatrix x(rows, cols, 3, 4.0F);
        for (int64_t i = 0; i < cols; ++i) x.view.row(0)[i] += 100;  // far from zero
        TestMatrix out(rows, cols, 4);
        const std::vector<float> weight = random_floats(cols, 5);
        const std::vector<float> bias = random_floats(cols, 6);
        ops.layer_norm(x.view, weight.data(), bias.data(), 1e-3F, out.view);
        for (int64_t r = 0; r < rows; ++r) {
          double mean = 0;
          double squares = 0;
          for (int64_t i = 0; i < cols; ++i) mean += double{x.view.row(r)[i]} / cols;
          for (int64_t i = 0; i < cols; ++i) {
            squares += (x.view.row(r)[i] - mean) * (x.view.row(r)[i] - mean);
          }
          for (int64_t i = 0; i < cols; ++i) {
            const double unit = (x.view.row(r)[i] - mean) / std::sqrt(squares / cols + 1e-3);
            ASSERT_NEAR(out.view.row(r)[i], unit * weight[i] + bias[i], 1e-4) << cols;
          }
        }
        const std::vector<float> first = {out.view.row(0), out.view.row(0) + cols};
        ops.layer_norm(x.view, weight.data(), bias.data(), 1e-3F, x.view);
        EXPECT_TRUE(std::equal(first.begin(), first.end(), x.view.row(0))) << "in place";
      }
    }
  });
}

double exact(Activation activation, double x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kGelu:
      return x * (1 + std::erf(x / std::sqrt(2.0))) / 2;
    case Activation::kGeluTanh:
      return x *
             (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x))) /
             2;
    case Activation::kRelu:
      return std::max(x, 0.0);
  }
  return 0;
}

constexpr Activation kAllActivations[] = {Activation::kSilu, Activation::kGelu,
                                          Activation::kGeluTanh, Activation::kRelu};

TEST(CpuOps, ActivationsFollowTheirFormulas) {
  for_each_machine([](CpuOps& ops) {
    for (const Activation activation : kAllActivations) {
      constexpr int64_t kCols = 2003;
      TestMatrix x(2, kCols, 1);
      TestMatrix up(2, kCols, 2);
      for (int64_t i = 0; i < kCols; ++i) {
        x.view.row(0)[i] = static_cast<float>(i - 1000) / 100;  // -10 to 10
        x.view.row(1)[i] = static_cast<float>(i - 1000);
      }
      const TestMatrix before = x;
      const Matrix gate{const_cast<float*>(before.values.data()), 2, kCols, x.view.stride};
      TestMatrix out(2, kCols, 3);
      ops.gated(activation, gate, up.view, out.view);
      ops.activate(activation, x.view);
      for (int r = 0; r < 2; ++r) {
        for (int64_t i = 0; i < kCols; ++i) {
          const double want = exact(activation, gate.row(r)[i]);
          const double bound = 1e-6 * (1 + std::fabs(gate.row(r)[i]));
          ASSERT_NEAR(x.view.row(r)[i], want, bound) << int(activation) << " " << gate.row(r)[i];
          ASSERT_EQ(out.view.row(r)[i], x.view.row(r)[i] * up.view.row(r)[i]);
        }
      }
    }
  });
}

TEST(CpuOps, ElementwiseOperationsDoWhatTheySay) {
  for_each_machine([](CpuOps& ops) {
    for (const int64_t cols : {1, 7, 16, 33, 1000}) {
      TestMatrix x(30, cols, 1, 8.0F);
      const TestMatrix y(30, cols, 2);
      const std::vector<float> start = x.values;
      const auto reset = [&] { std::copy(start.begin(), start.end(), x.values.begin()); };
      ConstMatrix before = x.view;
      before.data = start.data();
      const auto expect = [&](auto want, double bound) {
        for (int64_t r = 0; r < 30; ++r) {
          for (int64_t i = 0; i < cols; ++i) {
            const double w = want(double{before.row(r)[i]}, double{y.view.row(r)[i]});
            ASSERT_NEAR(x.view.row(r)[i], w, bound * std::max(1.0, std::fabs(w)));
          }
        }
        reset();
      };
      ops.add(y.view, x.view);
      expect([](double a, double b) { return a + b; }, 1e-6);
      ops.scale(0.25F, x.view);
      expect([](double a, double) { return a * 0.25; }, 0);
      ops.soft_cap(3.0F, x.view);
      expect([](double a, double) { return 3 * std::tanh(a / 3); }, 1e-6);
    }
  });
}

TEST(CpuOps, HeadsThatLieTogetherAreTakenApart) {
  for_each_machine([](CpuOps& ops) {
    constexpr int kHeads = 5, kDim = 6, kRows = 40;
    TestMatrix x(kRows, 3 * kHeads * kDim, 1);
    TestMatrix q(kRows, kHeads * kDim, 2), k(kRows, kHeads * kDim, 3), v(kRows, kHeads * kDim, 4);
    ops.split_heads(x.view, kDim, q.view, k.view, v.view);
    for (int r = 0; r < kRows; ++r) {
      for (int i = 0; i < kHeads * kDim; ++i) {
        const float* head = x.view.row(r) + i / kDim * 3 * kDim;
        ASSERT_EQ(q.view.row(r)[i], head[i % kDim]);
        ASSERT_EQ(k.view.row(r)[i], head[kDim + i % kDim]);
        ASSERT_EQ(v.view.row(r)[i], head[2 * kDim + i % kDim]);
      }
    }
  });
}

TEST(CpuOps, RowsAreGatheredAndAddedBack) {
  for_each_machine([](CpuOps& ops) {
    constexpr int kCols = 700;
    TestMatrix x(50, kCols, 1);
    const std::vector<float> start = x.values;
    const std::vector<uint32_t> rows = {3, 0, 49, 17};
    const std::vector<float> weights = {0.5F, 2, -1, 0};
    TestMatrix some(4, kCols, 2);
    ops.gather_rows(x.view, rows, some.view);
    for (int i = 0; i < 4; ++i) {
      ASSERT_TRUE(std::equal(some.view.row(i), some.view.row(i) + kCols, x.view.row(rows[i])));
    }
    ops.scatter_add(some.view, rows, weights, x.view);
    for (int r = 0; r < 50; ++r) {
      const auto at = std::find(rows.begin(), rows.end(), r);
      const float weight = at == rows.end() ? 0 : weights[at - rows.begin()];
      for (int i = 0; i < kCols; ++i) {
        const float before = start[r * x.view.stride + i];
        ASSERT_NEAR(x.view.row(r)[i], before + weight * before, 1e-6 * std::fabs(before));
      }
    }
  });
}

TEST(CpuOps, RmsNormOfZerosIsZero) {
  for_each_machine([](CpuOps& ops) {
    std::vector<float> x(64, 0.0F);
    const std::vector<float> weight(64, 1.0F);
    const Matrix view{x.data(), 1, 64, 64};
    ops.rms_norm(view, weight.data(), 1e-6F, view);
    EXPECT_EQ(x, std::vector<float>(64, 0.0F));
  });
}

TEST(CpuOps, SwigluMultipliesSiluOfTheGate) {
  for_each_machine([](CpuOps& ops) {
    for (const int64_t cols : {1, 7, 16, 33, 1536}) {
      TestMatrix gate(7, cols, 6, 20.0F);
      TestMatrix up(7, cols, 7);
      TestMatrix out(7, cols, 8);
      const float extremes[] = {0.0F, -0.0F, -88.0F, -1e4F, -1e30F, 1e30F, 100.0F};
      for (int r = 0; r < 7; ++r) gate.view.row(r)[0] = extremes[r];
      ops.gated(Activation::kSilu, gate.view, up.view, out.view);
      for (int64_t r = 0; r < 7; ++r) {
        for (int64_t i = 0; i < cols; ++i) {
          const double g = gate.view.row(r)[i];
          const double expected = g / (1 + std::exp(-g)) * up.view.row(r)[i];
          // Far below zero the true value is smaller than any that matters.
          const double floor = g < -80 ? 1e-6 : 1e-30;
          ASSERT_NEAR(out.view.row(r)[i], expected, 2e-6 * std::fabs(expected) + floor) << g;
        }
      }
      const float first = out.view.row(0)[cols - 1];
      ops.gated(Activation::kSilu, gate.view, up.view, gate.view);
      EXPECT_EQ(gate.view.row(0)[cols - 1], first) << "in place";
    }
  });
}

// However an implementation takes it: products of the same kind give the same bits as one by one,
// for numbers of rows on both sides of each border between kinds.
TEST(CpuOps, FeedForwardIsItsProductsOneByOne) {
  constexpr int64_t kHidden = 160;
  constexpr int64_t kFfn = 320;
  for_each_machine([](CpuOps& ops) {
    for (const DType type : {DType::kQ4_0, DType::kQ4_1, DType::kQ8_0, DType::kF32}) {
      const auto gate_weight = random_weight(type, kFfn, kHidden, 1);
      const auto up_weight = random_weight(type, kFfn, kHidden, 2);
      const auto down_weight = random_weight(type, kHidden, kFfn, 3);
      const std::vector<float> bias = random_floats(kFfn, 4);
      for (const int64_t rows : {1, 5, 50, 64, 67, 130, 700}) {
        const TestMatrix x(rows, kHidden, 5);
        TestMatrix gate(rows, kFfn, 6);
        TestMatrix up(rows, kFfn, 7);
        TestMatrix out(rows, kHidden, 8);
        TestMatrix expected(rows, kHidden, 8);
        const LinearTarget to_gate{gate_weight.view, gate.view, bias.data()};
        const LinearTarget to_up{up_weight.view, up.view};
        const auto down = [&](TestMatrix& to) {
          return LinearTarget{down_weight.view, to.view, bias.data(), /*accumulate=*/true};
        };
        ops.feed_forward(x.view, to_gate, to_up, Activation::kSilu, down(out));

        ops.linear(x.view, std::array{to_gate, to_up});
        ops.gated(Activation::kSilu, gate.view, up.view, gate.view);
        ops.linear(gate.view, std::array{down(expected)});
        ASSERT_EQ(out.values, expected.values) << name_of(type) << ", rows " << rows;
      }
    }
  });
}

TEST(CpuOps, RopeTurnsPairsAndLeavesTheRestOfAHead) {
  for_each_machine([](CpuOps& ops) {
    for (const auto& [head_dim, rot_dim] :
         {std::pair{2, 2}, {64, 64}, {80, 32}, {96, 96}, {128, 128}, {66, 66}}) {
      for (const bool interleaved : {false, true}) {
        const int64_t rows = 20;
        const int n_heads = 3;
        TestMatrix x(rows, n_heads * head_dim, 9);
        const std::vector<float> before = x.values;
        std::vector<float> cos, sin;
        for (const float angle : random_floats(rows * rot_dim / 2, 10, 3.0F)) {
          cos.push_back(std::cos(angle));
          sin.push_back(std::sin(angle));
        }
        ops.rope(x.view, n_heads, head_dim, {cos.data(), sin.data(), rot_dim, interleaved});

        std::vector<float> expected = before;
        for (int64_t r = 0; r < rows; ++r) {
          for (int head = 0; head < n_heads; ++head) {
            for (int i = 0; i < rot_dim / 2; ++i) {
              const int64_t base = r * x.view.stride + head * head_dim;
              const int64_t a = base + (interleaved ? 2 * i : i);
              const int64_t b = base + (interleaved ? 2 * i + 1 : i + rot_dim / 2);
              const double c = cos[r * rot_dim / 2 + i], s = sin[r * rot_dim / 2 + i];
              expected[a] = static_cast<float>(before[a] * c - before[b] * s);
              expected[b] = static_cast<float>(before[b] * c + before[a] * s);
            }
          }
        }
        for (size_t i = 0; i < expected.size(); ++i) {
          ASSERT_NEAR(x.values[i], expected[i], 1e-6) << head_dim << " " << interleaved;
        }
      }
    }
  });
}

// The value of one stored element.
double stored(const std::byte* p, DType type) {
  if (type == DType::kF32) {
    float value = 0;
    std::memcpy(&value, p, 4);
    return value;
  }
  uint16_t bits = 0;
  std::memcpy(&bits, p, 2);
  return type == DType::kF16 ? ggml_fp16_to_fp32(bits) : ggml_bf16_to_fp32({bits});
}

// What ggml's scalar conversion makes of a number.
double rounded_to(float value, DType type) {
  if (type == DType::kF32) return value;
  if (type == DType::kF16) return ggml_fp16_to_fp32(ggml_fp32_to_fp16(value));
  return ggml_bf16_to_fp32(ggml_fp32_to_bf16(value));
}

TEST(CpuOps, StoreKvPutsKeysInColumnsAndValuesInRowsOfTheirPanels) {
  for_each_machine([](CpuOps& ops) {
    for (const DType k_type : {DType::kF32, DType::kF16, DType::kBF16}) {
      for (const DType v_type : {DType::kF32, DType::kF16, DType::kBF16}) {
        for (const int head_dim : {1, 33, 64, 128}) {
          const KvShape shape{1, 3, head_dim, k_type, v_type};
          constexpr int kPanels = 4;
          std::vector<std::byte> k_plane(3 * kPanels * shape.k_panel_bytes(), std::byte{0xAB});
          std::vector<std::byte> v_plane(3 * kPanels * shape.v_panel_bytes(), std::byte{0xAB});
          const KvPlanes planes{shape, k_plane.data(), v_plane.data(),
                                kPanels * shape.k_panel_bytes(), kPanels * shape.v_panel_bytes()};
          std::vector<KvSlot> slots;
          for (int i = 0; i < 35; ++i) {
            slots.push_back({static_cast<PanelId>((i / 16 + 2) % kPanels), (i * 5) % 16});
          }
          TestMatrix k(35, 3 * head_dim, 11);
          TestMatrix v(35, 3 * head_dim, 12);
          ops.store_kv(planes, slots, k.view, v.view);
          for (int r = 0; r < 35; ++r) {
            for (int head = 0; head < 3; ++head) {
              for (int d = 0; d < head_dim; ++d) {
                const auto [panel, slot] = slots[r];
                const std::byte* at_k =
                    planes.k_panel(head, panel) + (d * kPanelTokens + slot) * element_bytes(k_type);
                const std::byte* at_v =
                    planes.v_panel(head, panel) + (slot * head_dim + d) * element_bytes(v_type);
                const int64_t column = head * head_dim + d;
                ASSERT_EQ(stored(at_k, k_type), rounded_to(k.view.row(r)[column], k_type));
                ASSERT_EQ(stored(at_v, v_type), rounded_to(v.view.row(r)[column], v_type));
              }
            }
          }
          // 35 of 64 slots are written; no other byte may be.
          const auto untouched = std::count(v_plane.begin(), v_plane.end(), std::byte{0xAB});
          EXPECT_GE(untouched, 3 * 29 * head_dim * static_cast<int>(element_bytes(v_type)));
        }
      }
    }
  });
}

// ggml's reference rounding is the oracle; where the middle between two numbers goes may differ.
TEST(CpuOps, StoreKvInQ8RoundsAsGgmlDoesAndKeepsTheScalesBehindThePanel) {
  struct Block {
    uint16_t scale;
    int8_t numbers[32];
  };
  for_each_machine([](CpuOps& ops) {
    for (const int head_dim : {1, 16, 33, 64, 80}) {
      const KvShape shape{1, 2, head_dim, DType::kQ8_0, DType::kQ8_0};
      constexpr int kPanels = 3;
      std::vector<std::byte> k_plane(2 * kPanels * shape.k_panel_bytes(), std::byte{0xAB});
      std::vector<std::byte> v_plane(k_plane);
      const uint64_t stride = kPanels * shape.k_panel_bytes();
      const KvPlanes planes{shape, k_plane.data(), v_plane.data(), stride, stride};
      std::vector<KvSlot> slots;
      for (int i = 0; i < 20; ++i) slots.push_back({static_cast<PanelId>(i / 16), (i * 5) % 16});
      TestMatrix k(20, 2 * head_dim, 21);
      TestMatrix v(20, 2 * head_dim, 22);
      std::fill_n(k.view.row(3), head_dim, 0.0f);
      ops.store_kv(planes, slots, k.view, v.view);
      const int blocks = scale_blocks(head_dim);
      const auto check = [&](const float* values, const std::byte* panel, int slot, int d_stride,
                             int slot_stride) {
        std::vector<float> padded(blocks * 32);
        std::copy(values, values + head_dim, padded.begin());
        std::vector<Block> want(blocks);
        ggml_quantize_chunk(GGML_TYPE_Q8_0, padded.data(), want.data(), 0, 1, blocks * 32, nullptr);
        for (int d = 0; d < head_dim; ++d) {
          uint16_t scale = 0;
          const int at = head_dim * 16 + (d / 32 * 16 + slot) * 2;
          std::memcpy(&scale, panel + at, sizeof(scale));
          ASSERT_EQ(scale, want[d / 32].scale) << head_dim;
          const int got = static_cast<int8_t>(panel[d * d_stride + slot * slot_stride]);
          ASSERT_LE(std::abs(got - want[d / 32].numbers[d % 32]), 1);
          // Half a step, and 127 times what rounding the scale to 11 bits adds.
          ASSERT_LE(std::abs(got * ggml_fp16_to_fp32(scale) - values[d]),
                    0.563 * ggml_fp16_to_fp32(scale) + 127 * std::ldexp(1.0, -25));
        }
      };
      for (int r = 0; r < 20; ++r) {
        const auto [panel, slot] = slots[r];
        for (int head = 0; head < 2; ++head) {
          check(k.view.row(r) + head * head_dim, planes.k_panel(head, panel), slot, 16, 1);
          check(v.view.row(r) + head * head_dim, planes.v_panel(head, panel), slot, 1, head_dim);
        }
      }
      // 20 of 48 slots are written; no other byte may be.
      const auto untouched = std::count(k_plane.begin(), k_plane.end(), std::byte{0xAB});
      EXPECT_GE(untouched, 2 * 28 * static_cast<int>(shape.k_panel_bytes()) / 16);
    }
  });
}

TEST(CpuOps, NamesTheTypesThatWeightsCanHave) {
  for (const DType type : testing::quantized_weight_types()) {
    EXPECT_TRUE(can_be_weight(type)) << name_of(type);
  }
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16})
    EXPECT_TRUE(can_be_weight(type));
  for (const int32_t number : {4, 9, 15, 24, 26, 28, 31, 99, -1}) {
    EXPECT_FALSE(can_be_weight(DType{number})) << number;
  }
}

}  // namespace
}  // namespace banyan
