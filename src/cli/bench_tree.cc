// SPDX-License-Identifier: Apache-2.0
// banyan bench tree: recorded generations that branch, replayed attention only or with a model.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>

#include "base/bytes.h"
#include "cli/cli.h"
#include "engine/tree_bench.h"

namespace banyan {
namespace {

struct TreeOptions {
  CommonOptions common;
  std::string trace;
  std::vector<int> trees;
  std::string prompt = "own";
  std::string steps = "all";
  int heads = 32;
  int kv_heads = 8;
  int head_dim = 128;
  int layers = 1;
  std::string kv_type = "f16";
  std::vector<std::string> methods = {"auto", "paged"};
  std::vector<int> blocks = {128};

  bool has_model() const { return !common.model.empty() || !common.hub_model.empty(); }
};

// Bounds that keep every product of sizes in 64 bits, far above what memories hold.
constexpr int kMostHeads = 4096;
constexpr int kMostHeadDim = 4096;
constexpr int kMostLayers = 4096;
constexpr int kMostThreads = 1024;
constexpr int32_t kMostPrompt = 1 << 24;

// Beside the KV and the rows: plans, partials, and the tree.
constexpr uint64_t kOtherMemory = uint64_t{64} << 20;

// A number from 1 on, or nothing for `word`.
Result<std::optional<int32_t>> number_or(const char* option, const std::string& text,
                                         const char* word, int32_t most) {
  if (text == word) return std::optional<int32_t>();
  int32_t number = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error == std::errc() && stop == end && number >= 1 && number <= most) {
    return std::optional(number);
  }
  return bad_input(fmt::format("{} is \"{}\", expected {} or an integer from 1 to {}", option, text,
                               word, most));
}

constexpr int kFewestBlock = 16;
constexpr int kMostBlock = 1 << 20;

Result<void> check_options(const TreeOptions& o) {
  for (const int block : o.blocks) {
    BANYAN_TRY(check_range("--block", block, kFewestBlock, kMostBlock));
  }
  if (o.has_model()) return {};
  BANYAN_TRY(check_range("--heads", o.heads, 1, kMostHeads));
  BANYAN_TRY(check_range("--kv-heads", o.kv_heads, 1, kMostHeads));
  BANYAN_TRY(check_range("--head-dim", o.head_dim, 1, kMostHeadDim));
  BANYAN_TRY(check_range("--layers", o.layers, 1, kMostLayers));
  BANYAN_TRY(check_range("-t", o.common.threads, 0, kMostThreads));
  if (o.heads % o.kv_heads == 0) return {};
  return bad_input(fmt::format("--heads is {}, expected a multiple of the {} of --kv-heads",
                               o.heads, o.kv_heads));
}

bool takes_block(PlanMethod method) {
  return method == PlanMethod::kNodeChunk || method == PlanMethod::kFlatten;
}

struct Job {
  DType kv_type = DType::kF16;
  TreeWorkload workload;
  int64_t most_steps = 0;
  TreeCounts counts;
  std::vector<TreeMethod> methods;
};

// Whether K, V and rows of attention alone fit the memory.
Result<KvShape> fitting_shape(const TreeOptions& o, const Job& job) {
  const KvShape kv{o.layers, o.kv_heads, o.head_dim, job.kv_type, job.kv_type};
  const auto bytes = tree_memory_bytes(job.counts, kv, o.heads);
  const uint64_t available = available_memory();
  if (bytes && *bytes + kOtherMemory <= available) return kv;
  return bad_input(
      fmt::format("{} with {} layers of {} KV heads of {} needs {} of memory, and {} are free",
                  o.trace, o.layers, o.kv_heads, o.head_dim,
                  bytes ? format_bytes(*bytes) : "more than 16 EiB", format_bytes(available)));
}

Result<Job> make_job(const TreeOptions& o) {
  BANYAN_TRY(check_options(o));
  Job job;
  for (const std::string& text : o.methods) {
    const auto method = parse_plan_method(text);
    if (!method) return method.error();
    const size_t n = takes_block(*method) ? o.blocks.size() : 1;
    for (size_t i = 0; i < n; ++i) job.methods.push_back({*method, o.blocks[i]});
  }
  const auto kv_type = parse_kv_type("--kv-type", o.kv_type);
  if (!kv_type) return kv_type.error();
  job.kv_type = *kv_type;
  const auto prompt = number_or("--prompt", o.prompt, "own", kMostPrompt);
  if (!prompt) return prompt.error();
  constexpr int32_t kAll = std::numeric_limits<int32_t>::max();
  const auto steps = number_or("--steps", o.steps, "all", kAll);
  if (!steps) return steps.error();
  job.most_steps = steps->value_or(kAll);
  const auto trace = open_tree_trace(o.trace);
  if (!trace) return trace.error();
  auto workload = choose_workload(*trace, o.trees, *prompt);
  if (!workload) return bad_input(fmt::format("{}: {}", o.trace, workload.error().message));
  job.workload = *std::move(workload);
  const auto counts = count_steps(job.workload, job.most_steps);
  if (!counts) return counts.error();
  job.counts = *counts;
  return job;
}

double ratio(double above, double below) { return below > 0 ? above / below : 0.0; }

// Which method the others are set against: paged, or else the last.
const TreeFigures& baseline(const Job& job, const TreeBenchResult& result) {
  std::vector<PlanMethod> methods;
  for (const TreeMethod& m : job.methods) methods.push_back(m.method);
  return result.methods[baseline_of(methods)];
}

// "flatten 64" where blocks are compared.
std::string label(const Job& job, const TreeMethod& m) {
  const auto same = [&](const TreeMethod& other) { return other.method == m.method; };
  if (std::ranges::count_if(job.methods, same) == 1) return name(m.method);
  return fmt::format("{} {}", name(m.method), m.block);
}

void print_head(const TreeBenchResult& result, const MeasuredDevice& device, bool has_model) {
  const TreeCounts& counts = result.counts;
  const auto n_tree = static_cast<double>(counts.n_tree_sum);
  fmt::print("{} steps, {} rows; the tree {:.1f} positions a step, paths {:.2f} times as many\n",
             counts.steps, counts.queries, ratio(n_tree, static_cast<double>(counts.steps)),
             ratio(static_cast<double>(counts.path_sum), n_tree));
  fmt::print("KV {} at the peak; {}, {}, {} threads: reads {:.1f} GB/s, {:.0f} GFLOP/s\n",
             format_bytes(result.kv_bytes), cpu_name(), name(device.isa), device.pool.size(),
             device.machine.bandwidth_gbps, device.machine.peak_gflops);
  fmt::print("ratio: {} of the baseline over those of the method\n\n",
             has_model ? "steps ms" : "attention ms");
  fmt::print("{:<14} {:>12} {:>10} ", "method", "attention ms", "plan ms");
  if (has_model) fmt::print("{:>12} ", "weights ms");
  fmt::print("{:>12} {:>8} {:>12} {:>8} {:>6}\n", "steps ms", "x tree", "partial rows", "x roof",
             "ratio");
}

void print_rows(const Job& job, const MeasuredDevice& device, const TreeBenchResult& result,
                bool has_model, bool json) {
  const TreeCounts& counts = result.counts;
  const auto time_of = [&](const TreeFigures& f) { return has_model ? f.step_ms : f.attention_ms; };
  const double baseline_ms = time_of(baseline(job, result));
  const auto n_tree = static_cast<double>(counts.n_tree_sum);
  if (!json) print_head(result, device, has_model);
  for (size_t i = 0; i < result.methods.size(); ++i) {
    const TreeFigures& f = result.methods[i];
    const TreeMethod& method = job.methods[i];
    const double roof_ratio = ratio(f.attention_ms, result.roof_ms);
    if (!json) {
      fmt::print("{:<14} {:>12.2f} {:>10.2f} ", label(job, method), f.attention_ms, f.plan_ms);
      if (has_model) fmt::print("{:>12.2f} ", f.weights_ms);
      fmt::print("{:>12.2f} {:>8.2f} {:>12} {:>8.2f} {:>6.2f}\n", f.step_ms,
                 ratio(static_cast<double>(f.kv_tokens_read), n_tree), f.partial_rows, roof_ratio,
                 ratio(baseline_ms, time_of(f)));
      continue;
    }
    nlohmann::ordered_json row = {{"method", name(method.method)},
                                  {"steps", counts.steps},
                                  {"queries", counts.queries},
                                  {"n_tree_sum", counts.n_tree_sum},
                                  {"path_sum", counts.path_sum},
                                  {"kv_tokens_read", f.kv_tokens_read},
                                  {"partial_rows", f.partial_rows},
                                  {"plan_ms", f.plan_ms},
                                  {"attention_ms", f.attention_ms},
                                  {"step_ms", f.step_ms},
                                  {"roof_ms", result.roof_ms},
                                  {"roof_ratio", roof_ratio},
                                  {"ratio", ratio(baseline_ms, time_of(f))},
                                  {"kv_bytes", result.kv_bytes},
                                  {"runs", result.runs}};
    if (has_model) row["weights_ms"] = f.weights_ms;
    if (takes_block(method.method)) row["block"] = method.block;
    print_json(row);
  }
}

Result<MachineFigures> measured(ThreadPool& pool, Isa isa) {
  ProgressLine line(true);
  line.show("measuring what this machine can do ..");
  return measure_machine(pool, isa);
}

// `bench` replays on what it is given, and tells its progress.
Result<int> replay_and_print(
    const TreeOptions& o, const Job& job, ThreadPool& pool, Isa isa,
    FunctionRef<Result<TreeBenchResult>(const MeasuredDevice&, TreeProgress)> bench) {
  const auto machine = measured(pool, isa);
  if (!machine) return machine.error();
  const MeasuredDevice device{pool, isa, *machine};
  SlowProgress line(log_level(o.common));
  const auto result = bench(device, [&](int run, int64_t step) {
    line.show(
        [&] { return fmt::format("replay {}: {} of {} steps", run, step, job.counts.steps); });
  });
  if (!result) return result.error();
  print_rows(job, device, *result, o.has_model(), o.common.json);
  return 0;
}

Result<int> bench_tree_main(const TreeOptions& o) {
  const auto job = make_job(o);
  if (!job) return job.error();
  if (o.has_model()) {
    CommonOptions common = o.common;
    common.k_type = common.v_type = o.kv_type;
    const auto engine = open_engine(common);
    if (!engine) return engine.error();
    return replay_and_print(o, *job, (*engine)->threads(), (*engine)->options().isa,
                            [&](const MeasuredDevice& device, TreeProgress progress) {
                              return bench_tree(job->workload, job->most_steps, job->counts,
                                                **engine, job->methods, device.machine, progress);
                            });
  }
  const auto kv = fitting_shape(o, *job);
  if (!kv) return kv.error();
  const auto isa = isa_from_environment();
  if (!isa) return isa.error();
  ThreadPool pool(o.common.threads > 0 ? o.common.threads : ThreadPool::physical_cores());
  return replay_and_print(o, *job, pool, *isa,
                          [&](const MeasuredDevice& device, TreeProgress progress) {
                            return bench_tree(job->workload, job->most_steps, job->counts, *kv,
                                              o.heads, job->methods, device, progress);
                          });
}

}  // namespace

Command bench_tree_command() {
  auto o = std::make_shared<TreeOptions>();
  auto app = std::make_unique<CLI::App>(
      "A recorded generation that branches, step by step: its attention over random K, V and Q, or "
      "with -m all that a model does.");
  app->add_option("TRACE", o->trace, "a treetrace-1 file: trees, a forest, a fan or drafts")
      ->required();
  app->add_option(
         "--tree", o->trees,
         "which: places of trees that grow together (default: 0, of a forest all), or a draft's "
         "tokens")
      ->delimiter(',');
  app->add_option("--prompt", o->prompt, "own, or as many tokens as this (default: own)");
  app->add_option("--steps", o->steps, "all, or this many at most (default: all)");
  app->add_option("--method", o->methods,
                  "auto, paged, two-phase, node, node-chunk, flatten (default: auto,paged)")
      ->delimiter(',');
  app->add_option("--block", o->blocks,
                  "positions of a block of node-chunk and flatten (default: 128)")
      ->delimiter(',');
  std::vector<CLI::Option*> shape = {
      app->add_option("--heads", o->heads, "query heads (default: 32)"),
      app->add_option("--kv-heads", o->kv_heads, "KV heads (default: 8)"),
      app->add_option("--head-dim", o->head_dim, "dimensions of a head (default: 128)"),
      app->add_option("--layers", o->layers, "layers (default: 1)")};
  app->add_option("--kv-type", o->kv_type, "f32, f16, bf16 or q8_0 (default: f16)");
  app->add_option("-t,--threads", o->common.threads, "threads (default: physical cores)");
  add_common_options(*app, o->common, /*engine=*/false);
  for (CLI::Option* option : shape) {
    option->excludes(app->get_option("--model"))->excludes(app->get_option("--hf"));
  }
  return {std::move(app), [o] { return bench_tree_main(*o); }};
}

}  // namespace banyan
