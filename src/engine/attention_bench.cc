// SPDX-License-Identifier: Apache-2.0
#include "engine/attention_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <new>

#include "base/buffer.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/statistics.h"
#include "engine/attention_sample.h"

namespace banyan {
namespace {

constexpr int kSampledRows = 64;

// Runs of each method: many of short ones, few of long ones. A first run, which also warms caches
// and takes memory for the first time, counts only where it takes so long that this is nothing.
constexpr int kLeastRuns = 7;
constexpr int kMostRuns = 200;
constexpr double kEnoughMs = 1000;       // of one method
constexpr double kLongRunMs = 3000;      // runs of this length are measured twice ..
constexpr double kLongestRunMs = 10000;  // .. and once from here

// Multiplies and adds of one layer: q.k and p.v over head_dim.
double flops(uint64_t visible_pairs, int n_heads, int head_dim) {
  return 4.0 * head_dim * static_cast<double>(visible_pairs) * n_heads;
}

struct Output {
  AlignedArray<float> out;
  AlignedArray<float> lse;

  explicit Output(const AttentionCase& shape)
      : out(static_cast<size_t>(shape.n_rows()) * shape.n_heads * shape.head_dim),
        lse(static_cast<size_t>(shape.n_rows()) * shape.n_heads) {}
  AttendOutputs view() { return {.out = out.data(), .lse = lse.data()}; }
};

// One method, and what was seen of it.
struct Contender {
  PlanMethod method;
  Plan plan;
  AttentionErrors errors;
  int wanted_runs = 1;
  std::vector<double> plan_ms;
  std::vector<double> attend_ms;
};

using Progress = std::function<void(const std::string&)>;

class Race {
 public:
  Race(const AttentionWorkload& workload, const MeasuredDevice& device)
      : workload_(workload),
        n_workers_(device.pool.size()),
        executor_(make_cpu_executor(device.pool, {.isa = device.isa, .pair_products = true})),
        output_(workload.shape()) {}

  void enter(PlanMethod method, const AttentionSample& sample) {
    Contender& contender = contenders_.emplace_back();
    contender.method = method;
    run(contender);
    contender.errors = compare(sample, workload_.shape(), output_.view());
    const double first_ms = contender.attend_ms[0];
    if (first_ms >= kLongestRunMs) return;
    contender.wanted_runs =
        first_ms >= kLongRunMs
            ? 2
            : std::clamp(static_cast<int>(kEnoughMs / first_ms), kLeastRuns, kMostRuns);
    contender.attend_ms.clear();
    contender.plan_ms.clear();
  }

  void run_in_turns(const Progress& progress) {
    int rounds = 0;
    for (const Contender& c : contenders_) rounds = std::max(rounds, c.wanted_runs);
    for (int round = 0; round < rounds; ++round) {
      // Not before each of many short runs: a terminal takes time too.
      if (round % 20 == 0 || rounds <= 20) {
        progress(fmt::format("run {} of {} ..", round + 1, rounds));
      }
      for (Contender& contender : contenders_) {
        if (static_cast<int>(contender.attend_ms.size()) < contender.wanted_runs) run(contender);
      }
    }
  }

  const std::vector<Contender>& contenders() const { return contenders_; }

 private:
  void run(Contender& contender) {
    const AttentionCase& shape = workload_.shape();
    const int64_t start = now_ns();
    make_plan(contender.method, workload_.tree(), workload_.row_shape(),
              {.n_workers = n_workers_, .deterministic = false}, contender.plan);
    executor_->prepare(contender.plan, workload_.inputs(0).kv.shape, shape.n_heads);
    const int64_t planned = now_ns();
    for (int layer = 0; layer < shape.n_layers; ++layer) {
      executor_->attend(contender.plan, workload_.inputs(layer), output_.view());
    }
    contender.attend_ms.push_back(ms_since(planned));
    contender.plan_ms.push_back(ms_between(start, planned));
  }

  const AttentionWorkload& workload_;
  int n_workers_;
  std::unique_ptr<AttentionExecutor> executor_;
  Output output_;  // of the last layer of the last run
  std::vector<Contender> contenders_;
};

AttentionFigures figures_of(const Contender& contender, const AttentionCase& shape,
                            const MachineFigures& machine, int sampled) {
  AttentionFigures f;
  f.ms = median(contender.attend_ms);
  f.plan_ms = median(contender.plan_ms);
  f.runs = static_cast<int>(contender.attend_ms.size());
  f.kv_bytes = contender.plan.kv_tokens_read * shape.kv_bytes_per_token() * shape.n_layers;
  f.partial_bytes = contender.plan.workspace_floats * sizeof(float) * shape.n_layers;
  f.gbps = static_cast<double>(f.kv_bytes) / f.ms * 1e-6;
  f.gflops =
      flops(shape.visible_pairs(), shape.n_heads, shape.head_dim) * shape.n_layers / f.ms * 1e-6;
  f.roof_ms = roof_ms(shape, machine);
  f.roof_ratio = f.ms / f.roof_ms;
  f.sampled = sampled;
  f.rel_err = contender.errors.rel_err;
  f.recall_mean = contender.errors.recall_mean;
  f.recall_p5 = contender.errors.recall_p5;
  return f;
}

Result<std::vector<AttentionFigures>> measure(const AttentionCase& shape,
                                              std::span<const PlanMethod> methods,
                                              const MeasuredDevice& device,
                                              const Progress& progress) {
  progress("writing random K and V ..");
  const auto workload = AttentionWorkload::create(shape, device.pool, device.isa);
  if (!workload) return workload.error();
  progress("computing exact attention of some rows ..");
  const AttentionSample sample =
      sample_attention(*workload, shape.n_layers - 1, kSampledRows, device.pool, device.isa);
  Race race(*workload, device);
  for (const PlanMethod method : methods) {
    progress(fmt::format("first run of {} ..", name(method)));
    race.enter(method, sample);
  }
  race.run_in_turns(progress);
  std::vector<AttentionFigures> figures;
  const Contender& baseline = race.contenders()[baseline_of(methods)];
  for (const Contender& contender : race.contenders()) {
    figures.push_back(
        figures_of(contender, shape, device.machine, static_cast<int>(sample.rows.size())));
    figures.back().ratio = ratio_of_times(baseline.attend_ms, contender.attend_ms);
  }
  return figures;
}

}  // namespace

double roof_ms(const AttentionWork& work, int n_heads, int head_dim,
               const MachineFigures& machine) {
  const double q_and_out_bytes =
      2.0 * sizeof(float) * static_cast<double>(work.rows) * n_heads * head_dim;
  const double bytes = static_cast<double>(work.kv_bytes) + q_and_out_bytes;
  const double exps = static_cast<double>(work.visible_pairs) * n_heads;
  const double memory_ms = bytes / machine.bandwidth_gbps * 1e-6;
  const double arithmetic_ms = (flops(work.visible_pairs, n_heads, head_dim) / machine.peak_gflops +
                                exps / machine.peak_gexps) *
                               1e-6;
  return std::max(memory_ms, arithmetic_ms);
}

double roof_ms(const AttentionCase& shape, const MachineFigures& machine) {
  const AttentionWork work{shape.stored_kv_bytes(), static_cast<uint64_t>(shape.n_rows()),
                           shape.visible_pairs()};
  return roof_ms(work, shape.n_heads, shape.head_dim, machine) * shape.n_layers;
}

size_t baseline_of(std::span<const PlanMethod> methods) {
  const auto paged = std::ranges::find(methods, PlanMethod::kPaged);
  return paged == methods.end() ? methods.size() - 1 : paged - methods.begin();
}

Result<std::vector<AttentionFigures>> bench_attention(const AttentionCase& shape,
                                                      std::span<const PlanMethod> methods,
                                                      const MeasuredDevice& device,
                                                      const Progress& progress) {
  BANYAN_CHECK(!methods.empty(), "a benchmark of no method");
  try {
    return measure(
        shape, methods, device, progress ? progress : [](const std::string&) {});
  } catch (const std::bad_alloc&) {
    return failed("no memory for the output of this attention");
  }
}

}  // namespace banyan
