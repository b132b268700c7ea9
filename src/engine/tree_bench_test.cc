// SPDX-License-Identifier: Apache-2.0
#include "engine/tree_bench.h"

#include <gtest/gtest.h>

#include <limits>

#include "engine/testing_tiny_engine.h"

namespace banyan {
namespace {

constexpr TreeMethod kMethods[] = {
    {PlanMethod::kPaged}, {PlanMethod::kAuto}, {PlanMethod::kTwoPhase}};
constexpr MachineFigures kMachine = {.bandwidth_gbps = 10, .peak_gflops = 100, .peak_gexps = 2};
constexpr int64_t kAll = std::numeric_limits<int64_t>::max();
constexpr int kHeads = 4;
constexpr KvShape kKv{.n_layers = 2, .n_kv_heads = 2, .head_dim = 24};

// The tree of "TreeReplay.CountsASmallTree", behind a prompt worth sharing.
const ForestWorkload kTree{{{300, {0, 0, 1}, {3, 5, 2}}}};

TreeBenchResult measured(const TreeWorkload& workload, double bandwidth_gbps = 10) {
  ThreadPool pool(2);
  MachineFigures machine = kMachine;
  machine.bandwidth_gbps = bandwidth_gbps;
  const auto counts = count_steps(workload, kAll);
  EXPECT_TRUE(counts);
  int64_t steps = 0;
  auto result = bench_tree(workload, kAll, *counts, kKv, kHeads, kMethods,
                           {pool, detect_isa(), machine}, [&](int run, int64_t step) {
                             EXPECT_GE(run, 1);
                             steps = std::max(steps, step);
                           });
  EXPECT_TRUE(result) << (result ? "" : result.error().message);
  EXPECT_EQ(steps, counts->steps);
  return result ? *result : TreeBenchResult();
}

TEST(TreeBench, PagedReadsPathsAndSharingReadsTheTree) {
  const TreeBenchResult result = measured(kTree);
  ASSERT_EQ(result.methods.size(), 3U);
  EXPECT_EQ(result.counts.path_sum, 10U * 300 + 30);
  EXPECT_EQ(result.counts.n_tree_sum, 5U * 300 + 30);
  EXPECT_EQ(result.methods[0].kv_tokens_read, result.counts.path_sum);
  for (const TreeFigures& f : result.methods) {
    EXPECT_GE(f.kv_tokens_read, result.counts.n_tree_sum);
    EXPECT_LE(f.kv_tokens_read, result.counts.path_sum);
  }
  // Both rows share the prompt: a state of each in every step, and one for what each has alone.
  EXPECT_EQ(result.methods[2].kv_tokens_read, result.counts.n_tree_sum);
  EXPECT_GE(result.methods[2].partial_rows, 2U * result.counts.queries);
}

TEST(TreeBench, FiguresAgreeWithEachOther) {
  const TreeBenchResult result = measured(kTree);
  // 19 panels of the prompt, whose last has room for 4 more: both branches open one of their own
  // instead, and need another for their fifth position.
  EXPECT_EQ(result.kv_bytes, result.counts.most_panels * kKv.panel_bytes());
  EXPECT_EQ(result.counts.most_panels, 19U + 2 + 2);
  EXPECT_EQ(tree_memory_bytes(result.counts, kKv, kHeads),
            result.kv_bytes + 2U * 2 * kHeads * 24 * sizeof(float));
  EXPECT_GE(result.runs, 1);
  for (const TreeFigures& f : result.methods) {
    EXPECT_GT(f.plan_ms, 0);
    EXPECT_GT(f.attention_ms, 0);
    EXPECT_GT(f.step_ms, 0);
  }
}

TEST(TreeBench, RoofIsThatOfEveryStep) {
  // At 1 byte a second memory is the roof: each position of the tree once, Q and output of each
  // row.
  const TreeBenchResult slow = measured(kTree, 1e-9);
  const double bytes = 1530.0 * 2 * 24 * 2 * 2 + 10.0 * 2 * sizeof(float) * kHeads * 24;
  EXPECT_NEAR(slow.roof_ms, 2 * bytes * 1e3, 1);
  // And with endless bandwidth arithmetic: 3,030 pairs.
  const TreeBenchResult fast = measured(kTree, 1e9);
  const double pairs = 3030.0 * kHeads;
  EXPECT_NEAR(fast.roof_ms, 2 * (pairs * 4 * 24 / 100e6 + pairs / 2e6), 1e-9);
}

TEST(TreeBench, APromptThatWaitsIsNotRead) {
  // Steps 1 to 5 of the first tree, two of the second alone.
  const TreeBenchResult result =
      measured(ForestWorkload{{{300, {0, 0, 1}, {3, 5, 2}}, {100, {0}, {2}, 9}}}, 1e-9);
  EXPECT_EQ(result.counts.n_tree_sum, 1530U + 101 + 102);
  EXPECT_EQ(result.methods[0].kv_tokens_read, result.counts.path_sum);
  EXPECT_EQ(result.methods[2].kv_tokens_read, result.counts.n_tree_sum);
  const double bytes = 1733.0 * 2 * 24 * 2 * 2 + 12.0 * 2 * sizeof(float) * kHeads * 24;
  EXPECT_NEAR(result.roof_ms, 2 * bytes * 1e3, 1);
}

TEST(TreeBench, DraftsAreRowsOfTheirOwn) {
  const SpecWorkload drafts{300, {0, 0, 1, 1, 4}, {1, 4, 0, 3}};
  const TreeBenchResult result = measured(drafts);
  EXPECT_EQ(result.counts.steps, 4);
  EXPECT_EQ(result.counts.queries, 4 * 6);
  EXPECT_EQ(result.methods[0].kv_tokens_read, result.counts.path_sum);
  EXPECT_EQ(result.methods[2].kv_tokens_read, result.counts.n_tree_sum);
}

TEST(TreeBench, BlocksAreOfTheSizeAskedFor) {
  ThreadPool pool(2);
  const TreeWorkload fan = ForestWorkload{{{64, {0, 0}, {1, 1}}}};
  const auto counts = count_steps(fan, kAll);
  const TreeMethod blocks[] = {{PlanMethod::kFlatten, 32}, {PlanMethod::kFlatten, 64}};
  const auto result = bench_tree(fan, kAll, *counts, kKv, kHeads, blocks,
                                 {pool, detect_isa(), kMachine}, [](int, int64_t) {});
  ASSERT_TRUE(result);
  // Both rows in each block of the prompt, and in one with what each has alone.
  EXPECT_EQ(result->methods[0].partial_rows, 2U * 2 + 2);
  EXPECT_EQ(result->methods[1].partial_rows, 2U * 1 + 2);
}

TEST(TreeBench, AModelGoesThroughTheSameSteps) {
  EngineOptions options = tiny_options();
  options.deterministic = false;  // else nodes are shared in whole segments only
  const auto engine = open(options);
  for (const TreeWorkload& workload :
       {TreeWorkload(ForestWorkload{{{40, {0, 0, 1}, {3, 5, 2}}, {9, {0}, {2}, 4}}}),
        TreeWorkload(SpecWorkload{40, {0, 0, 1, 1, 4}, {1, 4, 0, 3}})}) {
    const auto counts = count_steps(workload, kAll);
    const auto result =
        bench_tree(workload, kAll, *counts, *engine, kMethods, kMachine, [](int, int64_t) {});
    ASSERT_TRUE(result) << result.error().message;
    ASSERT_EQ(result->methods.size(), 3U);
    EXPECT_EQ(result->methods[0].kv_tokens_read, counts->path_sum);
    EXPECT_EQ(result->methods[2].kv_tokens_read, counts->n_tree_sum);
    for (const TreeFigures& f : result->methods) {
      EXPECT_GT(f.attention_ms, 0);
      EXPECT_GT(f.weights_ms, 0);
      EXPECT_GT(f.step_ms, f.attention_ms + f.weights_ms);
    }
    EXPECT_GT(result->roof_ms, 0);
    EXPECT_EQ(engine->tree().positions(), 0U);
  }
}

TEST(TreeBench, AModelRefusesNodesThatItHasNoTokensFor) {
  const auto engine = open();
  const auto n = static_cast<size_t>(engine->model().hp.vocab);
  const TreeWorkload fan =
      ForestWorkload{{{4, std::vector<uint32_t>(n, 0), std::vector<int32_t>(n, 1)}}};
  const auto counts = count_steps(fan, kAll);
  const auto refused =
      bench_tree(fan, kAll, *counts, *engine, kMethods, kMachine, [](int, int64_t) {});
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("more nodes than"), std::string::npos);
}

TEST(TreeBench, ATreeWithoutStepsTakesNoTime) {
  const TreeBenchResult result = measured(ForestWorkload{{{16, {}, {}}}});
  EXPECT_EQ(result.counts.steps, 0);
  for (const TreeFigures& f : result.methods) {
    EXPECT_EQ(f.kv_tokens_read, 0U);
    EXPECT_EQ(f.attention_ms, 0);
  }
}

}  // namespace
}  // namespace banyan
