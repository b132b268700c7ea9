// SPDX-License-Identifier: Apache-2.0
#include "engine/attention_bench.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include "engine/attention_sample.h"

namespace banyan {
namespace {

constexpr std::array kAutoAndPaged = {PlanMethod::kAuto, PlanMethod::kPaged};
constexpr std::array kDenseOnly = {PlanMethod::kDense};
constexpr MachineFigures kMachine = {.bandwidth_gbps = 10, .peak_gflops = 100, .peak_gexps = 2};

AttentionCase small_case() {
  return {.n_heads = 8, .n_kv_heads = 2, .head_dim = 24, .n_sequences = 5, .shared = 37, .own = 21};
}

std::vector<AttentionFigures> measured(const AttentionCase& shape,
                                       std::span<const PlanMethod> methods) {
  ThreadPool pool(2);
  auto figures = bench_attention(shape, methods, {pool, detect_isa(), kMachine}, {});
  EXPECT_TRUE(figures) << (figures ? "" : figures.error().message);
  return figures ? *figures : std::vector<AttentionFigures>();
}

TEST(AttentionCase, CountsVisiblePairsAsALoopDoes) {
  for (const int32_t new_tokens : {1, 3, 21}) {
    AttentionCase shape = small_case();
    shape.new_tokens = new_tokens;
    uint64_t pairs = 0;
    for (int sequence = 0; sequence < shape.n_sequences; ++sequence) {
      for (int32_t p = shape.length() - new_tokens; p < shape.length(); ++p) pairs += p + 1;
    }
    EXPECT_EQ(shape.visible_pairs(), pairs);
  }
}

TEST(AttentionCase, MemoryThatDoesNotFit64BitsIsNoNumber) {
  AttentionCase shape{.n_heads = 4096, .n_kv_heads = 4096, .head_dim = 4096};
  shape.n_layers = 4096;
  shape.n_sequences = 1 << 20;
  shape.own = 1 << 27;
  EXPECT_FALSE(shape.memory_bytes());
  shape = small_case();
  // 3 panels that all share, and one that begins in the middle and one more for each row.
  const uint64_t kv = (3 + 5 * 2) * 16 * 2 * 24 * 2 * 2;
  EXPECT_EQ(shape.memory_bytes(), kv + 2 * 5 * 8 * 24 * 4);
}

TEST(AttentionWorkload, TreeHasASharedNodeAndOneNodeForEachRow) {
  ThreadPool pool(2);
  const auto workload = AttentionWorkload::create(small_case(), pool, detect_isa());
  ASSERT_TRUE(workload);
  const TreeView tree = workload->tree();
  ASSERT_EQ(tree.nodes.size(), 6u);
  EXPECT_EQ(tree.nodes[0].row_begin, 0u);
  EXPECT_EQ(tree.nodes[0].row_end, 5u);
  EXPECT_EQ(tree.nodes[3].parent, 0u);
  EXPECT_EQ(tree.nodes[3].kv_begin, 37);
  EXPECT_EQ(tree.nodes[3].refs[0].slot_begin, 37 % 16);
  for (const Position position : tree.row_pos) EXPECT_EQ(position, 37 + 21 - 1);
}

TEST(AttentionWorkload, IsTheSameForAnyNumberOfThreads) {
  ThreadPool one(1);
  ThreadPool three(3);
  const AttentionCase shape = small_case();
  const auto a = AttentionWorkload::create(shape, one, detect_isa());
  const auto b = AttentionWorkload::create(shape, three, Isa::kBaseline);
  ASSERT_TRUE(a && b);
  const KvPlanes x = a->inputs(0).kv;
  const KvPlanes y = b->inputs(0).kv;
  for (int head = 0; head < shape.n_kv_heads; ++head) {
    for (PanelId panel = 0; panel < 13; ++panel) {
      EXPECT_EQ(
          0, std::memcmp(x.k_panel(head, panel), y.k_panel(head, panel), x.shape.k_panel_bytes()));
      EXPECT_EQ(
          0, std::memcmp(x.v_panel(head, panel), y.v_panel(head, panel), x.shape.v_panel_bytes()));
    }
  }
  const size_t n = static_cast<size_t>(shape.n_rows()) * shape.n_heads * shape.head_dim;
  EXPECT_EQ(0, std::memcmp(a->inputs(0).q, b->inputs(0).q, n * sizeof(float)));
}

TEST(AttentionWorkload, NumbersAreNormal) {
  ThreadPool pool(2);
  AttentionCase shape = small_case();
  shape.kv_type = DType::kF32;
  shape.own = 3000;
  const auto workload = AttentionWorkload::create(shape, pool, detect_isa());
  ASSERT_TRUE(workload);
  const KvPlanes planes = workload->inputs(0).kv;
  double sum = 0;
  double squares = 0;
  const int n = 100 * kPanelTokens * shape.head_dim;
  for (PanelId panel = 0; panel < 100; ++panel) {
    const auto* k = reinterpret_cast<const float*>(planes.k_panel(1, panel));
    for (int i = 0; i < kPanelTokens * shape.head_dim; ++i) {
      sum += k[i];
      squares += double{k[i]} * k[i];
    }
  }
  EXPECT_NEAR(sum / n, 0, 0.05);
  EXPECT_NEAR(squares / n, 1, 0.05);
}

// The sample's own arithmetic against the oracle of the attention room.
TEST(AttentionSample, EqualsTheReferenceExecutor) {
  ThreadPool pool(2);
  std::vector<AttentionCase> cases;
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0}) {
    cases.push_back(small_case());
    cases.back().kv_type = type;
  }
  AttentionCase prefill{.n_heads = 4, .n_kv_heads = 4, .head_dim = 16, .own = 150};
  prefill.new_tokens = 150;
  cases.push_back(prefill);
  cases.push_back({.n_heads = 4, .n_kv_heads = 1, .head_dim = 32, .n_sequences = 3, .shared = 70});
  for (const AttentionCase& shape : cases) {
    const auto workload = AttentionWorkload::create(shape, pool, detect_isa());
    ASSERT_TRUE(workload);
    Plan plan;
    make_plan(PlanMethod::kPaged, workload->tree(), workload->row_shape(), {}, plan);
    std::vector<float> out(shape.n_rows() * shape.n_heads * shape.head_dim);
    std::vector<float> lse(shape.n_rows() * shape.n_heads);
    const auto reference = make_reference_executor();
    reference->prepare(plan, workload->inputs(0).kv.shape, shape.n_heads);
    reference->attend(plan, workload->inputs(0), {.out = out.data(), .lse = lse.data()});

    const AttentionSample sample = sample_attention(*workload, 0, 64, pool, detect_isa());
    EXPECT_EQ(sample.rows.size(), std::min<size_t>(64, shape.n_rows()));
    const AttentionErrors errors = compare(sample, shape, {.out = out.data(), .lse = lse.data()});
    EXPECT_LT(errors.rel_err, 1e-6);
    EXPECT_NEAR(errors.recall_mean, 1, 1e-6);
    EXPECT_NEAR(errors.recall_p5, 1, 1e-6);
  }
}

TEST(AttentionSample, AWrongOutputIsSeen) {
  ThreadPool pool(1);
  const AttentionCase shape = small_case();
  const auto workload = AttentionWorkload::create(shape, pool, detect_isa());
  ASSERT_TRUE(workload);
  const AttentionSample sample = sample_attention(*workload, 0, 64, pool, detect_isa());
  std::vector<float> out(sample.out.begin(), sample.out.end());
  std::vector<float> lse(sample.lse.begin(), sample.lse.end());
  const AttendOutputs view{.out = out.data(), .lse = lse.data()};
  EXPECT_LT(compare(sample, shape, view).rel_err, 1e-6);
  out[77] += 1;
  EXPECT_GT(compare(sample, shape, view).rel_err, 1);
  out[77] = std::nanf("");
  EXPECT_TRUE(std::isinf(compare(sample, shape, view).rel_err));
  for (float& value : lse) value -= std::log(2.0f);  // half of the softmax was kept
  EXPECT_NEAR(compare(sample, shape, view).recall_mean, 0.5, 1e-6);
  lse[3] = std::nanf("");
  EXPECT_LT(compare(sample, shape, view).recall_mean, 0.5);
}

TEST(AttentionBench, EveryKvTypeAndHeadLayoutIsRight) {
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0}) {
    for (const int kv_heads : {1, 2, 8}) {
      AttentionCase shape = small_case();
      shape.kv_type = type;
      shape.n_kv_heads = kv_heads;
      for (const AttentionFigures& f : measured(shape, kAutoAndPaged)) {
        EXPECT_LT(f.rel_err, 1e-3);
        EXPECT_NEAR(f.recall_mean, 1, 1e-3);
        EXPECT_EQ(f.sampled, 5);
      }
    }
  }
}

TEST(AttentionBench, PagedReadsASharedPrefixForEachRow) {
  const AttentionCase shape = small_case();
  const auto figures = measured(shape, kAutoAndPaged);
  ASSERT_EQ(figures.size(), 2u);
  // 5 rows x 58 positions x 2 KV heads x 24 dimensions of f16, K and V.
  EXPECT_EQ(figures[1].kv_bytes, 5u * 58 * 2 * 24 * 2 * 2);
  EXPECT_LE(figures[0].kv_bytes, figures[1].kv_bytes);
  EXPECT_GE(figures[0].kv_bytes, shape.stored_kv_bytes());
  EXPECT_EQ(shape.stored_kv_bytes(), (37u + 5 * 21) * 2 * 24 * 2 * 2);
}

TEST(AttentionBench, PrivateKvIsReadOnceByEveryMethod) {
  for (const int kv_heads : {2, 8}) {
    AttentionCase shape = small_case();
    shape.n_kv_heads = kv_heads;
    shape.kv_type = DType::kF32;
    shape.shared = 0;
    shape.own = 70;
    for (const AttentionFigures& f : measured(shape, kAutoAndPaged)) {
      EXPECT_EQ(f.kv_bytes, 5u * 70 * kv_heads * 24 * 2 * 4);
    }
  }
}

TEST(AttentionBench, ScalesOfQ8CountAsBytes) {
  AttentionCase shape = small_case();
  shape.kv_type = DType::kQ8_0;
  shape.head_dim = 64;
  EXPECT_EQ(shape.kv_bytes_per_token(), 2u * 2 * (64 + 2 * 2));
}

TEST(AttentionBench, FiguresAgreeWithEachOther) {
  AttentionCase shape = small_case();
  shape.n_layers = 3;
  const double pairs = 5 * 58;
  const std::vector<AttentionFigures> figures = measured(shape, kAutoAndPaged);
  EXPECT_EQ(figures[0].kv_bytes, 3u * (37 + 5 * 21) * 2 * 24 * 2 * 2);  // shared ones once
  EXPECT_EQ(figures[1].kv_bytes, 3u * 5 * 58 * 2 * 24 * 2 * 2);
  for (const AttentionFigures& f : figures) {
    EXPECT_GE(f.runs, 5);
    EXPECT_GT(f.ms, 0);
    EXPECT_GE(f.plan_ms, 0);
    EXPECT_NEAR(f.gbps * f.ms * 1e6 / static_cast<double>(f.kv_bytes), 1, 1e-9);
    EXPECT_NEAR(f.gflops * f.ms * 1e6 / (3 * 4 * 24 * pairs * 8), 1, 1e-9);
    EXPECT_NEAR(f.roof_ratio * f.roof_ms, f.ms, 1e-9);
    EXPECT_LT(f.rel_err, 1e-3);
  }
}

TEST(AttentionBench, RoofIsTheSlowerOfMemoryAndArithmetic) {
  AttentionCase shape{.n_heads = 1, .n_kv_heads = 1, .head_dim = 100, .own = 1000};
  // 400 KB of KV, 800 bytes of Q and output at 10 GB/s, against 0.4 MFLOP at 100 GFLOP/s.
  EXPECT_NEAR(roof_ms(shape, kMachine), (400000 + 800) / 10e6, 1e-12);
  shape.new_tokens = 1000;
  const double pairs = 1000 * 1001 / 2.0;
  EXPECT_NEAR(roof_ms(shape, kMachine), pairs * 400 / 100e6 + pairs / 2e6, 1e-9);
  shape.n_layers = 7;
  EXPECT_NEAR(roof_ms(shape, kMachine), 7 * (pairs * 400 / 100e6 + pairs / 2e6), 1e-9);
}

TEST(AttentionBench, ReadingAPromptCountsTheCausalTriangle) {
  AttentionCase shape{.n_heads = 4, .n_kv_heads = 2, .head_dim = 32, .own = 200};
  shape.new_tokens = 200;
  const auto figures = measured(shape, kDenseOnly);
  ASSERT_EQ(figures.size(), 1u);
  EXPECT_EQ(figures[0].sampled, 64);
  EXPECT_LT(figures[0].rel_err, 1e-3);
  EXPECT_NEAR(figures[0].recall_p5, 1, 1e-3);
  EXPECT_NEAR(figures[0].gflops * figures[0].ms * 1e6 / (4.0 * 4 * 32 * 200 * 201 / 2), 1, 1e-9);
}

TEST(AttentionBench, OneSequenceTakesAllMethods) {
  const std::array methods = {PlanMethod::kDense, PlanMethod::kPaged, PlanMethod::kAuto};
  AttentionCase shape = small_case();
  shape.n_sequences = 1;
  const auto figures = measured(shape, methods);
  ASSERT_EQ(figures.size(), 3u);
  for (const AttentionFigures& f : figures) EXPECT_LT(f.rel_err, 1e-3);
}

}  // namespace
}  // namespace banyan
