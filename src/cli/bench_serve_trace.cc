// SPDX-License-Identifier: Apache-2.0
// banyan bench serve-trace: requests that come in their own time, recorded or at random.
#include <fmt/format.h>

#include <cmath>
#include <optional>

#include "base/bytes.h"
#include "cli/cli.h"
#include "engine/serve_bench.h"
#include "engine/speed_bench.h"

namespace banyan {
namespace {

struct ServeTraceOptions {
  CommonOptions common;
  std::string trace;
  double scale = 1;
  double speed = 1;
  std::vector<double> rates;
  int prompt = 0;
  int shared = 0;
  int gen = 0;
  int requests = 0;  // 0: all of a trace, 300 at random
  uint64_t seed = 1;
  std::optional<double> max_latency;
  int concurrency = 0;
  std::vector<std::string> retention = {"on"};
};

constexpr int kRandomRequests = 300;  // as published, at least
constexpr int kMostRequests = 1 << 20;
constexpr int kMostTokens = 1 << 24;
constexpr double kMostFactor = 1e9;

Result<void> check_positive(const char* option, double value, double most) {
  if (value > 0 && value <= most) return {};
  return bad_input(
      fmt::format("{} is {}, expected a number above 0, {} at most", option, value, most));
}

Result<void> check_options(const ServeTraceOptions& o) {
  if (o.trace.empty() == o.rates.empty()) {
    return bad_input("bench serve-trace needs a TRACE or --poisson, one of them");
  }
  BANYAN_TRY(check_positive("--scale", o.scale, 64));
  BANYAN_TRY(check_positive("--speed", o.speed, kMostFactor));
  for (const double rate : o.rates) BANYAN_TRY(check_positive("--poisson", rate, kMostFactor));
  BANYAN_TRY(check_range("--requests", o.requests, 0, kMostRequests));
  BANYAN_TRY(check_range("--concurrency", o.concurrency, 0, kMostRequests));
  if (!o.rates.empty()) {
    BANYAN_TRY(check_range("--prompt", o.prompt, 1, kMostTokens));
    BANYAN_TRY(check_range("--shared", o.shared, 0, o.prompt));
    BANYAN_TRY(check_range("--gen", o.gen, 1, kMostTokens));
  }
  if (o.max_latency) {
    BANYAN_TRY(check_positive("--max-latency", *o.max_latency, kMostFactor));
    if (o.rates.size() != 1) {
      return bad_input("--max-latency searches from one rate; give one with --poisson");
    }
  }
  for (const std::string& text : o.retention) {
    if (text != "on" && text != "off") {
      return bad_input(fmt::format("--retention is \"{}\", expected on, off or on,off", text));
    }
  }
  return {};
}

Json distribution_json(const Distribution& d) {
  return {{"mean", d.mean}, {"p50", d.p50}, {"p99", d.p99}};
}

void print_header() {
  fmt::print("{:<9} {:>8} {:>8} {:>5}  {:^25}  {:^20}  {:>7} {:>7} {:>10} {:>5}\n", "", "req/s", "",
             "", "first token, ms", "ms per token after", "latency", "req/s", "", "");
  fmt::print(
      "{:<9} {:>8} {:>8} {:>5}  {:>8} {:>7} {:>8}  {:>6} {:>6} {:>6}  {:>7} {:>7} {:>10} {:>5}\n",
      "retention", "offered", "requests", "hit %", "mean", "p50", "p99", "mean", "p50", "p99",
      "/tokens", "done", "KV peak", "batch");
}

struct Workload {
  std::vector<ServeRequest> requests;
  double offered_rps = 0;  // requests a second as they come
};

class ServeTrace {
 public:
  ServeTrace(const ServeTraceOptions& options, EngineOptions engine)
      : o_(options), engine_(std::move(engine)) {}

  // Prints a row. kFailed where it is interrupted, which has a row all the same.
  Result<ServeSummary> measure(const Workload& workload, const std::string& retention) {
    const std::vector<ServeRequest>& requests = workload.requests;
    // Each row begins with an empty cache, and a peak of its own.
    engine_.retention = retention == "on";
    auto engine = Engine::open(engine_);
    if (!engine) return engine.error();
    BANYAN_TRY(warm_up(**engine));
    bool interrupted = false;
    ServeFigures figures;
    {
      SlowProgress line(log_level(o_.common));
      figures = replay(**engine, requests, o_.concurrency, [&](const ServeProgress& p) {
        line.show([&] {
          return fmt::format("retention {}: {} of {} requests done, {} under way", retention,
                             p.done, requests.size(), p.underway);
        });
        interrupted = interrupted || InterruptGuard::take();
        return !interrupted;
      });
    }
    if (figures.refused > 0) {
      const std::string what =
          fmt::format("{} of {} requests do not fit the context of {} tokens or the KV budget",
                      figures.refused, requests.size(), (*engine)->context());
      if (figures.refused == requests.size()) {
        return bad_input(what + "; give smaller ones, or a larger -c or --kv-budget");
      }
      log_line(LogLevel::kWarn, log_level(o_.common), "warning: " + what + ", and are left out");
    }
    const ServeSummary summary = summarize(figures);
    if (!figures.served.empty()) print_row(workload.offered_rps, retention, figures, summary);
    if (interrupted) {
      return failed(fmt::format("interrupted after {} of {} requests", figures.served.size(),
                                requests.size()));
    }
    if (figures.served.empty()) {
      return failed("no request got its whole answer; a larger --kv-budget would help");
    }
    return summary;
  }

 private:
  void print_row(double offered_rps, const std::string& retention, const ServeFigures& f,
                 const ServeSummary& s) {
    if (!o_.common.json) {
      fmt::print(
          "{:<9} {:>8.3g} {:>8} {:>5.1f}  {:>8.1f} {:>7.1f} {:>8.1f}  {:>6.1f} {:>6.1f} {:>6.1f}  "
          "{:>7.2f} {:>7.3g} {:>10} {:>5}\n",
          retention, offered_rps, f.served.size(), s.hit_rate * 100, s.ttft_ms.mean, s.ttft_ms.p50,
          s.ttft_ms.p99, s.tpot_ms.mean, s.tpot_ms.p50, s.tpot_ms.p99, s.normalized_ms, s.rps,
          format_bytes(f.kv_bytes_peak), f.batch_peak);
      return;
    }
    print_json({{"requests", f.served.size()},
                {"hit_rate", s.hit_rate},
                {"ttft_ms", distribution_json(s.ttft_ms)},
                {"tpot_ms", distribution_json(s.tpot_ms)},
                {"normalized_ms", s.normalized_ms},
                {"rps", s.rps},
                {"kv_bytes_peak", f.kv_bytes_peak},
                {"batch_peak", f.batch_peak},
                {"retention", retention},
                {"offered_rps", offered_rps},
                {"refused", f.refused},
                {"failed", f.failed},
                {"prompt_tokens", s.prompt_tokens},
                {"cached_tokens", s.cached_tokens},
                {"completion_tokens", s.output_tokens},
                {"seconds", f.seconds},
                {"compute", o_.common.compute}});
  }

  const ServeTraceOptions& o_;
  EngineOptions engine_;
};

Result<Workload> recorded(const ServeTraceOptions& o) {
  auto trace = open_request_trace(o.trace);
  if (!trace) return trace.error();
  if (o.requests > 0 && trace->size() > static_cast<size_t>(o.requests)) trace->resize(o.requests);
  Workload workload{trace_workload(*trace, o.scale, o.speed)};
  const double last_ms = workload.requests.back().arrival_ms;
  workload.offered_rps = per_second(static_cast<double>(workload.requests.size() - 1), last_ms);
  return workload;
}

Workload at_random(const ServeTraceOptions& o, double rate) {
  return {poisson_workload({.rps = rate,
                            .prompt = o.prompt,
                            .shared = o.shared,
                            .gen = o.gen,
                            .requests = o.requests == 0 ? kRandomRequests : o.requests,
                            .seed = o.seed}),
          rate};
}

// The most requests a second whose latency for each token is as short as asked for.
Result<void> search_rate(ServeTrace& bench, const ServeTraceOptions& o,
                         const std::string& retention) {
  const auto rate = highest_rate(o.rates[0], [&](double probe) -> Result<bool> {
    const auto summary = bench.measure(at_random(o, probe), retention);
    if (!summary) return summary.error();
    return summary->normalized_ms <= *o.max_latency;
  });
  if (!rate) return rate.error();
  if (o.common.json) {
    print_json({{"retention", retention}, {"max_latency_ms", *o.max_latency}, {"max_rps", *rate}});
  } else {
    fmt::print("retention {}: {:.3g} requests/s at most with {} ms of latency for each token\n",
               retention, *rate, *o.max_latency);
  }
  return {};
}

Result<int> bench_serve_trace_main(const ServeTraceOptions& o) {
  BANYAN_TRY(check_options(o));
  std::vector<Workload> workloads;
  if (!o.trace.empty()) {
    auto workload = recorded(o);
    if (!workload) return workload.error();
    workloads.push_back(*std::move(workload));
  } else if (!o.max_latency) {
    for (const double rate : o.rates) workloads.push_back(at_random(o, rate));
  }
  auto options = engine_options(o.common);
  if (!options) return options.error();
  {
    // Says what is measured; all rows have its budget, which may be a share of what is free.
    const auto first = open_engine(o.common);
    if (!first) return first.error();
    options->kv_budget_bytes = (*first)->options().kv_budget_bytes;
  }
  const InterruptGuard interrupt;
  ServeTrace bench(o, *std::move(options));
  if (!o.common.json) print_header();
  for (const std::string& retention : o.retention) {
    for (const Workload& workload : workloads) BANYAN_TRY(bench.measure(workload, retention));
    if (o.max_latency) BANYAN_TRY(search_rate(bench, o, retention));
  }
  return 0;
}

}  // namespace

Command bench_serve_trace_command() {
  auto o = std::make_shared<ServeTraceOptions>();
  auto app = std::make_unique<CLI::App>(
      "Requests that come in their own time, recorded or at random: how long they take, and what "
      "the cache saves.");
  auto* trace =
      app->add_option("TRACE", o->trace,
                      "Mooncake's (JSON lines with hash_ids) or Azure's (CSV) recorded requests");
  app->add_option("--scale", o->scale, "lengths of prompts and answers times this")->needs(trace);
  app->add_option("--speed", o->speed, "so many times as fast as recorded")->needs(trace);
  auto* rates =
      app->add_option("--poisson", o->rates, "requests a second, at random moments; e.g. 0.5,1,2")
          ->delimiter(',')
          ->excludes(trace);
  app->add_option("--prompt", o->prompt, "tokens of each prompt")->needs(rates);
  app->add_option("--shared", o->shared, "of these are the same in all prompts (default: 0)")
      ->needs(rates);
  app->add_option("--gen", o->gen, "tokens of each answer")->needs(rates);
  app->add_option("--seed", o->seed, "of the moments (default: 1)")->needs(rates);
  app->add_option("--max-latency", o->max_latency,
                  "find the most requests a second with this latency in ms / tokens")
      ->needs(rates);
  app->add_option("--requests", o->requests,
                  "how many (default: all of a trace, 300 with --poisson)");
  app->add_option("--concurrency", o->concurrency,
                  "so many in the engine at most (default: any number)");
  app->add_option("--retention", o->retention,
                  "on, off, or on,off: whether KV stays after its requests (default: on)")
      ->delimiter(',');
  add_common_options(*app, o->common, /*engine=*/true);
  return {std::move(app), [o] { return bench_serve_trace_main(*o); }};
}

}  // namespace banyan
