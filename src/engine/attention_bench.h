// SPDX-License-Identifier: Apache-2.0
#pragma once
// How fast attention by itself is, set against what the machine could do at best.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "attention/plan.h"
#include "base/isa.h"
#include "base/result.h"
#include "base/statistics.h"
#include "base/thread_pool.h"
#include "engine/attention_workload.h"
#include "tensor/cpu/machine.h"

namespace banyan {

// Of all layers together unless said; times are medians of several runs.
struct AttentionFigures {
  double ms = 0;               // attention of one step
  double plan_ms = 0;          // planning it (one plan for all layers)
  int runs = 0;                // that the medians are of
  uint64_t kv_bytes = 0;       // K and V that the plan reads
  uint64_t partial_bytes = 0;  // of unfinished softmax states that the plan writes
  double gbps = 0;             // kv_bytes / ms, 1e9 bytes/s
  double gflops = 0;           // multiplies and adds over visible pairs / ms, 1e9/s
  double roof_ms = 0;          // see below
  double roof_ratio = 0;       // ms / roof_ms
  RatioFigures ratio;          // of the baseline's ms over this, turn by turn
  // Against exact attention in double, on `sampled` rows.
  int sampled = 0;
  double rel_err = 0;      // largest difference over root mean square
  double recall_mean = 0;  // kept share of the softmax
  double recall_p5 = 0;
};

// What attention of one layer has to do at least.
struct AttentionWork {
  uint64_t kv_bytes = 0;  // each stored K and V once
  uint64_t rows = 0;
  uint64_t visible_pairs = 0;  // (row, key)
};

// What that takes at best, in ms: max(bytes / bandwidth, flops / peak_gflops + exps / peak_gexps),
// where bytes are those of KV, Q and the output. No schedule is faster, unless caches keep the KV
// from run to run.
double roof_ms(const AttentionWork& work, int n_heads, int head_dim, const MachineFigures& machine);

// The same of a case, all layers.
double roof_ms(const AttentionCase& shape, const MachineFigures& machine);

// What a benchmark runs on.
struct MeasuredDevice {
  ThreadPool& pool;  // borrowed
  Isa isa = Isa::kBaseline;
  MachineFigures machine;
};

// Which of some methods, at least one, the others are set against: kPaged, or else the last.
size_t baseline_of(std::span<const PlanMethod> methods);

// Random K, V and Q, then all methods in turns, run by run; figures in the order of `methods`,
// which is not empty. kDense is for cases of one sequence. `progress`, which may be empty, is told
// what comes next before parts that may take long. kFailed if the memory cannot be had.
Result<std::vector<AttentionFigures>> bench_attention(
    const AttentionCase& shape, std::span<const PlanMethod> methods, const MeasuredDevice& device,
    const std::function<void(const std::string&)>& progress);

}  // namespace banyan
