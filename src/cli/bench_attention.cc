// SPDX-License-Identifier: Apache-2.0
// banyan bench attention: attention by itself, without a model, beside the roofs of this machine.
#include <fmt/format.h>

#include <charconv>
#include <optional>

#include "base/bytes.h"
#include "cli/cli.h"
#include "engine/attention_bench.h"

namespace banyan {
namespace {

struct AttentionOptions {
  CommonOptions common;
  std::optional<int> rows;
  std::optional<int> prefill;
  std::optional<int> context;
  int shared = 0;
  std::vector<std::string> levels;
  int own = 0;
  int heads = 32;
  int kv_heads = 32;
  int head_dim = 128;
  int layers = 1;
  std::vector<std::string> kv_types = {"f16"};
  std::vector<std::string> methods = {"auto", "paged"};
  std::vector<std::string> patterns = {"dense"};
  std::string planted = "none";
  std::vector<double> swa = {1};
  std::vector<int> swa_blocks = {1};
};

// What one call of bench_attention() measures.
struct Job {
  AttentionCase shape;
  std::vector<PlanMethod> methods;
  std::string what;     // the options that make it so large, as given
  std::string kv_type;  // as given
  int swa_block = 1;
};

// Bounds that keep every product of sizes in 64 bits, far above what memories hold.
constexpr int kMostHeads = 4096;
constexpr int kMostHeadDim = 4096;
constexpr int kMostLayers = 4096;
constexpr int kMostThreads = 1024;
constexpr int kMostRows = 1 << 20;
constexpr int kMostPositions = 1 << 27;
constexpr int kMostPrefill = 1 << 24;

// Beside the KV and the rows: samples, plans and partials.
constexpr uint64_t kOtherMemory = uint64_t{64} << 20;

Result<void> check_shape(const AttentionOptions& o) {
  BANYAN_TRY(check_range("--heads", o.heads, 1, kMostHeads));
  BANYAN_TRY(check_range("--kv-heads", o.kv_heads, 1, kMostHeads));
  BANYAN_TRY(check_range("--head-dim", o.head_dim, 1, kMostHeadDim));
  BANYAN_TRY(check_range("-t", o.common.threads, 0, kMostThreads));
  if (o.heads % o.kv_heads != 0) {
    return bad_input(fmt::format("--heads is {}, expected a multiple of the {} of --kv-heads",
                                 o.heads, o.kv_heads));
  }
  if (!o.context && o.kv_types.size() != 1) {
    return bad_input("--kv-type takes several types with --context only");
  }
  return {};
}

Result<AttentionCase> base_case(const AttentionOptions& o, const std::string& kv_type) {
  const auto type = parse_kv_type("--kv-type", kv_type);
  if (!type) return type.error();
  return AttentionCase{
      .n_heads = o.heads, .n_kv_heads = o.kv_heads, .head_dim = o.head_dim, .kv_type = *type};
}

Result<PlanMethod> parse_method(const std::string& text, int n_rows) {
  if (text != name(PlanMethod::kDense)) return parse_plan_method(text);
  if (n_rows == 1) return PlanMethod::kDense;
  return bad_input(fmt::format("--method dense is for --rows 1, and --rows is {}", n_rows));
}

// "512x8": 512 positions that every 8 sequences share.
Result<std::vector<SharedLevel>> parse_levels(const std::vector<std::string>& texts) {
  std::vector<SharedLevel> levels;
  for (const std::string& text : texts) {
    SharedLevel level;
    const char* end = text.data() + text.size();
    const auto positions = std::from_chars(text.data(), end, level.positions);
    const bool has_x = positions.ec == std::errc() && positions.ptr != end && *positions.ptr == 'x';
    const auto sequences = std::from_chars(has_x ? positions.ptr + 1 : end, end, level.sequences);
    if (!has_x || sequences.ec != std::errc() || sequences.ptr != end || level.positions < 1 ||
        level.positions > kMostPositions || level.sequences < 1) {
      return bad_input(fmt::format(
          "--levels holds \"{}\", expected e.g. 512x8: 512 positions for every 8 rows", text));
    }
    if (!levels.empty() && levels.back().sequences % level.sequences != 0) {
      return bad_input(fmt::format("--levels: {} rows do not divide into groups of {}",
                                   levels.back().sequences, level.sequences));
    }
    levels.push_back(level);
  }
  return levels;
}

Result<std::vector<Job>> decode_jobs(const AttentionOptions& o) {
  BANYAN_TRY(check_range("--rows", *o.rows, 1, kMostRows));
  BANYAN_TRY(check_range("--shared", o.shared, 0, kMostPositions));
  BANYAN_TRY(check_range("--private", o.own, 0, kMostPositions));
  if (o.shared + o.own == 0) {
    return bad_input("--shared and --private are both 0, expected KV that the rows can see");
  }
  auto levels = parse_levels(o.levels);
  if (!levels) return levels.error();
  int64_t length = int64_t{o.shared} + o.own;
  for (const SharedLevel& level : *levels) length += level.positions;
  if (length > kMostPositions) {
    return bad_input(
        fmt::format("{} positions of a row, expected at most {}", length, kMostPositions));
  }
  auto shape = base_case(o, o.kv_types[0]);
  if (!shape) return shape.error();
  shape->n_sequences = *o.rows;
  shape->shared = o.shared;
  shape->levels = std::move(*levels);
  shape->own = o.own;
  Job job{.shape = *shape,
          .methods = {},
          .what = fmt::format("--rows {} --shared {} --private {}", *o.rows, o.shared, o.own),
          .kv_type = o.kv_types[0]};
  for (const std::string& text : o.methods) {
    const auto method = parse_method(text, *o.rows);
    if (!method) return method.error();
    job.methods.push_back(*method);
  }
  return std::vector<Job>{std::move(job)};
}

Result<std::vector<Job>> prefill_jobs(const AttentionOptions& o) {
  BANYAN_TRY(check_range("--prefill", *o.prefill, 1, kMostPrefill));
  auto shape = base_case(o, o.kv_types[0]);
  if (!shape) return shape.error();
  shape->own = shape->new_tokens = *o.prefill;
  Job job{.shape = *shape,
          .methods = {},
          .what = fmt::format("--prefill {}", *o.prefill),
          .kv_type = o.kv_types[0]};
  for (const std::string& pattern : o.patterns) {
    if (pattern != "dense") {
      return bad_input(fmt::format("--pattern is \"{}\", expected dense", pattern));
    }
    job.methods.push_back(PlanMethod::kDense);
  }
  if (o.planted != "none") {
    return bad_input(fmt::format("--planted is \"{}\", expected none", o.planted));
  }
  return std::vector<Job>{std::move(job)};
}

Result<std::vector<Job>> context_jobs(const AttentionOptions& o) {
  BANYAN_TRY(check_range("--context", *o.context, 1, kMostPositions));
  BANYAN_TRY(check_range("--layers", o.layers, 1, kMostLayers));
  std::vector<Job> jobs;
  for (const double ratio : o.swa) {
    if (ratio != 1) return bad_input(fmt::format("--swa is {}, expected 1 (all tokens)", ratio));
    for (const int block : o.swa_blocks) {
      BANYAN_TRY(check_range("--swa-block", block, 1, *o.context > 1024 ? *o.context : 1024));
      for (const std::string& kv_type : o.kv_types) {
        auto shape = base_case(o, kv_type);
        if (!shape) return shape.error();
        shape->own = *o.context;
        shape->n_layers = o.layers;
        jobs.push_back({.shape = *shape,
                        .methods = {PlanMethod::kAuto},
                        .what = fmt::format("--context {} --layers {}", *o.context, o.layers),
                        .kv_type = kv_type,
                        .swa_block = block});
      }
    }
  }
  return jobs;
}

Result<std::vector<Job>> jobs_of_mode(const AttentionOptions& o) {
  if (o.rows) return decode_jobs(o);
  if (o.prefill) return prefill_jobs(o);
  if (o.context) return context_jobs(o);
  return bad_input("bench attention needs one of --rows, --prefill and --context");
}

Result<std::vector<Job>> make_jobs(const AttentionOptions& o) {
  BANYAN_TRY(check_shape(o));
  auto jobs = jobs_of_mode(o);
  if (!jobs) return jobs;
  const uint64_t available = available_memory();
  for (const Job& job : *jobs) {
    const auto bytes = job.shape.memory_bytes();
    if (bytes && *bytes + kOtherMemory <= available) continue;
    return bad_input(fmt::format(
        "{} with {} KV heads of {} needs {} of memory, and {} are free", job.what, o.kv_heads,
        o.head_dim, bytes ? format_bytes(*bytes) : "more than 16 EiB", format_bytes(available)));
  }
  return jobs;
}

// --- Output

void print_machine(const MeasuredDevice& device, bool json) {
  const MachineFigures& f = device.machine;
  if (json) {
    return print_json({{"bandwidth_gbps", f.bandwidth_gbps},
                       {"peak_gflops", f.peak_gflops},
                       {"peak_gexps", f.peak_gexps},
                       {"cpu", cpu_name()},
                       {"isa", name(device.isa)},
                       {"n_threads", device.pool.size()}});
  }
  fmt::print("{}, {}, {} threads: reads {:.1f} GB/s, {:.0f} GFLOP/s, {:.2f} G exponentials/s\n\n",
             cpu_name(), name(device.isa), device.pool.size(), f.bandwidth_gbps, f.peak_gflops,
             f.peak_gexps);
}

void print_decode_row(const Job& job, size_t i, const AttentionFigures& f, bool json) {
  const AttentionCase& shape = job.shape;
  const char* method = name(job.methods[i]);
  if (json) {
    return print_json({{"method", method},
                       {"rows", shape.n_sequences},
                       {"shared", shape.shared},
                       {"private", shape.own},
                       {"ms", f.ms},
                       {"plan_ms", f.plan_ms},
                       {"kv_bytes", f.kv_bytes},
                       {"partial_bytes", f.partial_bytes},
                       {"gbps", f.gbps},
                       {"gflops", f.gflops},
                       {"roof_ms", f.roof_ms},
                       {"roof_ratio", f.roof_ratio},
                       {"rel_err", f.rel_err},
                       {"ratio", f.ratio.median},
                       {"ratio_p25", f.ratio.p25},
                       {"ratio_p75", f.ratio.p75}});
  }
  fmt::print(
      "{:<12} {:>5} {:>7} {:>8} {:>10.3f} {:>8.3f} {:>11} {:>7.1f} {:>8.1f} {:>8.2f} {:>9.1e} "
      "{:>6.2f}\n",
      method, shape.n_sequences, shape.shared, shape.own, f.ms, f.plan_ms, format_bytes(f.kv_bytes),
      f.gbps, f.gflops, f.roof_ratio, f.rel_err, f.ratio.median);
}

void print_prefill_row(const Job& job, size_t i, const AttentionFigures& f, bool json) {
  const char* pattern = name(job.methods[i]);
  if (json) {
    return print_json({{"pattern", pattern},
                       {"n", job.shape.own},
                       {"ms", f.ms},
                       {"index_ms", 0.0},
                       {"density", 1.0},
                       {"recall_mean", f.recall_mean},
                       {"recall_p5", f.recall_p5},
                       {"gflops", f.gflops},
                       {"roof_ratio", f.roof_ratio},
                       {"rel_err", f.rel_err},
                       {"sampled", f.sampled}});
  }
  fmt::print("{:<16} {:>8} {:>11.2f} {:>8.1f} {:>8.2f} {:>9.6f} {:>9.1e}\n", pattern, job.shape.own,
             f.ms, f.gflops, f.roof_ratio, f.recall_mean, f.rel_err);
}

void print_context_row(const Job& job, const AttentionFigures& f, bool json) {
  if (json) {
    return print_json({{"swa", 1.0},
                       {"swa_block", job.swa_block},
                       {"kv_type", job.kv_type},
                       {"ms", f.ms},
                       {"select_ms", 0.0},
                       {"kv_bytes", f.kv_bytes},
                       {"gbps", f.gbps}});
  }
  fmt::print("{:>5} {:>9} {:>7} {:>10.3f} {:>11} {:>7.1f}\n", 1, job.swa_block, job.kv_type, f.ms,
             format_bytes(f.kv_bytes), f.gbps);
}

void print_header(const AttentionOptions& o) {
  if (o.common.json) return;
  if (o.rows) {
    fmt::print("{:<12} {:>5} {:>7} {:>8} {:>10} {:>8} {:>11} {:>7} {:>8} {:>8} {:>9} {:>6}\n",
               "method", "rows", "shared", "private", "ms", "plan ms", "KV read", "GB/s", "GFLOP/s",
               "x roof", "rel err", "ratio");
  } else if (o.prefill) {
    fmt::print("{:<16} {:>8} {:>11} {:>8} {:>8} {:>9} {:>9}\n", "pattern", "n", "ms", "GFLOP/s",
               "x roof", "recall", "rel err");
  } else {
    fmt::print("{:>5} {:>9} {:>7} {:>10} {:>11} {:>7}\n", "swa", "swa block", "KV", "ms", "KV read",
               "GB/s");
  }
}

void print_rows(const AttentionOptions& o, const Job& job,
                const std::vector<AttentionFigures>& figures) {
  for (size_t i = 0; i < figures.size(); ++i) {
    if (o.rows) {
      print_decode_row(job, i, figures[i], o.common.json);
    } else if (o.prefill) {
      print_prefill_row(job, i, figures[i], o.common.json);
    } else {
      print_context_row(job, figures[i], o.common.json);
    }
  }
}

Result<int> bench_attention_main(const AttentionOptions& o) {
  const auto jobs = make_jobs(o);
  if (!jobs) return jobs.error();
  const auto isa = isa_from_environment();
  if (!isa) return isa.error();
  ThreadPool pool(o.common.threads > 0 ? o.common.threads : ThreadPool::physical_cores());
  ProgressLine progress(true);
  progress.show("measuring what this machine can do ..");
  const auto machine = measure_machine(pool, *isa);
  progress.clear();
  if (!machine) return machine.error();
  const MeasuredDevice device{pool, *isa, *machine};
  print_machine(device, o.common.json);
  print_header(o);
  for (const Job& job : *jobs) {
    const auto figures = bench_attention(job.shape, job.methods, device,
                                         [&](const std::string& text) { progress.show(text); });
    progress.clear();
    if (!figures) return figures.error();
    print_rows(o, job, *figures);
  }
  return 0;
}

}  // namespace

Command bench_attention_command() {
  auto o = std::make_shared<AttentionOptions>();
  auto app = std::make_unique<CLI::App>(
      "Attention of random K, V and Q beside the roofs of this machine; no model. One of --rows "
      "(decoding together), --prefill (reading a prompt) and --context (one row, many layers).");
  CLI::Option* rows = app->add_option("--rows", o->rows, "sequences that decode one token each");
  CLI::Option* prefill = app->add_option("--prefill", o->prefill, "tokens of a prompt");
  CLI::Option* context =
      app->add_option("--context", o->context, "tokens that one row decodes over");
  rows->excludes(prefill)->excludes(context);
  prefill->excludes(context);
  app->add_option("--shared", o->shared, "tokens that all rows share")->needs(rows);
  app->add_option("--levels", o->levels,
                  "tokens that groups of rows share below these, e.g. 512x8,64x2")
      ->delimiter(',')
      ->needs(rows);
  app->add_option("--private", o->own, "tokens that each row has alone")->needs(rows);
  app->add_option("--method", o->methods,
                  "auto, paged, and dense with --rows 1 (default: auto,paged)")
      ->delimiter(',')
      ->needs(rows);
  app->add_option("--pattern", o->patterns, "dense")->delimiter(',')->needs(prefill);
  app->add_option("--planted", o->planted, "what the keys hide: none")->needs(prefill);
  app->add_option("--swa", o->swa, "share of the tokens that are read: 1")
      ->delimiter(',')
      ->needs(context);
  app->add_option("--swa-block", o->swa_blocks, "tokens that are chosen together")
      ->delimiter(',')
      ->needs(context);
  app->add_option("--layers", o->layers, "layers in turn, so that caches do not flatter")
      ->needs(context);
  app->add_option("--heads", o->heads, "query heads (default: 32)");
  app->add_option("--kv-heads", o->kv_heads, "KV heads (default: 32)");
  app->add_option("--head-dim", o->head_dim, "dimensions of a head (default: 128)");
  app->add_option("--kv-type", o->kv_types, "f32, f16, bf16 or q8_0; several with --context")
      ->delimiter(',');
  app->add_option("-t,--threads", o->common.threads, "threads (default: physical cores)");
  add_common_options(*app, o->common, /*engine=*/false);
  return {std::move(app), [o] { return bench_attention_main(*o); }};
}

}  // namespace banyan
