// SPDX-License-Identifier: Apache-2.0
// banyan bench tree: recorded generations that branch, replayed attention only.
#include <fmt/format.h>

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
  std::optional<int> tree;
  std::string prompt = "own";
  std::string steps = "all";
  int heads = 32;
  int kv_heads = 8;
  int head_dim = 128;
  int layers = 1;
  std::string kv_type = "f16";
  std::vector<std::string> methods = {"auto", "paged"};
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

Result<void> check_options(const TreeOptions& o) {
  if (!o.common.model.empty() || !o.common.hub_model.empty()) {
    return bad_input(
        "a model was given, and bench tree replays attention alone, expected --heads, --kv-heads "
        "and --head-dim of one instead");
  }
  BANYAN_TRY(check_range("--heads", o.heads, 1, kMostHeads));
  BANYAN_TRY(check_range("--kv-heads", o.kv_heads, 1, kMostHeads));
  BANYAN_TRY(check_range("--head-dim", o.head_dim, 1, kMostHeadDim));
  BANYAN_TRY(check_range("--layers", o.layers, 1, kMostLayers));
  BANYAN_TRY(check_range("-t", o.common.threads, 0, kMostThreads));
  if (o.heads % o.kv_heads == 0) return {};
  return bad_input(fmt::format("--heads is {}, expected a multiple of the {} of --kv-heads",
                               o.heads, o.kv_heads));
}

struct Job {
  TreeWorkload workload;
  int64_t most_steps = 0;
  TreeCounts counts;
  KvShape kv;
  std::vector<PlanMethod> methods;
};

Result<Job> make_job(const TreeOptions& o) {
  BANYAN_TRY(check_options(o));
  Job job;
  for (const std::string& text : o.methods) {
    const auto method = parse_plan_method(text);
    if (!method) return method.error();
    job.methods.push_back(*method);
  }
  const auto type = parse_kv_type("--kv-type", o.kv_type);
  if (!type) return type.error();
  job.kv = {o.layers, o.kv_heads, o.head_dim, *type, *type};
  const auto prompt = number_or("--prompt", o.prompt, "own", kMostPrompt);
  if (!prompt) return prompt.error();
  constexpr int32_t kAll = std::numeric_limits<int32_t>::max();
  const auto steps = number_or("--steps", o.steps, "all", kAll);
  if (!steps) return steps.error();
  job.most_steps = steps->value_or(kAll);
  const auto trace = open_tree_trace(o.trace);
  if (!trace) return trace.error();
  auto workload = choose_workload(*trace, o.tree, *prompt);
  if (!workload) return bad_input(fmt::format("{}: {}", o.trace, workload.error().message));
  job.workload = *std::move(workload);
  const auto counts = count_steps(job.workload, job.most_steps);
  if (!counts) return counts.error();
  job.counts = *counts;
  const auto bytes = tree_memory_bytes(job.counts, job.kv, o.heads);
  const uint64_t available = available_memory();
  if (!bytes || *bytes + kOtherMemory > available) {
    return bad_input(
        fmt::format("{} with {} layers of {} KV heads of {} needs {} of memory, and {} are free",
                    o.trace, o.layers, o.kv_heads, o.head_dim,
                    bytes ? format_bytes(*bytes) : "more than 16 EiB", format_bytes(available)));
  }
  return job;
}

double ratio(double above, double below) { return below > 0 ? above / below : 0.0; }

void print_rows(const Job& job, const MeasuredDevice& device, const TreeBenchResult& result,
                bool json) {
  const TreeCounts& counts = result.counts;
  const double baseline_ms = result.methods[baseline_of(job.methods)].attention_ms;
  const auto n_tree = static_cast<double>(counts.n_tree_sum);
  if (!json) {
    fmt::print("{} steps, {} rows; the tree {:.1f} positions a step, paths {:.2f} times as many\n",
               counts.steps, counts.queries, ratio(n_tree, static_cast<double>(counts.steps)),
               ratio(static_cast<double>(counts.path_sum), n_tree));
    fmt::print("KV {} at the peak; {}, {}, {} threads: reads {:.1f} GB/s, {:.0f} GFLOP/s\n\n",
               format_bytes(result.kv_bytes), cpu_name(), name(device.isa), device.pool.size(),
               device.machine.bandwidth_gbps, device.machine.peak_gflops);
    fmt::print("{:<12} {:>12} {:>10} {:>12} {:>8} {:>12} {:>8} {:>6}\n", "method", "attention ms",
               "plan ms", "steps ms", "x tree", "partial rows", "x roof", "ratio");
  }
  for (size_t i = 0; i < result.methods.size(); ++i) {
    const TreeFigures& f = result.methods[i];
    const char* method = name(job.methods[i]);
    const double roof_ratio = ratio(f.attention_ms, result.roof_ms);
    if (!json) {
      fmt::print("{:<12} {:>12.2f} {:>10.2f} {:>12.2f} {:>8.2f} {:>12} {:>8.2f} {:>6.2f}\n", method,
                 f.attention_ms, f.plan_ms, f.step_ms,
                 ratio(static_cast<double>(f.kv_tokens_read), n_tree), f.partial_rows, roof_ratio,
                 ratio(baseline_ms, f.attention_ms));
      continue;
    }
    print_json({{"method", method},
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
                {"ratio", ratio(baseline_ms, f.attention_ms)},
                {"kv_bytes", result.kv_bytes},
                {"runs", result.runs}});
  }
}

Result<int> bench_tree_main(const TreeOptions& o) {
  const auto job = make_job(o);
  if (!job) return job.error();
  const auto isa = isa_from_environment();
  if (!isa) return isa.error();
  ThreadPool pool(o.common.threads > 0 ? o.common.threads : ThreadPool::physical_cores());
  std::optional<MachineFigures> machine;
  {
    ProgressLine line(true);
    line.show("measuring what this machine can do ..");
    const auto measured = measure_machine(pool, *isa);
    if (!measured) return measured.error();
    machine = *measured;
  }
  const MeasuredDevice device{pool, *isa, *machine};
  SlowProgress line(log_level(o.common));
  const auto result =
      bench_tree(job->workload, job->most_steps, job->counts, job->kv, o.heads, job->methods,
                 device, [&](int run, int64_t step) {
                   line.show([&] {
                     return fmt::format("replay {}: {} of {} steps", run, step, job->counts.steps);
                   });
                 });
  if (!result) return result.error();
  print_rows(*job, device, *result, o.common.json);
  return 0;
}

}  // namespace

Command bench_tree_command() {
  auto o = std::make_shared<TreeOptions>();
  auto app = std::make_unique<CLI::App>(
      "Attention of a recorded generation that branches, step by step, over random K, V and Q.");
  app->add_option("TRACE", o->trace, "a treetrace-1 file: trees, a fan or drafts")->required();
  app->add_option("--tree", o->tree,
                  "which: a tree's place (default: 0), or a draft's number of tokens");
  app->add_option("--prompt", o->prompt, "own, or as many tokens as this (default: own)");
  app->add_option("--steps", o->steps, "all, or this many at most (default: all)");
  app->add_option("--method", o->methods,
                  "auto, paged, two-phase, node, node-chunk, flatten (default: auto,paged)")
      ->delimiter(',');
  app->add_option("--heads", o->heads, "query heads (default: 32)");
  app->add_option("--kv-heads", o->kv_heads, "KV heads (default: 8)");
  app->add_option("--head-dim", o->head_dim, "dimensions of a head (default: 128)");
  app->add_option("--layers", o->layers, "layers (default: 1)");
  app->add_option("--kv-type", o->kv_type, "f32, f16, bf16 or q8_0 (default: f16)");
  app->add_option("-t,--threads", o->common.threads, "threads (default: physical cores)");
  add_common_options(*app, o->common, /*engine=*/false);
  return {std::move(app), [o] { return bench_tree_main(*o); }};
}

}  // namespace banyan
