// SPDX-License-Identifier: Apache-2.0
#pragma once
// How an engine serves requests that come in their own time: a recorded or random workload is
// replayed against it in real time, in process, host work inside the clock.

#include <cstdint>
#include <span>
#include <vector>

#include "base/function_ref.h"
#include "engine/engine.h"
#include "files/request_trace_file.h"

namespace banyan {

// A request without meaning. Its prompt is runs of tokens: prompts that begin with the same runs
// begin with the same tokens, and share no more than chance wants beyond.
struct ServeRequest {
  double arrival_ms = 0;  // since the beginning; at least that of the request before
  int output_tokens = 0;  // greedy, end tokens forbidden
  struct Run {
    uint64_t id = 0;
    int tokens = 0;
    bool operator==(const Run&) const = default;
  };
  std::vector<Run> prompt;
  int prompt_tokens() const;
};

// All lengths times `scale`, but at least 1, and arrivals `speed` times as fast. Requires
// 0 < scale <= 64 and speed > 0.
std::vector<ServeRequest> trace_workload(std::span<const TraceRequest> trace, double scale,
                                         double speed);

// The end-to-end experiment of ChunkAttention (arXiv 2402.15220): prompts of `prompt` tokens, the
// first `shared` of which all have in common, answers of `gen` tokens.
struct PoissonShape {
  double rps = 1;  // requests a second on average; the first comes at 0
  int prompt = 0;
  int shared = 0;  // at most `prompt`
  int gen = 0;
  int requests = 0;
  uint64_t seed = 1;  // equal seeds: the same moments, in proportion to 1 / rps
};
std::vector<ServeRequest> poisson_workload(const PoissonShape& shape);

// A request that got its whole answer. Times are from its arrival, whatever kept it waiting.
struct Served {
  size_t request = 0;  // its place in the workload
  int prompt_tokens = 0;
  int cached_tokens = 0;  // of the prompt
  int output_tokens = 0;
  double first_token_ms = 0;
  double latency_ms = 0;
};

struct ServeFigures {
  std::vector<Served> served;  // as they were completed
  size_t refused = 0;          // prompt and answer do not fit the context, or the prompt the budget
  size_t failed = 0;           // others that ended without their whole answer
  double seconds = 0;          // until the last completion
  uint64_t kv_bytes_peak = 0;  // of the engine, since it was opened
  size_t batch_peak = 0;       // requests in one step
};

struct ServeProgress {
  size_t done = 0;  // refused ones too
  size_t underway = 0;
};

// `concurrency`: so many requests at most are with the engine; later ones wait outside, and are
// none the less late. 0: any number. `go_on` is asked before each step and every 100 ms while there
// is none; after a false what is underway is cancelled and counts as failed. Sleeps while there is
// nothing to do. Requires an engine without requests of others.
ServeFigures replay(Engine& engine, std::span<const ServeRequest> workload, size_t concurrency,
                    FunctionRef<bool(const ServeProgress&)> go_on);

// Percentiles between two values are interpolated. All 0 where there is none.
struct Distribution {
  double mean = 0;
  double p50 = 0;
  double p99 = 0;
};
Distribution distribution(const std::vector<double>& values);

struct ServeSummary {
  uint64_t prompt_tokens = 0;
  uint64_t cached_tokens = 0;
  uint64_t output_tokens = 0;
  double hit_rate = 0;       // cached over prompt tokens
  Distribution ttft_ms;      // time to first token
  Distribution tpot_ms;      // after it, for each token of an answer; answers of one have none
  double normalized_ms = 0;  // latency over tokens of the answer, mean over requests
  double rps = 0;            // completed a second
};
ServeSummary summarize(const ServeFigures& figures);

// The highest rate that `fits`, to within 5 %, if fitting ends at some rate: doubled or halved from
// `first` until the other side is found, then halved between. 0 if not even first / 1024 fits,
// first * 1024 if that does.
Result<double> highest_rate(double first, FunctionRef<Result<bool>(double rate)> fits);

}  // namespace banyan
