// SPDX-License-Identifier: Apache-2.0
#include "engine/tree_bench.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/statistics.h"
#include "engine/normal_table.h"
#include "engine/speed_bench.h"

namespace banyan {
namespace {

// A replay of this length is measured as it is; shorter ones several times, after a first that
// warms caches.
constexpr double kLongReplayMs = 2000;
constexpr int kMostRuns = 7;

// One method, and what was seen of it.
struct Contender {
  TreeMethod method;
  TreeFigures sums = {};  // of the replay underway
  std::vector<TreeFigures> replays = {};
};

uint64_t partial_rows(const Plan& plan, int n_heads) {
  uint64_t rows = 0;
  for (const Partial& partial : plan.partials) rows += partial.states();
  return rows / n_heads;
}

// Layers whose attention has to do alike.
struct AlikeLayers {
  int count = 0;
  int n_heads = 0;
  int head_dim = 0;
  uint64_t kv_bytes = 0;  // of a position, in one layer
  int32_t window = Band::kCausal;
};

uint64_t position_bytes(const KvShape& kv) { return kv.panel_bytes() / kPanelTokens / kv.n_layers; }

// Replays, step by step, with all methods in turns.
class TreeRace {
 public:
  TreeRace(const TreeWorkload& workload, int64_t most_steps, PanelPool& kv,
           std::span<const TreeMethod> methods, const MachineFigures& machine)
      : workload_(workload), kv_(kv), most_steps_(most_steps), machine_(machine) {
    for (const TreeMethod& method : methods) contenders_.push_back({method});
  }
  virtual ~TreeRace() = default;

  Result<TreeBenchResult> run(const TreeCounts& counts, TreeProgress progress) {
    int runs = 1;
    for (int run = 1; run <= runs; ++run) {
      const int64_t start = now_ns();
      BANYAN_TRY(run_once([&](int64_t step) { progress(run, step); }));
      const double ms = ms_since(start);
      if (run == 1 && ms < kLongReplayMs) {
        runs = 1 + std::clamp(static_cast<int>(kLongReplayMs / ms), 1, kMostRuns);
        for (Contender& contender : contenders_) contender.replays.clear();
      }
    }
    TreeBenchResult result{counts, std::max(1, runs - 1), kv_.peak_bytes(), roof_ms_, {}};
    for (const Contender& contender : contenders_) result.methods.push_back(median_of(contender));
    return result;
  }

 protected:
  virtual KvTree& tree() = 0;
  virtual Result<std::vector<SeqId>> open_prompts() = 0;
  // Before the methods take their turns at these pieces.
  virtual void view(std::span<const Piece>) {}
  // Adds one method's turn to its sums, but for what the tree takes.
  virtual Result<void> run_step(std::span<const Piece> pieces, size_t method,
                                TreeFigures& sums) = 0;

  const TreeWorkload& workload_;
  PanelPool& kv_;
  std::vector<AlikeLayers> layers_;

 private:
  Result<void> run_once(FunctionRef<void(int64_t step)> progress) {
    const auto prompts = open_prompts();
    if (!prompts) return prompts.error();
    const auto replay = start_replay(workload_, most_steps_, kv_, tree(), *prompts);
    for (Contender& contender : contenders_) contender.sums = {};
    roof_ms_ = 0;
    double tree_ms = 0;
    for (int64_t step = 0;; ++step) {
      progress(step);
      const int64_t start = now_ns();
      const auto more = replay->next();
      tree_ms += ms_since(start);
      if (!more) return more.error();
      if (!*more) break;
      view(replay->pieces());
      // Each method comes after each other one as often as before it.
      for (size_t i = 0; i < contenders_.size(); ++i) {
        const size_t method = (step + i) % contenders_.size();
        BANYAN_TRY(run_step(replay->pieces(), method, contenders_[method].sums));
      }
      add_roof(replay->pieces(), tree().positions() - replay->waiting_positions());
    }
    for (Contender& contender : contenders_) {
      contender.sums.step_ms += tree_ms;
      contender.replays.push_back(contender.sums);
    }
    return {};
  }

  // `positions`: of the tree, those that some row sees.
  void add_roof(std::span<const Piece> pieces, uint64_t positions) {
    for (const AlikeLayers& layers : layers_) {
      AttentionWork work{.rows = pieces.size()};
      for (const Piece& piece : pieces) {
        work.visible_pairs += std::min(tree().length(piece.seq), layers.window);
      }
      work.kv_bytes = std::min(positions, work.visible_pairs) * layers.kv_bytes;
      roof_ms_ += roof_ms(work, layers.n_heads, layers.head_dim, machine_) * layers.count;
    }
  }

  static TreeFigures median_of(const Contender& contender) {
    TreeFigures figures = contender.sums;
    for (double TreeFigures::*ms : {&TreeFigures::plan_ms, &TreeFigures::attention_ms,
                                    &TreeFigures::weights_ms, &TreeFigures::step_ms}) {
      std::vector<double> all;
      for (const TreeFigures& replay : contender.replays) all.push_back(replay.*ms);
      figures.*ms = median(all);
    }
    return figures;
  }

  int64_t most_steps_;
  MachineFigures machine_;
  std::vector<Contender> contenders_;
  double roof_ms_ = 0;
};

class AttentionRace final : public TreeRace {
 public:
  AttentionRace(const TreeWorkload& workload, int64_t most_steps, uint32_t most_rows, PanelPool& kv,
                int n_heads, std::span<const TreeMethod> methods, const MeasuredDevice& device)
      : TreeRace(workload, most_steps, kv, methods, device.machine),
        tree_(kv),
        view_(tree_),
        shape_(kv.planes(0).shape),
        n_heads_(n_heads),
        executor_(make_cpu_executor(device.pool, {.isa = device.isa, .pair_products = true})),
        q_(row_floats() * most_rows),
        out_(row_floats() * most_rows) {
    const NormalTable table;
    table.fill_kv(kv, device.pool, device.isa);
    table.fill_rows(q_.span(), shape_.head_dim, device.pool);
    layers_ = {{shape_.n_layers, n_heads, shape_.head_dim, position_bytes(shape_)}};
    for (const TreeMethod& method : methods) {
      planned_.push_back(
          {method.method,
           {.n_workers = device.pool.size(), .deterministic = false, .block = method.block},
           {}});
    }
  }

 private:
  struct Planned {
    PlanMethod method;
    DeviceDescription device;
    Plan plan;
  };

  size_t row_floats() const { return static_cast<size_t>(n_heads_) * shape_.head_dim; }

  KvTree& tree() override { return tree_; }
  Result<std::vector<SeqId>> open_prompts() override {
    return banyan::open_prompts(workload_, tree_);
  }

  void view(std::span<const Piece> pieces) override {
    const int64_t start = now_ns();
    is_next_ = view_.update(pieces);
    view_ms_ = ms_since(start);
  }

  Result<void> run_step(std::span<const Piece>, size_t method, TreeFigures& sums) override {
    auto& [how, device, plan] = planned_[method];
    const int64_t start = now_ns();
    if (!is_next_ || !advance_plan(view_.tree(), device, plan)) {
      const RowShape rows{
          .n_heads = n_heads_, .n_kv_heads = shape_.n_kv_heads, .head_dim = shape_.head_dim};
      make_plan(how, view_.tree(), rows, device, plan);
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
    const double attention_ms = ms_since(planned);
    const double plan_ms = view_ms_ + ms_between(start, planned);
    sums.attention_ms += attention_ms;
    sums.plan_ms += plan_ms;
    sums.step_ms += plan_ms + attention_ms;
    sums.kv_tokens_read += plan.kv_tokens_read;
    sums.partial_rows += partial_rows(plan, n_heads_);
    return {};
  }

  KvTree tree_;
  StepView view_;
  bool is_next_ = false;
  double view_ms_ = 0;
  KvShape shape_;
  int n_heads_;
  std::unique_ptr<AttentionExecutor> executor_;
  AlignedArray<float> q_;  // [row][head][head_dim], of the step with most rows
  AlignedArray<float> out_;
  std::vector<Planned> planned_;
};

class ModelRace final : public TreeRace {
 public:
  ModelRace(const TreeWorkload& workload, int64_t most_steps, uint32_t most_rows, Engine& engine,
            std::span<const TreeMethod> methods, const MachineFigures& machine)
      : TreeRace(workload, most_steps, engine.pool(), methods, machine), engine_(engine) {
    for (const TreeMethod& m : methods) {
      runners_.push_back(engine.make_steps(m.method, m.block, static_cast<int>(most_rows)));
    }
    const Hyperparameters& hp = engine.model().hp;
    for (int layer = 0; layer < hp.n_layers; ++layer) {
      const LayerGroup& group = hp.groups[hp.layers[layer].group];
      layers_.push_back(
          {1, group.n_heads, hp.head_dim, position_bytes(kv_.planes(layer).shape), group.window});
    }
  }

 private:
  KvTree& tree() override { return engine_.tree(); }

  Result<std::vector<SeqId>> open_prompts() override {
    TokenSource source(engine_.model().hp.vocab);
    std::vector<SeqId> prompts;
    for (const int32_t length : prompt_lengths(workload_)) {
      prompts.push_back(tree().open({}, 0).seq);
      BANYAN_TRY(read_prompt(engine_, prompts.back(), source.take(length)));
    }
    return prompts;
  }

  Result<void> run_step(std::span<const Piece> pieces, size_t method, TreeFigures& sums) override {
    const int vocab = engine_.model().hp.vocab;
    for (const Piece& piece : pieces) {
      if (piece.tokens[0] < vocab) continue;
      return bad_input(fmt::format(
          "the trace has more nodes than the {} tokens of the model, which it takes for them",
          vocab));
    }
    StepRunner& runner = runners_[method];
    const StepTimes before = runner.times();
    const int64_t plan_before = runner.plan_ns();
    const int64_t start = now_ns();
    BANYAN_TRY(runner.run_extended(pieces));
    sums.step_ms += ms_since(start);
    sums.attention_ms += ms_between(before.attention_ns, runner.times().attention_ns);
    sums.weights_ms += ms_between(before.weights_ns, runner.times().weights_ns);
    sums.plan_ms += ms_between(plan_before, runner.plan_ns());
    sums.kv_tokens_read += runner.plan().kv_tokens_read;
    sums.partial_rows += partial_rows(runner.plan(), engine_.model().hp.groups[0].n_heads);
    return {};
  }

  Engine& engine_;
  std::vector<StepRunner> runners_;  // by method
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
                                   std::span<const TreeMethod> methods,
                                   const MeasuredDevice& device, TreeProgress progress) {
  BANYAN_CHECK(!methods.empty() && kv.k_type == kv.v_type && n_heads % kv.n_kv_heads == 0,
               "methods to measure, and heads that share K and V of one type");
  auto pool = PanelPool::create(kv, counts.most_panels * kv.panel_bytes());
  if (!pool) return pool.error();
  try {
    AttentionRace race(workload, most_steps, counts.most_rows, *pool, n_heads, methods, device);
    return race.run(counts, progress);
  } catch (const std::bad_alloc&) {
    return failed("no memory for the rows and plans of this tree");
  }
}

Result<TreeBenchResult> bench_tree(const TreeWorkload& workload, int64_t most_steps,
                                   const TreeCounts& counts, Engine& engine,
                                   std::span<const TreeMethod> methods,
                                   const MachineFigures& machine, TreeProgress progress) {
  BANYAN_CHECK(!methods.empty(), "methods to measure");
  try {
    ModelRace race(workload, most_steps, std::max(1U, counts.most_rows), engine, methods, machine);
    return race.run(counts, progress);
  } catch (const std::bad_alloc&) {
    return failed("no memory for the rows and plans of this tree");
  }
}

}  // namespace banyan
