// SPDX-License-Identifier: Apache-2.0
#include "engine/serve_bench.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>

#include "engine/testing_tiny_engine.h"

namespace banyan {
namespace {

using PromptRun = ServeRequest::Run;
using Runs = std::vector<PromptRun>;

constexpr uint64_t kPanelBytes = 12288;  // of the tiny model in f32
constexpr double kScale = 1.0 / 16;
constexpr int kBlock = 32;  // tokens of a block at that scale

constexpr auto kAlways = [](const ServeProgress& /*progress*/) { return true; };

EngineOptions options_with(bool retention) {
  EngineOptions options = tiny_options();
  options.retention = retention;
  return options;
}

void expect_nothing_held(Engine& engine) {
  EXPECT_EQ(engine.scheduler().n_waiting() + engine.scheduler().n_running(), 0U);
  EXPECT_EQ(engine.tree().available_panels(), engine.pool().capacity());
  engine.tree().check_integrity();
}

// --- workloads

TEST(ServeBench, ATraceIsScaledBlockByBlock) {
  const std::vector<TraceRequest> trace = {
      {0, 1030, 500, {7, 8, 9}}, {100, 1024, 4, {7, 8}}, {150, 1030, 5, {}}, {150, 2, 5, {}}};
  const auto tenth = trace_workload(trace, 0.1, 4);
  ASSERT_EQ(tenth.size(), 4U);
  EXPECT_EQ(tenth[0].prompt, (Runs{{7, 51}, {8, 51}, {9, 1}}));
  EXPECT_EQ(tenth[1].prompt, (Runs{{7, 51}, {8, 51}}));
  EXPECT_EQ(tenth[2].prompt_tokens(), 103);
  EXPECT_EQ(tenth[3].prompt_tokens(), 1) << "0.2 tokens are one";
  EXPECT_NE(tenth[2].prompt[0].id, tenth[3].prompt[0].id);
  const int output[] = {50, 1, 1, 1};
  const double arrival_ms[] = {0, 25, 37.5, 37.5};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(tenth[i].output_tokens, output[i]);
    EXPECT_EQ(tenth[i].arrival_ms, arrival_ms[i]);
  }
  EXPECT_EQ(trace_workload(trace, 1, 1)[0].prompt, (Runs{{7, 512}, {8, 512}, {9, 6}}));
  EXPECT_EQ(trace_workload(trace, 0.001, 1)[0].prompt, (Runs{{7, 1}}));
  EXPECT_EQ(trace_workload(trace, 2, 1)[1].prompt, (Runs{{7, 1024}, {8, 1024}}));
}

TEST(ServeBench, PoissonArrivalsAreExponentiallyApart) {
  const PoissonShape shape{
      .rps = 4, .prompt = 100, .shared = 60, .gen = 7, .requests = 20000, .seed = 3};
  const auto workload = poisson_workload(shape);
  ASSERT_EQ(workload.size(), 20000U);
  EXPECT_EQ(workload[0].arrival_ms, 0);
  std::vector<double> gaps;
  std::set<uint64_t> own;
  for (size_t i = 0; i < workload.size(); ++i) {
    ASSERT_EQ(workload[i].prompt.size(), 2U);
    EXPECT_EQ(workload[i].prompt[0], (PromptRun{0, 60}));
    EXPECT_EQ(workload[i].prompt[1].tokens, 40);
    own.insert(workload[i].prompt[1].id);
    EXPECT_EQ(workload[i].output_tokens, 7);
    if (i > 0) gaps.push_back(workload[i].arrival_ms - workload[i - 1].arrival_ms);
  }
  EXPECT_EQ(own.size(), 20000U);
  EXPECT_FALSE(own.contains(0));
  // Of an exponential distribution with mean m: the share above x is exp(-x / m).
  const double n = static_cast<double>(gaps.size());
  for (const double x : {50.0, 250.0, 500.0, 1000.0}) {
    const double share = std::exp(-x / 250);
    const auto above = std::ranges::count_if(gaps, [&](double gap) { return gap > x; });
    EXPECT_NEAR(static_cast<double>(above) / n, share, 4 * std::sqrt(share * (1 - share) / n));
  }
  PoissonShape faster = shape;
  faster.rps = 8;
  EXPECT_NEAR(poisson_workload(faster).back().arrival_ms, workload.back().arrival_ms / 2, 1e-6);
  faster.seed = 4;
  EXPECT_NE(poisson_workload(faster)[1].arrival_ms, workload[1].arrival_ms / 2);
}

// --- figures

TEST(ServeBench, DistributionsAreThoseOfNumpy) {
  const Distribution four = distribution({4, 1, 3, 2});
  EXPECT_DOUBLE_EQ(four.mean, 2.5);
  EXPECT_DOUBLE_EQ(four.p50, 2.5);
  EXPECT_DOUBLE_EQ(four.p99, 3.97);
  const Distribution one = distribution({7});
  EXPECT_EQ(std::tuple(one.mean, one.p50, one.p99), std::tuple(7, 7, 7));
  std::vector<double> to_100;
  for (int i = 100; i >= 0; --i) to_100.push_back(i);
  EXPECT_DOUBLE_EQ(distribution(to_100).p99, 99);
  const Distribution none = distribution({});
  EXPECT_EQ(std::tuple(none.mean, none.p50, none.p99), std::tuple(0, 0, 0));
}

TEST(ServeBench, FiguresAddUp) {
  ServeFigures figures;
  // 10 ms to the first of 5 tokens, 2 ms for each after it; one of one token; 20 ms, 10 tokens.
  figures.served = {{0, 100, 60, 5, 10, 18}, {2, 50, 0, 1, 30, 30}, {1, 50, 40, 10, 20, 110}};
  figures.seconds = 2;
  const ServeSummary sum = summarize(figures);
  EXPECT_EQ(sum.prompt_tokens, 200U);
  EXPECT_EQ(sum.output_tokens, 16U);
  EXPECT_DOUBLE_EQ(sum.hit_rate, 0.5);
  EXPECT_DOUBLE_EQ(sum.ttft_ms.mean, 20);
  EXPECT_DOUBLE_EQ(sum.tpot_ms.mean, (2 + 10) / 2.0);
  EXPECT_DOUBLE_EQ(sum.normalized_ms, (18 / 5.0 + 30 + 11) / 3);
  EXPECT_DOUBLE_EQ(sum.rps, 1.5);
  EXPECT_EQ(summarize({}).rps, 0);
}

TEST(ServeBench, TheHighestRateIsFoundWithin5Percent) {
  std::mt19937 random(1);
  for (int trial = 0; trial < 200; ++trial) {
    const double limit = std::exp2(static_cast<double>(random() % 16000) / 1000 - 8);
    const double first = std::exp2(static_cast<double>(random() % 2000) / 1000 - 1);
    int probes = 0;
    const auto rate = highest_rate(first, [&](double r) -> Result<bool> {
      ++probes;
      return r <= limit;
    });
    ASSERT_TRUE(rate);
    EXPECT_LE(*rate, limit);
    EXPECT_GT(*rate, limit / 1.05);
    EXPECT_LE(probes, 15);
  }
  EXPECT_EQ(*highest_rate(3, [](double) -> Result<bool> { return false; }), 0);
  EXPECT_EQ(*highest_rate(3, [](double) -> Result<bool> { return true; }), 3 * 1024);
  EXPECT_EQ(highest_rate(3, [](double) -> Result<bool> { return failed("no"); }).error().message,
            "no");
}

// --- replay

// Conversations that go on, begin anew and fork, all there at once.
std::vector<TraceRequest> conversations(uint32_t seed, int n) {
  std::mt19937 random(seed);
  std::vector<TraceRequest> trace;
  uint64_t next_id = 0;
  for (int i = 0; i < n; ++i) {
    TraceRequest request{0, 0, static_cast<int32_t>(16 + random() % 100), {}};
    if (!trace.empty() && random() % 4 > 0) {
      const TraceRequest& before = trace[random() % trace.size()];
      const auto whole = static_cast<size_t>(before.prompt_tokens / kTraceBlockTokens);
      request.blocks.assign(before.blocks.begin(),
                            before.blocks.begin() + static_cast<long>(random() % (whole + 1)));
    }
    for (size_t more = 1 + random() % 4; more > 0; --more) request.blocks.push_back(next_id++);
    request.prompt_tokens = static_cast<int32_t>(request.blocks.size()) * kTraceBlockTokens;
    if (random() % 2 == 0) request.prompt_tokens -= 16 * static_cast<int32_t>(random() % 32);
    trace.push_back(std::move(request));
  }
  return trace;
}

size_t common_blocks(const TraceRequest& a, const TraceRequest& b) {
  return std::ranges::mismatch(a.blocks, b.blocks).in1 - a.blocks.begin();
}

TEST(ServeBench, HitsAreTheBlocksThatEarlierRequestsHad) {
  for (const uint32_t seed : {1U, 2U, 3U}) {
    const auto trace = conversations(seed, 40);
    const auto workload = trace_workload(trace, kScale, 1);
    // One after another.
    const auto engine = open(options_with(true));
    const ServeFigures figures = replay(*engine, workload, 1, kAlways);
    ASSERT_EQ(figures.served.size(), trace.size());
    EXPECT_EQ(figures.batch_peak, 1U);
    int want = 0;
    int found = 0;
    for (size_t i = 0; i < trace.size(); ++i) {
      const Served& served = figures.served[i];
      EXPECT_EQ(served.request, i);
      EXPECT_EQ(served.prompt_tokens, trace[i].prompt_tokens / 16);
      size_t blocks = 0;
      for (size_t j = 0; j < i; ++j) blocks = std::max(blocks, common_blocks(trace[i], trace[j]));
      // The last token is always computed.
      const int tokens = std::min(static_cast<int>(blocks) * kBlock, served.prompt_tokens - 1);
      EXPECT_EQ(served.cached_tokens / kBlock, tokens / kBlock) << i;
      EXPECT_GE(served.cached_tokens, tokens) << i;
      want += tokens;
      found += served.cached_tokens;
    }
    EXPECT_GT(want, 0);
    EXPECT_LE(found, want + 4) << "chance gives tokens in 320 a hit or two";
    expect_nothing_held(*engine);
    EXPECT_GT(engine->pool().used(), 0U) << "what finished stays";
  }
}

TEST(ServeBench, WithoutRetentionNothingIsLeftForLaterRequests) {
  const auto workload = trace_workload(conversations(4, 40), kScale, 1);
  const auto engine = open(options_with(false));
  const ServeFigures figures = replay(*engine, workload, 1, kAlways);
  ASSERT_EQ(figures.served.size(), workload.size());
  int most = 0;
  for (const Served& served : figures.served) {
    EXPECT_EQ(served.cached_tokens, 0);
    // The last token's KV is not computed.
    most = std::max(most, served.prompt_tokens + served.output_tokens - 1);
  }
  EXPECT_EQ(figures.kv_bytes_peak, (most + kPanelTokens - 1) / kPanelTokens * kPanelBytes);
  EXPECT_EQ(engine->pool().used(), 0U) << "the bytes are back to the start";
  expect_nothing_held(*engine);
}

TEST(ServeBench, WithoutRetentionHitsComeFromRequestsThatAreAliveTogether) {
  constexpr size_t kAtOnce = 4;
  const auto trace = conversations(5, 60);
  const auto workload = trace_workload(trace, kScale, 1);
  const auto engine = open(options_with(false));
  const ServeFigures figures = replay(*engine, workload, kAtOnce, kAlways);
  ASSERT_EQ(figures.served.size(), trace.size());
  EXPECT_LE(figures.batch_peak, kAtOnce);
  std::vector<size_t> completed_at(trace.size());
  for (size_t at = 0; at < trace.size(); ++at) completed_at[figures.served[at].request] = at;
  int found = 0;
  size_t out_of_reach = 0;  // requests of which more was stored once
  for (const Served& served : figures.served) {
    const size_t i = served.request;
    size_t alive = 0;
    size_t ever = 0;
    for (size_t j = 0; j < trace.size(); ++j) {
      if (j == i) continue;
      const size_t blocks = common_blocks(trace[i], trace[j]);
      if (j < i) ever = std::max(ever, blocks);
      // As the i-th came in, all but kAtOnce - 1 of those before it were complete.
      if (completed_at[j] + kAtOnce > i) alive = std::max(alive, blocks);
    }
    EXPECT_LE(served.cached_tokens / kBlock, static_cast<int>(alive)) << i;
    found += served.cached_tokens;
    out_of_reach += alive < ever ? 1 : 0;
  }
  EXPECT_GT(found, 0);
  EXPECT_GT(out_of_reach, 10U);
  EXPECT_EQ(engine->pool().used(), 0U);
  expect_nothing_held(*engine);
}

TEST(ServeBench, AllAtOnceShareWhatIsComputedOnce) {
  const PoissonShape shape{.rps = 1e9, .prompt = 96, .shared = 80, .gen = 20, .requests = 30};
  const auto workload = poisson_workload(shape);
  for (const bool retention : {false, true}) {
    const auto engine = open(options_with(retention));
    const ServeFigures figures = replay(*engine, workload, 0, kAlways);
    ASSERT_EQ(figures.served.size(), 30U);
    EXPECT_EQ(figures.batch_peak, 30U);
    const ServeSummary sum = summarize(figures);
    EXPECT_GE(sum.cached_tokens, 29U * 80);
    EXPECT_LE(sum.cached_tokens, 29U * 80 + 4) << "but for chance";
    // 5 panels for all, 2 to 3 for each: 16 tokens of its prompt, 19 of its answer.
    EXPECT_LE(figures.kv_bytes_peak, (5 + 30 * 3) * kPanelBytes);
    EXPECT_EQ(engine->pool().used() == 0, !retention);
  }
}

TEST(ServeBench, RequestsAreNotServedBeforeTheyComeAndWaitingIsNoWork) {
  const auto engine = open();
  std::vector<ServeRequest> workload = {{0, 1, {{1, 20}}}, {250, 1, {{2, 20}}}, {250, 2, {{3, 5}}}};
  int asked = 0;
  const ServeFigures figures = replay(*engine, workload, 0, [&](const ServeProgress& progress) {
    EXPECT_LE(progress.done + progress.underway, 3U);
    ++asked;
    return true;
  });
  ASSERT_EQ(figures.served.size(), 3U);
  EXPECT_GE(figures.seconds, 0.25);
  EXPECT_LE(asked, 12) << "it looked that often whether there is something to do";
  for (const Served& served : figures.served) {
    EXPECT_GT(served.first_token_ms, 0);
    EXPECT_GE(served.latency_ms, served.first_token_ms);
    EXPECT_LE(workload[served.request].arrival_ms + served.latency_ms, figures.seconds * 1e3 + 1);
  }
  // Who waits outside is late from its arrival on.
  workload = {{0, 4, {{4, 20}}}, {0, 4, {{5, 20}}}};
  const ServeFigures queued = replay(*engine, workload, 1, kAlways);
  ASSERT_EQ(queued.served.size(), 2U);
  EXPECT_GT(queued.served[1].first_token_ms, queued.served[0].latency_ms);
}

TEST(ServeBench, WhatDoesNotFitIsCountedAndTheOthersGoOn) {
  EngineOptions options = options_with(false);
  options.context = 64;
  const std::vector<ServeRequest> workload = {
      {0, 5, {{1, 60}}}, {0, 4, {{2, 60}}}, {0, 1, {{3, 1 << 30}}}, {0, 1 << 30, {{4, 1}}}};
  auto engine = open(options);
  ServeFigures figures = replay(*engine, workload, 0, kAlways);
  EXPECT_EQ(figures.refused, 3U);
  ASSERT_EQ(figures.served.size(), 1U);
  EXPECT_EQ(figures.served[0].request, 1U);
  expect_nothing_held(*engine);

  options.context = 0;
  options.kv_budget_bytes = 5 * kPanelBytes;  // 80 tokens
  engine = open(options);
  figures =
      replay(*engine, {{{0, 1, {{1, 81}}}, {0, 60, {{2, 30}}}, {0, 40, {{3, 30}}}}}, 0, kAlways);
  EXPECT_EQ(figures.refused, 1U);
  EXPECT_EQ(figures.failed, 1U) << "its answer was cut short";
  ASSERT_EQ(figures.served.size(), 1U);
  EXPECT_EQ(figures.served[0].request, 2U);
  EXPECT_EQ(engine->pool().used(), 0U);
  expect_nothing_held(*engine);
}

TEST(ServeBench, AnInterruptEndsWhatIsUnderWay) {
  const auto engine = open(options_with(false));
  const auto workload =
      poisson_workload({.rps = 1e9, .prompt = 50, .shared = 20, .gen = 30, .requests = 20});
  const ServeFigures figures =
      replay(*engine, workload, 4, [](const ServeProgress& progress) { return progress.done < 3; });
  EXPECT_GE(figures.served.size(), 3U);
  EXPECT_GT(figures.failed, 0U);
  EXPECT_LE(figures.served.size() + figures.failed, 8U);
  EXPECT_EQ(engine->pool().used(), 0U);
  expect_nothing_held(*engine);
}

}  // namespace
}  // namespace banyan
