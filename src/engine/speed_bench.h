// SPDX-License-Identifier: Apache-2.0
#pragma once
// How fast the engine is, measured the way llama.cpp's own benchmarks measure it, so that figures
// can be laid side by side: random tokens, no sampling, the logits of the last token of each
// sequence computed, host work inside the clock.

#include <memory>
#include <span>
#include <vector>

#include "base/function_ref.h"
#include "engine/engine.h"

namespace banyan {

// Tokens without meaning; what they are changes nothing but the embedding rows that are read.
class TokenSource {
 public:
  explicit TokenSource(int32_t vocab) : vocab_(static_cast<uint64_t>(vocab)) {}
  TokenId next();
  std::vector<TokenId> take(int n);

 private:
  uint64_t state_ = 1;
  uint64_t vocab_;
};

// Computes a prompt as the newest tokens of a sequence, in pieces of as many rows as a step has;
// the logits of the last one too. Errors as StepRunner::run().
Result<void> read_prompt(Engine& engine, SeqId seq, std::span<const TokenId> tokens);

// llama-batched-bench: `pl` sequences read a prompt of `pp` tokens (one for all if `shared`), then
// generate `tg` tokens each, together.
struct DecodeShape {
  int pp = 0;
  int tg = 0;
  int pl = 1;
  bool shared = false;
};

// What was seen of some steps, summed over them.
struct SpeedSample {
  double seconds = 0;
  double attention_ms = 0;
  double weights_ms = 0;
  double other_ms = 0;    // all else inside the clock: norms, rotation, and the next two
  double tree_ms = 0;     // slots for the new tokens
  double plan_ms = 0;     // numbering rows and planning
  uint64_t kv_bytes = 0;  // held at the end
};

// Live sequences of a benchmark, which end, and whose KV goes, with this.
class BenchSequences {
 public:
  explicit BenchSequences(KvTree& tree) : tree_(tree) {}
  ~BenchSequences();
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

// Holds the prompts of a shape, computed once, from which the sequences of every round fork.
class DecodeBench {
 public:
  // kBadInput or kFailed if a step or the KV budget cannot hold the shape.
  static Result<std::unique_ptr<DecodeBench>> create(Engine& engine, const DecodeShape& shape);
  double prompt_seconds() const { return prompt_seconds_; }
  Result<SpeedSample> generate(PlanMethod method);

 private:
  DecodeBench(Engine& engine, const DecodeShape& shape)
      : engine_(engine), shape_(shape), prompts_(engine.tree()) {}
  Result<void> read_prompts();
  Engine& engine_;
  DecodeShape shape_;
  BenchSequences prompts_;
  double prompt_seconds_ = 0;
};

// A few steps before a clock starts, that weights and code be in the caches.
Result<void> warm_up(Engine& engine);

// llama-bench: samples of reading `tokens` new ones at `depth`, or of generating them one by one.
// Holds a sequence of `depth` tokens, computed once, from which every sample forks.
class DepthBench {
 public:
  static Result<std::unique_ptr<DepthBench>> create(Engine& engine, int depth);
  Result<SpeedSample> read(int tokens);
  Result<SpeedSample> generate(int tokens);

 private:
  explicit DepthBench(Engine& engine) : engine_(engine), base_(engine.tree()) {}
  Engine& engine_;
  BenchSequences base_;  // one
};

}  // namespace banyan
