// SPDX-License-Identifier: Apache-2.0
#include "engine/tree_bench.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>

#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/statistics.h"
#include "engine/normal_table.h"

namespace banyan {
namespace {

// A replay of this length is measured as it is; shorter ones several times, after a first that
// warms caches.
constexpr double kLongReplayMs = 2000;
constexpr int kMostRuns = 7;

// One method: its plan, and what was seen of it.
struct Contender {
  PlanMethod method;
  Plan plan;
  TreeFigures sums;  // of the replay underway
  std::vector<double> plan_ms;
  std::vector<double> attention_ms;
  std::vector<double> step_ms;
};

uint64_t partial_rows(const Plan& plan, int n_heads) {
  uint64_t rows = 0;
  for (const Partial& partial : plan.partials) rows += partial.states();
  return rows / n_heads;
}

class TreeRace {
 public:
  TreeRace(const TreeWorkload& workload, int64_t most_steps, const TreeCounts& counts,
           PanelPool& kv, int n_heads, std::span<const PlanMethod> methods,
           const MeasuredDevice& device)
      : workload_(workload),
        most_steps_(most_steps),
        kv_(kv),
        shape_(kv.planes(0).shape),
        n_heads_(n_heads),
        device_(device),
        executor_(make_cpu_executor(device.pool, {.isa = device.isa, .bf16_products = true})),
        q_(row_floats() * counts.most_rows),
        out_(row_floats() * counts.most_rows) {
    const NormalTable table;
    table.fill_kv(kv, device.pool, device.isa);
    table.fill_rows(q_.span(), shape_.head_dim, device.pool);
    for (const PlanMethod method : methods) contenders_.emplace_back().method = method;
  }

  Result<void> run(FunctionRef<void(int64_t step)> progress) {
    KvTree tree(kv_);
    auto replay = start_replay(workload_, most_steps_, kv_, tree);
    if (!replay) return replay.error();
    StepView view(tree);
    for (Contender& contender : contenders_) contender.sums = {};
    roof_ms_ = 0;
    double tree_ms = 0;
    for (int64_t step = 0;; ++step) {
      progress(step);
      const int64_t start = now_ns();
      const auto more = (*replay)->next();
      tree_ms += ms_since(start);
      if (!more) return more.error();
      if (!*more) break;
      run_step(step, tree, view, (*replay)->pieces());
    }
    for (Contender& contender : contenders_) {
      const TreeFigures& sums = contender.sums;
      contender.plan_ms.push_back(sums.plan_ms);
      contender.attention_ms.push_back(sums.attention_ms);
      contender.step_ms.push_back(tree_ms + sums.plan_ms + sums.attention_ms);
    }
    return {};
  }

  void forget_times() {
    for (Contender& contender : contenders_) {
      contender.plan_ms.clear();
      contender.attention_ms.clear();
      contender.step_ms.clear();
    }
  }

  std::vector<TreeFigures> figures() const {
    std::vector<TreeFigures> figures;
    for (const Contender& contender : contenders_) {
      figures.push_back(contender.sums);
      figures.back().plan_ms = median(contender.plan_ms);
      figures.back().attention_ms = median(contender.attention_ms);
      figures.back().step_ms = median(contender.step_ms);
    }
    return figures;
  }
  double roof_ms() const { return roof_ms_; }

 private:
  size_t row_floats() const { return static_cast<size_t>(n_heads_) * shape_.head_dim; }

  void run_step(int64_t step, const KvTree& tree, StepView& view, std::span<const Piece> pieces) {
    const int64_t start = now_ns();
    const bool is_next = view.update(pieces);
    const double view_ms = ms_since(start);
    // Each method comes after each other one as often as before it.
    for (size_t i = 0; i < contenders_.size(); ++i) {
      Contender& contender = contenders_[(step + i) % contenders_.size()];
      contender.sums.plan_ms += view_ms;
      attend(view.tree(), is_next, contender);
    }
    const uint64_t kv_bytes = shape_.panel_bytes() / kPanelTokens / shape_.n_layers;
    AttentionWork work{tree.positions() * kv_bytes, pieces.size(), 0};
    for (const Piece& piece : pieces) work.visible_pairs += tree.length(piece.seq);
    roof_ms_ += banyan::roof_ms(work, n_heads_, shape_.head_dim, device_.machine) * shape_.n_layers;
  }

  void attend(const TreeView& view, bool is_next, Contender& contender) {
    Plan& plan = contender.plan;
    const DeviceDescription description{.n_workers = device_.pool.size(), .deterministic = false};
    const int64_t start = now_ns();
    if (!is_next || !advance_plan(view, description, plan)) {
      const RowShape rows{
          .n_heads = n_heads_, .n_kv_heads = shape_.n_kv_heads, .head_dim = shape_.head_dim};
      make_plan(contender.method, view, rows, description, plan);
    }
    executor_->prepare(plan, shape_, n_heads_);
    const int64_t planned = now_ns();
    for (int layer = 0; layer < shape_.n_layers; ++layer) {
      executor_->attend(plan,
                        {.q = q_.data(),
                         .kv = kv_.planes(layer),
                         .n_heads = n_heads_,
                         .scale = 1 / std::sqrt(static_cast<float>(shape_.head_dim))},
                        {.out = out_.data()});
    }
    contender.sums.attention_ms += ms_since(planned);
    contender.sums.plan_ms += static_cast<double>(planned - start) * 1e-6;
    contender.sums.kv_tokens_read += plan.kv_tokens_read;
    contender.sums.partial_rows += partial_rows(plan, n_heads_);
  }

  const TreeWorkload& workload_;
  int64_t most_steps_;
  PanelPool& kv_;
  KvShape shape_;
  int n_heads_;
  MeasuredDevice device_;
  std::unique_ptr<AttentionExecutor> executor_;
  AlignedArray<float> q_;  // [row][head][head_dim], of the step with most rows
  AlignedArray<float> out_;
  std::vector<Contender> contenders_;
  double roof_ms_ = 0;
};

}  // namespace

std::optional<uint64_t> tree_memory_bytes(const TreeCounts& counts, const KvShape& kv,
                                          int n_heads) {
  // Two factors below 2^32 each, so only what comes after them can overflow.
  const auto panels = checked_mul(counts.most_panels, kv.panel_bytes());
  const auto rows =
      checked_mul(counts.most_rows, uint64_t(n_heads) * kv.head_dim * 2 * sizeof(float));
  return panels && rows ? checked_add(*panels, *rows) : std::nullopt;
}

Result<TreeBenchResult> bench_tree(const TreeWorkload& workload, int64_t most_steps,
                                   const TreeCounts& counts, const KvShape& kv, int n_heads,
                                   std::span<const PlanMethod> methods,
                                   const MeasuredDevice& device,
                                   FunctionRef<void(int run, int64_t step)> progress) {
  BANYAN_CHECK(!methods.empty() && kv.k_type == kv.v_type && n_heads % kv.n_kv_heads == 0,
               "methods to measure, and heads that share K and V of one type");
  auto pool = PanelPool::create(kv, counts.most_panels * kv.panel_bytes());
  if (!pool) return pool.error();
  try {
    TreeRace race(workload, most_steps, counts, *pool, n_heads, methods, device);
    int runs = 1;
    for (int run = 1; run <= runs; ++run) {
      const int64_t start = now_ns();
      BANYAN_TRY(race.run([&](int64_t step) { progress(run, step); }));
      const double ms = ms_since(start);
      if (run == 1 && ms < kLongReplayMs) {
        runs = 1 + std::clamp(static_cast<int>(kLongReplayMs / ms), 1, kMostRuns);
        race.forget_times();
      }
    }
    return TreeBenchResult{counts, std::max(1, runs - 1), pool->peak_bytes(), race.roof_ms(),
                           race.figures()};
  } catch (const std::bad_alloc&) {
    return failed("no memory for the rows and plans of this tree");
  }
}

}  // namespace banyan
