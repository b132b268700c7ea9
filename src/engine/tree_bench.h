// SPDX-License-Identifier: Apache-2.0
#pragma once
// How long a replayed tree takes with each method of planning its attention: that alone, or the
// steps of a model.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "attention/plan.h"
#include "base/function_ref.h"
#include "base/result.h"
#include "engine/attention_bench.h"
#include "engine/engine.h"
#include "engine/tree_replay.h"

namespace banyan {

struct TreeMethod {
  PlanMethod method;
  int32_t block = 128;  // as DeviceDescription::block
};

// Sums over the steps of a replay. Counters are of one layer (of a model: of the first layer
// group), times of all layers, medians of several replays where these are short.
struct TreeFigures {
  uint64_t kv_tokens_read = 0;  // by each KV head
  uint64_t partial_rows = 0;    // rows of unfinished states, once for all heads
  double plan_ms = 0;           // numbering rows, which is done once for all methods, and planning
  double attention_ms = 0;
  double weights_ms = 0;  // of a model: its products, the logits of all rows included
  double step_ms = 0;     // all of a step, with what the tree itself takes: forks, tokens, prunes
};

struct TreeBenchResult {
  TreeCounts counts;
  int runs = 0;           // replays that the times are of
  uint64_t kv_bytes = 0;  // of panels, at the peak
  double roof_ms = 0;     // of the attention, step by step, as attention_bench.h defines it
  std::vector<TreeFigures> methods;
};

// Memory that bench_tree() takes for K, V, Q and the output; nothing where this does not fit 64
// bits.
std::optional<uint64_t> tree_memory_bytes(const TreeCounts& counts, const KvShape& kv, int n_heads);

// Told the number of the replay, from 1, and of the step before each.
using TreeProgress = FunctionRef<void(int run, int64_t step)>;

// Replays at most `most_steps` steps over random K and V. In each step the tree changes once, then
// all methods, at least one, plan and compute attention in turns. `counts` are those of
// count_steps(). `kv` is of one type for K and V; `n_heads` is a multiple of its KV heads. kFailed
// if the memory cannot be had.
Result<TreeBenchResult> bench_tree(const TreeWorkload& workload, int64_t most_steps,
                                   const TreeCounts& counts, const KvShape& kv, int n_heads,
                                   std::span<const TreeMethod> methods,
                                   const MeasuredDevice& device, TreeProgress progress);

// The same with an engine that nothing else uses: random prompts are computed, then each method
// takes the model through every step, and the logits of all rows. kBadInput where a trace's nodes
// are more than the model has tokens; also errors as StepRunner::run().
Result<TreeBenchResult> bench_tree(const TreeWorkload& workload, int64_t most_steps,
                                   const TreeCounts& counts, Engine& engine,
                                   std::span<const TreeMethod> methods,
                                   const MachineFigures& machine, TreeProgress progress);

}  // namespace banyan
