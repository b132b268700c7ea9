// SPDX-License-Identifier: Apache-2.0
#include "engine/serve_bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <thread>

#include "base/clock.h"
#include "base/statistics.h"

namespace banyan {
namespace {

constexpr double kLongestSleepMs = 100;

// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): which token a run has at a place of the prompt.
TokenId token_at(uint64_t run, uint64_t position, int32_t vocabulary) {
  uint64_t x = run * 0x9E3779B97F4A7C15ULL + position + 1;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return static_cast<TokenId>((x ^ (x >> 31)) % static_cast<uint64_t>(vocabulary));
}

Request make_request(const ServeRequest& from, int32_t vocabulary) {
  Request request;
  request.prompt.reserve(from.prompt_tokens());
  for (const ServeRequest::Run& run : from.prompt) {
    for (int i = 0; i < run.tokens; ++i) {
      request.prompt.push_back(token_at(run.id, request.prompt.size(), vocabulary));
    }
  }
  request.sampler.temperature = 0;
  request.max_tokens = from.output_tokens;
  request.ignore_eos = true;
  return request;
}

class Replay {
 public:
  Replay(Engine& engine, std::span<const ServeRequest> workload, size_t concurrency)
      : engine_(engine),
        workload_(workload),
        concurrency_(concurrency == 0 ? workload.size() : concurrency) {}

  ServeFigures run(FunctionRef<bool(const ServeProgress&)> go_on) {
    while (next_ < workload_.size() || !underway_.empty()) {
      if (!go_on({next_ - underway_.size(), underway_.size()})) {
        for (const auto& [id, waiting] : underway_) engine_.cancel(id);
        workload_ = workload_.first(next_);
      }
      take_arrivals();
      if (underway_.empty()) {
        sleep();
      } else {
        step();
      }
    }
    figures_.kv_bytes_peak = engine_.pool().peak_bytes();
    return std::move(figures_);
  }

 private:
  struct Underway {
    size_t request;
    double submitted_ms;
  };

  void take_arrivals() {
    for (; next_ < workload_.size() && underway_.size() < concurrency_; ++next_) {
      const ServeRequest& request = workload_[next_];
      const double now = ms_since(start_ns_);
      if (request.arrival_ms > now) return;
      if (request.prompt_tokens() + int64_t{request.output_tokens} > engine_.context()) {
        ++figures_.refused;
        continue;
      }
      const auto id = engine_.submit(make_request(request, engine_.tokenizer().size()));
      if (id) {
        underway_.emplace(*id, Underway{next_, now});
      } else {
        ++figures_.refused;
      }
    }
  }

  void sleep() {
    if (next_ == workload_.size()) return;
    const double ms = workload_[next_].arrival_ms - ms_since(start_ns_);
    std::this_thread::sleep_for(
        std::chrono::duration<double, std::milli>(std::min(ms, kLongestSleepMs)));
  }

  void step() {
    finished_.clear();
    engine_.step(finished_);
    const size_t batch = engine_.scheduler().n_running() + finished_.size();
    figures_.batch_peak = std::max(figures_.batch_peak, batch);
    for (const Completion& completion : finished_) take(completion);
  }

  void take(const Completion& completion) {
    const Underway from = underway_.extract(completion.id).mapped();
    const ServeRequest& request = workload_[from.request];
    figures_.seconds = ms_since(start_ns_) * 1e-3;
    if (!completion.reply ||
        completion.reply->tokens.size() != static_cast<size_t>(request.output_tokens)) {
      ++figures_.failed;
      return;
    }
    const Reply& reply = *completion.reply;
    const double waited_ms = from.submitted_ms - request.arrival_ms;
    const double first_token_ms = waited_ms + reply.queue_ms + reply.prompt_ms;
    figures_.served.push_back({from.request, reply.prompt_tokens, reply.cached_tokens,
                               request.output_tokens, first_token_ms,
                               first_token_ms + reply.predicted_ms});
  }

  Engine& engine_;
  std::span<const ServeRequest> workload_;
  size_t concurrency_;
  int64_t start_ns_ = now_ns();
  size_t next_ = 0;  // request to come
  std::map<RequestId, Underway> underway_;
  std::vector<Completion> finished_;
  ServeFigures figures_;
};

}  // namespace

int ServeRequest::prompt_tokens() const {
  return std::accumulate(prompt.begin(), prompt.end(), 0,
                         [](int sum, const Run& run) { return sum + run.tokens; });
}

std::vector<ServeRequest> trace_workload(std::span<const TraceRequest> trace, double scale,
                                         double speed) {
  const auto scaled = [&](double tokens) { return static_cast<int>(std::lround(tokens * scale)); };
  std::vector<ServeRequest> workload;
  for (const TraceRequest& from : trace) {
    ServeRequest& request = workload.emplace_back();
    request.arrival_ms = from.arrival_ms / speed;
    request.output_tokens = std::max(1, scaled(from.output_tokens));
    const int prompt = std::max(1, scaled(from.prompt_tokens));
    int begin = 0;
    for (size_t i = 0; i < from.blocks.size(); ++i) {
      const bool last = i + 1 == from.blocks.size();
      const int end = last ? prompt : scaled(kTraceBlockTokens * static_cast<double>(i + 1));
      if (end > begin) request.prompt.push_back({from.blocks[i], end - begin});
      begin = end;
    }
    if (from.blocks.empty()) request.prompt.push_back({workload.size(), prompt});
  }
  return workload;
}

std::vector<ServeRequest> poisson_workload(const PoissonShape& shape) {
  std::mt19937_64 random(shape.seed);
  std::vector<ServeRequest> workload;
  double arrival_ms = 0;
  for (int i = 0; i < shape.requests; ++i) {
    workload.push_back({arrival_ms,
                        shape.gen,
                        {{0, shape.shared}, {uint64_t(i) + 1, shape.prompt - shape.shared}}});
    // The standard library's distributions differ from one to the next.
    const double uniform = static_cast<double>(random() >> 11) * 0x1p-53;
    arrival_ms -= std::log1p(-uniform) / shape.rps * 1e3;
  }
  return workload;
}

ServeFigures replay(Engine& engine, std::span<const ServeRequest> workload, size_t concurrency,
                    FunctionRef<bool(const ServeProgress&)> go_on) {
  return Replay(engine, workload, concurrency).run(go_on);
}

Distribution distribution(const std::vector<double>& values) {
  if (values.empty()) return {};
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  return {sum / static_cast<double>(values.size()), median(values), quantile(values, 0.99)};
}

ServeSummary summarize(const ServeFigures& figures) {
  ServeSummary sum;
  std::vector<double> ttft;
  std::vector<double> tpot;
  std::vector<double> normalized;
  for (const Served& one : figures.served) {
    sum.prompt_tokens += one.prompt_tokens;
    sum.cached_tokens += one.cached_tokens;
    sum.output_tokens += one.output_tokens;
    ttft.push_back(one.first_token_ms);
    if (one.output_tokens > 1) {
      tpot.push_back((one.latency_ms - one.first_token_ms) / (one.output_tokens - 1));
    }
    normalized.push_back(one.latency_ms / one.output_tokens);
  }
  if (figures.served.empty()) return sum;
  sum.hit_rate = static_cast<double>(sum.cached_tokens) / static_cast<double>(sum.prompt_tokens);
  sum.ttft_ms = distribution(ttft);
  sum.tpot_ms = distribution(tpot);
  sum.normalized_ms = distribution(normalized).mean;
  sum.rps = static_cast<double>(figures.served.size()) / figures.seconds;
  return sum;
}

Result<double> highest_rate(double first, FunctionRef<Result<bool>(double rate)> fits) {
  constexpr int kMostDoublings = 10;
  constexpr int kHalvings = 4;  // of a factor of 2: 4.4 % are left
  auto fit = fits(first);
  if (!fit) return fit.error();
  const bool up = *fit;
  double good = up ? first : 0;
  double bad = up ? 0 : first;
  for (int i = 0; good == 0 || bad == 0; ++i) {
    if (i == kMostDoublings) return good;
    const double rate = up ? good * 2 : bad / 2;
    fit = fits(rate);
    if (!fit) return fit.error();
    (*fit ? good : bad) = rate;
  }
  for (int i = 0; i < kHalvings; ++i) {
    const double rate = std::sqrt(good * bad);
    fit = fits(rate);
    if (!fit) return fit.error();
    (*fit ? good : bad) = rate;
  }
  return good;
}

}  // namespace banyan
