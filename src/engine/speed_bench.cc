// SPDX-License-Identifier: Apache-2.0
#include "engine/speed_bench.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/clock.h"

namespace banyan {
namespace {

constexpr std::array<uint32_t, 1> kFirst = {0};

// Steps in which every sequence gets one token.
Result<void> generate_together(Engine& engine, std::span<const SeqId> sequences, int steps,
                               TokenSource& source) {
  std::vector<TokenId> tokens(sequences.size());
  std::vector<Piece> pieces(sequences.size());
  for (int step = 0; step < steps; ++step) {
    for (size_t i = 0; i < sequences.size(); ++i) {
      tokens[i] = source.next();
      pieces[i] = {sequences[i], {&tokens[i], 1}, kFirst};
    }
    BANYAN_TRY(engine.steps().run(pieces));
  }
  return {};
}

Result<SpeedSample> timed(Engine& engine, FunctionRef<Result<void>()> work) {
  const StepRunner& steps = engine.steps();
  const StepTimes before = steps.times();
  const int64_t tree_before = steps.tree_ns();
  const int64_t plan_before = steps.plan_ns();
  const int64_t start = now_ns();
  BANYAN_TRY(work());
  const double total_ms = ms_since(start);
  const StepTimes& after = steps.times();
  SpeedSample sample;
  sample.seconds = total_ms * 1e-3;
  sample.attention_ms = ms_between(before.attention_ns, after.attention_ns);
  sample.weights_ms = ms_between(before.weights_ns, after.weights_ns);
  sample.other_ms = total_ms - sample.attention_ms - sample.weights_ms;
  sample.tree_ms = ms_between(tree_before, steps.tree_ns());
  sample.plan_ms = ms_between(plan_before, steps.plan_ns());
  sample.kv_bytes = engine.pool().used_bytes();
  return sample;
}

}  // namespace

TokenId TokenSource::next() {
  state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;  // Knuth's MMIX
  return static_cast<TokenId>((state_ >> 33) % vocab_);
}

std::vector<TokenId> TokenSource::take(int n) {
  std::vector<TokenId> tokens(n);
  std::generate(tokens.begin(), tokens.end(), [this] { return next(); });
  return tokens;
}

Result<void> read_prompt(Engine& engine, SeqId seq, std::span<const TokenId> tokens) {
  while (!tokens.empty()) {
    const size_t n = std::min<size_t>(tokens.size(), engine.steps().max_rows());
    const std::array last = {static_cast<uint32_t>(n - 1)};
    const bool done = n == tokens.size();
    const Piece piece{seq, tokens.first(n),
                      done ? std::span<const uint32_t>(last) : std::span<const uint32_t>()};
    BANYAN_TRY(engine.steps().run({&piece, 1}));
    tokens = tokens.subspan(n);
  }
  return {};
}

BenchSequences::~BenchSequences() {
  // Last first: a fork gives back what it has of its own, then its origin the rest.
  for (size_t i = ids_.size(); i-- > 0;) {
    tree_.truncate(ids_[i], shared_[i]);
    tree_.close(ids_[i]);
  }
}

Result<std::unique_ptr<DecodeBench>> DecodeBench::create(Engine& engine, const DecodeShape& shape) {
  if (shape.pl > engine.steps().max_rows()) {
    return bad_input(
        fmt::format("-npl is {}, a step has at most {} rows", shape.pl, engine.steps().max_rows()));
  }
  std::unique_ptr<DecodeBench> bench(new DecodeBench(engine, shape));
  const int64_t start = now_ns();
  BANYAN_TRY(bench->read_prompts());
  bench->prompt_seconds_ = ms_since(start) * 1e-3;
  return bench;
}

Result<void> DecodeBench::read_prompts() {
  TokenSource source(engine_.tokenizer().size());
  for (int i = 0; i < (shape_.shared ? 1 : shape_.pl); ++i) {
    BANYAN_TRY(read_prompt(engine_, prompts_.open(), source.take(shape_.pp)));
  }
  return {};
}

Result<SpeedSample> DecodeBench::generate(PlanMethod method) {
  engine_.steps().set_plan_method(method);
  TokenSource source(engine_.tokenizer().size());
  BenchSequences sequences(engine_.tree());
  for (int i = 0; i < shape_.pl; ++i) {
    const SeqId seq = sequences.fork(prompts_.ids()[shape_.shared ? 0 : i]);
    engine_.tree().reserve(seq, shape_.pp + shape_.tg);
  }
  return timed(engine_,
               [&] { return generate_together(engine_, sequences.ids(), shape_.tg, source); });
}

Result<void> warm_up(Engine& engine) {
  auto bench = DecodeBench::create(engine, {32, 4, 1, false});
  if (!bench) return bench.error();
  BANYAN_TRY((*bench)->generate(PlanMethod::kAuto));
  return {};
}

Result<std::unique_ptr<DepthBench>> DepthBench::create(Engine& engine, int depth) {
  TokenSource source(engine.tokenizer().size());
  std::unique_ptr<DepthBench> bench(new DepthBench(engine));
  BANYAN_TRY(read_prompt(engine, bench->base_.open(), source.take(depth)));
  return bench;
}

Result<SpeedSample> DepthBench::read(int tokens) {
  TokenSource source(engine_.tokenizer().size());
  const auto prompt = source.take(tokens);
  BenchSequences sequences(engine_.tree());
  const SeqId seq = sequences.fork(base_.ids()[0]);
  return timed(engine_, [&] { return read_prompt(engine_, seq, prompt); });
}

Result<SpeedSample> DepthBench::generate(int tokens) {
  TokenSource source(engine_.tokenizer().size());
  BenchSequences sequences(engine_.tree());
  const SeqId seq = sequences.fork(base_.ids()[0]);
  engine_.tree().reserve(seq, engine_.tree().length(seq) + tokens);
  return timed(engine_,
               [&] { return generate_together(engine_, sequences.ids(), tokens, source); });
}

}  // namespace banyan
