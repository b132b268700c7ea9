// SPDX-License-Identifier: Apache-2.0
// banyan bench decode and bench prefill, with llama.cpp's own columns.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/statistics.h"
#include "cli/cli.h"
#include "engine/attention_bench.h"
#include "engine/speed_bench.h"

namespace banyan {
namespace {

Result<void> check_counts(const char* option, const std::vector<int>& counts, int least) {
  for (const int count : counts) {
    if (count < least || count > (1 << 24)) {
      return bad_input(fmt::format("{} holds {}, expected {} or more", option, count, least));
    }
  }
  return {};
}

// --- bench decode

struct DecodeOptions {
  CommonOptions common;
  std::vector<int> npp = {512};
  std::vector<int> ntg = {128};
  std::vector<int> npl = {1};
  std::vector<std::string> methods = {"auto"};
  bool shared = false;
};

// Rounds, in each of which every method has its turn: so many, and more while they are short. Where
// one takes long, few. Prompts are read once, short ones a few times.
constexpr int kRounds = 7;
constexpr int kMostRounds = 15;
constexpr int kRoundsOfLongOnes = 3;
constexpr double kEnoughSeconds = 4;
constexpr double kLongRoundSeconds = 20;
constexpr int kMostPromptRuns = 3;

// What was seen of one method.
struct DecodeFigures {
  SpeedSample sample;  // the one with the median time
  RatioFigures ratio;  // of the baseline's time over this, round by round
};
struct DecodeRun {
  double prompt_seconds = 0;
  std::vector<DecodeFigures> methods;
};

Json decode_row(const Engine& engine, const DecodeOptions& o, const DecodeShape& shape,
                const std::string& method, double prompt_seconds, const DecodeFigures& figures) {
  const SpeedSample& f = figures.sample;
  const int n_kv = shape.pp * (shape.shared ? 1 : shape.pl) + shape.tg * shape.pl;
  const int prompt_tokens = shape.pp * (shape.shared ? 1 : shape.pl);
  const double t = prompt_seconds + f.seconds;
  return {{"n_kv_max", uint64_t{engine.pool().capacity()} * kPanelTokens},
          {"is_pp_shared", o.shared ? 1 : 0},
          {"n_threads", engine.options().n_threads},
          {"pp", shape.pp},
          {"tg", shape.tg},
          {"pl", shape.pl},
          {"n_kv", n_kv},
          {"t_pp", prompt_seconds},
          {"speed_pp", per_second(prompt_tokens, prompt_seconds * 1e3)},
          {"t_tg", f.seconds},
          {"speed_tg", per_second(double(shape.pl) * shape.tg, f.seconds * 1e3)},
          {"t", t},
          {"speed", per_second(n_kv, t * 1e3)},
          {"method", method},
          {"attention_ms", f.attention_ms},
          {"weights_ms", f.weights_ms},
          {"other_ms", f.other_ms},
          {"tree_us_per_step", f.tree_ms / shape.tg * 1e3},
          {"plan_us_per_step", f.plan_ms / shape.tg * 1e3},
          {"kv_bytes", f.kv_bytes},
          {"ratio", figures.ratio.median},
          {"ratio_p25", figures.ratio.p25},
          {"ratio_p75", figures.ratio.p75},
          {"compute", o.common.compute}};
}

void print_decode_row(const Json& row, bool json) {
  if (json) return print_json(row);
  fmt::print(
      "{:>6} {:>6} {:>4} {:>9} {:>10.2f} {:>10.2f} {:>10.1f} {:>10.1f} {:>10.1f} {:>6.2f}  {}\n",
      row["pp"].get<int>(), row["tg"].get<int>(), row["pl"].get<int>(), row["n_kv"].get<int>(),
      row["speed_pp"].get<double>(), row["speed_tg"].get<double>(),
      row["attention_ms"].get<double>(), row["weights_ms"].get<double>(),
      row["other_ms"].get<double>(), row["ratio"].get<double>(), row["method"].get<std::string>());
}

Result<DecodeRun> measure_decode(Engine& engine, const DecodeShape& shape,
                                 const std::vector<PlanMethod>& methods) {
  std::unique_ptr<DecodeBench> bench;
  std::vector<double> prompt_seconds;
  double spent = 0;
  for (int run = 0; run < kMostPromptRuns && spent < kEnoughSeconds / 2; ++run) {
    bench.reset();  // before the next one takes the same memory
    auto next = DecodeBench::create(engine, shape);
    if (!next) return next.error();
    bench = std::move(*next);
    prompt_seconds.push_back(bench->prompt_seconds());
    spent += bench->prompt_seconds();
  }
  std::vector<std::vector<SpeedSample>> samples(methods.size());
  spent = 0;
  int rounds = kRounds;
  for (int round = 0; round < rounds; ++round) {
    double seconds = 0;
    for (size_t m = 0; m < methods.size(); ++m) {
      auto sample = bench->generate(methods[m]);
      if (!sample) return sample.error();
      samples[m].push_back(*sample);
      seconds += sample->seconds;
    }
    spent += seconds;
    if (seconds > kLongRoundSeconds) {
      rounds = kRoundsOfLongOnes;
    } else if (round + 1 == rounds && spent < kEnoughSeconds && rounds < kMostRounds) {
      ++rounds;
    }
  }
  const auto times = [&](size_t m) {
    std::vector<double> seconds;
    for (const SpeedSample& sample : samples[m]) seconds.push_back(sample.seconds);
    return seconds;
  };
  DecodeRun run{.prompt_seconds = median(prompt_seconds), .methods = {}};
  const std::vector<double> base = times(baseline_of(methods));
  for (size_t m = 0; m < methods.size(); ++m) {
    const RatioFigures ratio = ratio_of_times(base, times(m));
    std::ranges::sort(samples[m], {}, &SpeedSample::seconds);
    run.methods.push_back({samples[m][samples[m].size() / 2], ratio});
  }
  return run;
}

Result<int> bench_decode_main(const DecodeOptions& o) {
  BANYAN_TRY(check_counts("-npp", o.npp, 1));
  BANYAN_TRY(check_counts("-ntg", o.ntg, 1));
  BANYAN_TRY(check_counts("-npl", o.npl, 1));
  std::vector<PlanMethod> methods;
  for (const std::string& text : o.methods) {
    auto method = parse_plan_method(text);
    if (!method) return method.error();
    methods.push_back(*method);
  }
  auto engine = open_engine(o.common, {.drafts = false});
  if (!engine) return engine.error();
  if (!o.common.json) {
    fmt::print("{:>6} {:>6} {:>4} {:>9} {:>10} {:>10} {:>10} {:>10} {:>10} {:>6}  {}\n", "pp", "tg",
               "pl", "n_kv", "pp t/s", "tg t/s", "attention", "weights", "other ms", "ratio",
               "method");
  }
  BANYAN_TRY(warm_up(**engine));
  ProgressLine progress(true);
  for (const int pp : o.npp) {
    for (const int tg : o.ntg) {
      for (const int pl : o.npl) {
        progress.show(fmt::format("{} tokens of prompt, {} sequences of {} ..", pp, pl, tg));
        const DecodeShape shape{pp, tg, pl, o.shared};
        auto run = measure_decode(**engine, shape, methods);
        progress.clear();
        if (!run) return run.error();
        for (size_t m = 0; m < methods.size(); ++m) {
          print_decode_row(
              decode_row(**engine, o, shape, o.methods[m], run->prompt_seconds, run->methods[m]),
              o.common.json);
        }
      }
    }
  }
  return 0;
}

// --- bench prefill

struct PrefillOptions {
  CommonOptions common;
  std::vector<int> prompts = {512};
  std::vector<int> depths = {0};
  std::vector<std::string> patterns = {"dense"};
  int generate = 64;
  int repetitions = 3;
  bool profile = false;
};

struct Samples {
  std::vector<double> tokens_per_second;
  std::vector<double> attention_ms;
  std::vector<double> weights_ms;
  std::vector<double> other_ms;
};

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / double(values.size());
}

double deviation(const std::vector<double>& values) {
  if (values.size() < 2) return 0;
  const double center = mean(values);
  double sum = 0;
  for (const double value : values) sum += (value - center) * (value - center);
  return std::sqrt(sum / double(values.size() - 1));
}

void print_prefill_row(const Engine& engine, const PrefillOptions& o, int n_prompt, int n_gen,
                       int depth, const Samples& s) {
  if (o.common.json) {
    Json row = {{"n_prompt", n_prompt},
                {"n_gen", n_gen},
                {"n_depth", depth},
                {"n_threads", engine.options().n_threads},
                {"avg_ts", mean(s.tokens_per_second)},
                {"stddev_ts", deviation(s.tokens_per_second)},
                {"samples_ts", s.tokens_per_second},
                {"pattern", "dense"},
                {"attention_ms", median(s.attention_ms)},
                {"index_ms", 0.0},
                {"density", 1.0},
                {"recall_mean", 1.0},
                {"recall_p5", 1.0},
                {"compute", o.common.compute}};
    if (o.profile) {
      row["weights_ms"] = median(s.weights_ms);
      row["other_ms"] = median(s.other_ms);
    }
    return print_json(row);
  }
  fmt::print("{:>8} {:>8} {:>8} {:>10.2f} {:>8.2f} {:>12.1f}", n_prompt, n_gen, depth,
             median(s.tokens_per_second), deviation(s.tokens_per_second), median(s.attention_ms));
  if (o.profile) fmt::print(" {:>10.1f} {:>10.1f}", median(s.weights_ms), median(s.other_ms));
  fmt::print("\n");
}

Result<Samples> sample(DepthBench& bench, int tokens, bool generate, int repetitions) {
  Samples samples;
  for (int r = -1; r < repetitions; ++r) {  // the first is a warm-up
    auto one = generate ? bench.generate(tokens) : bench.read(tokens);
    if (!one) return one.error();
    if (r < 0) continue;
    samples.tokens_per_second.push_back(per_second(tokens, one->seconds * 1e3));
    samples.attention_ms.push_back(one->attention_ms);
    samples.weights_ms.push_back(one->weights_ms);
    samples.other_ms.push_back(one->other_ms);
  }
  return samples;
}

Result<int> bench_prefill_main(const PrefillOptions& o) {
  BANYAN_TRY(check_counts("-p", o.prompts, 0));
  BANYAN_TRY(check_counts("-d", o.depths, 0));
  BANYAN_TRY(check_counts("-n", {o.generate}, 0));
  BANYAN_TRY(check_counts("-r", {o.repetitions}, 1));
  for (const std::string& pattern : o.patterns) {
    if (pattern != "dense") {
      return bad_input(fmt::format("--pattern is \"{}\", expected dense", pattern));
    }
  }
  auto engine = open_engine(o.common, {.drafts = false});
  if (!engine) return engine.error();
  if (!o.common.json) {
    fmt::print("{:>8} {:>8} {:>8} {:>10} {:>8} {:>12}{}\n", "prompt", "generate", "depth", "t/s",
               "+/-", "attention ms", o.profile ? "    weights      other" : "");
  }
  ProgressLine progress(true);
  for (const int depth : o.depths) {
    progress.show(fmt::format("reading {} tokens of depth ..", depth));
    auto bench = DepthBench::create(**engine, depth);
    if (!bench) return bench.error();
    for (const int prompt : o.prompts) {
      if (prompt == 0) continue;
      progress.show(fmt::format("prompt of {} at depth {} ..", prompt, depth));
      auto samples = sample(**bench, prompt, /*generate=*/false, o.repetitions);
      if (!samples) return samples.error();
      progress.clear();
      print_prefill_row(**engine, o, prompt, 0, depth, *samples);
    }
    if (o.generate > 0) {
      progress.show(fmt::format("generating {} at depth {} ..", o.generate, depth));
      auto samples = sample(**bench, o.generate, /*generate=*/true, o.repetitions);
      if (!samples) return samples.error();
      progress.clear();
      print_prefill_row(**engine, o, 0, o.generate, depth, *samples);
    }
  }
  return 0;
}

}  // namespace

Command bench_decode_command() {
  auto o = std::make_shared<DecodeOptions>();
  auto app = std::make_unique<CLI::App>(
      "Sequences generating together, measured as llama-batched-bench does.");
  app->add_option("--npp", o->npp, "-npp: prompt tokens, e.g. 512,4096")->delimiter(',');
  app->add_option("--ntg", o->ntg, "-ntg: generated tokens of each sequence")->delimiter(',');
  app->add_option("--npl", o->npl, "-npl: sequences at once, e.g. 1,8,32")->delimiter(',');
  app->add_flag("--pps", o->shared, "-pps: one prompt for all sequences");
  app->add_option("--method", o->methods, "attention plans: auto, paged")->delimiter(',');
  add_common_options(*app, o->common, /*engine=*/true);
  return {std::move(app), [o] { return bench_decode_main(*o); }};
}

Command bench_prefill_command() {
  auto o = std::make_shared<PrefillOptions>();
  auto app = std::make_unique<CLI::App>(
      "Reading a prompt and generating at a depth, measured as llama-bench does.");
  app->add_option("-p,--n-prompt", o->prompts, "prompt tokens, e.g. 512,4096 (0: none)")
      ->delimiter(',');
  app->add_option("-d,--n-depth", o->depths, "tokens that stand before, e.g. 0,4096")
      ->delimiter(',');
  app->add_option("-n,--n-gen", o->generate, "tokens to generate (0: none)");
  app->add_option("-r,--repetitions", o->repetitions, "samples of each");
  app->add_flag("--profile", o->profile, "what of the time went into weights and all else, too");
  app->add_option("--pattern", o->patterns, "dense")->delimiter(',');
  add_common_options(*app, o->common, /*engine=*/true);
  return {std::move(app), [o] { return bench_prefill_main(*o); }};
}

}  // namespace banyan
