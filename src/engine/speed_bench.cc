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

// Tokens without meaning; what they are changes nothing but the embedding rows that are read.
class TokenSource {
 public:
  explicit TokenSource(int32_t vocab) : vocab_(static_cast<uint64_t>(vocab)) {}
  TokenId next() {
    state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;  // Knuth's MMIX
    return static_cast<TokenId>((state_ >> 33) % vocab_);
  }
  std::vector<TokenId> take(int n) {
    std::vector<TokenId> tokens(n);
    std::generate(tokens.begin(), tokens.end(), [this] { return next(); });
    return tokens;
  }

 private:
  uint64_t state_ = 1;
  uint64_t vocab_;
};

// Sequences that end, and whose KV goes, with the benchmark.
class BenchSequences {
 public:
  explicit BenchSequences(KvTree& tree) : tree_(tree) {}
  ~BenchSequences() {
    // Last first: a fork gives back what it has of its own, then its origin the rest.
    for (size_t i = ids_.size(); i-- > 0;) {
      tree_.truncate(ids_[i], shared_[i]);
      tree_.close(ids_[i]);
    }
  }
  BenchSequences(const BenchSequences&) = delete;
  BenchSequences& operator=(const BenchSequences&) = delete;
  SeqId open() { return keep(tree_.open({}, 0).seq, 0); }
  SeqId fork(SeqId from) { return keep(tree_.fork(from), tree_.length(from)); }
  const std::vector<SeqId>& ids() const { return ids_; }

 private:
  SeqId keep(SeqId id, int32_t shared) {
    ids_.push_back(id);
    shared_.push_back(shared);
    return id;
  }
  KvTree& tree_;
  std::vector<SeqId> ids_;
  std::vector<int32_t> shared_;  // positions that each took over from another
};

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

double difference_ms(int64_t after, int64_t before) {
  return static_cast<double>(after - before) * 1e-6;
}

}  // namespace

Result<DecodeFigures> bench_decode(Engine& engine, const DecodeShape& shape, PlanMethod method) {
  if (shape.pl > engine.steps().max_rows()) {
    return bad_input(
        fmt::format("-npl is {}, a step has at most {} rows", shape.pl, engine.steps().max_rows()));
  }
  engine.steps().set_plan_method(method);
  TokenSource source(engine.tokenizer().size());
  BenchSequences sequences(engine.tree());
  const int length = shape.pp + shape.tg;
  DecodeFigures figures;

  int64_t start = now_ns();
  const auto first_prompt = source.take(shape.pp);
  const SeqId first = sequences.open();
  engine.tree().reserve(first, length);
  BANYAN_TRY(read_prompt(engine, first, first_prompt));
  for (int i = 1; i < shape.pl; ++i) {
    if (shape.shared) {
      engine.tree().reserve(sequences.fork(first), length);
    } else {
      const SeqId seq = sequences.open();
      engine.tree().reserve(seq, length);
      BANYAN_TRY(read_prompt(engine, seq, source.take(shape.pp)));
    }
  }
  figures.prompt_seconds = ms_since(start) * 1e-3;

  const StepTimes before = engine.steps().times();
  start = now_ns();
  BANYAN_TRY(generate_together(engine, sequences.ids(), shape.tg, source));
  const double total_ms = ms_since(start);
  const StepTimes& after = engine.steps().times();
  figures.generate_seconds = total_ms * 1e-3;
  figures.attention_ms = difference_ms(after.attention_ns, before.attention_ns);
  figures.weights_ms = difference_ms(after.weights_ns, before.weights_ns);
  figures.other_ms = total_ms - figures.attention_ms - figures.weights_ms;
  figures.kv_bytes = engine.pool().used_bytes();
  return figures;
}

Result<std::unique_ptr<DepthBench>> DepthBench::create(Engine& engine, int depth) {
  TokenSource source(engine.tokenizer().size());
  const SeqId base = engine.tree().open({}, 0).seq;
  std::unique_ptr<DepthBench> bench(new DepthBench(engine, base));
  BANYAN_TRY(read_prompt(engine, base, source.take(depth)));
  return bench;
}

DepthBench::~DepthBench() {
  engine_.tree().truncate(base_, 0);
  engine_.tree().close(base_);
}

Result<SpeedSample> DepthBench::timed(FunctionRef<Result<void>()> work) {
  const StepTimes before = engine_.steps().times();
  const int64_t start = now_ns();
  BANYAN_TRY(work());
  const double total_ms = ms_since(start);
  const StepTimes& after = engine_.steps().times();
  SpeedSample sample;
  sample.seconds = total_ms * 1e-3;
  sample.attention_ms = difference_ms(after.attention_ns, before.attention_ns);
  sample.weights_ms = difference_ms(after.weights_ns, before.weights_ns);
  sample.other_ms = total_ms - sample.attention_ms - sample.weights_ms;
  return sample;
}

Result<SpeedSample> DepthBench::read(int tokens) {
  TokenSource source(engine_.tokenizer().size());
  const auto prompt = source.take(tokens);
  BenchSequences sequences(engine_.tree());
  const SeqId seq = sequences.fork(base_);
  return timed([&] { return read_prompt(engine_, seq, prompt); });
}

Result<SpeedSample> DepthBench::generate(int tokens) {
  TokenSource source(engine_.tokenizer().size());
  BenchSequences sequences(engine_.tree());
  const SeqId seq = sequences.fork(base_);
  engine_.tree().reserve(seq, engine_.tree().length(seq) + tokens);
  return timed([&] { return generate_together(engine_, sequences.ids(), tokens, source); });
}

}  // namespace banyan
