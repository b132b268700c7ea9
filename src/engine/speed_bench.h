// SPDX-License-Identifier: Apache-2.0
#pragma once
// How fast the engine is, measured the way llama.cpp's own benchmarks measure it, so that figures
// can be laid side by side: random tokens, no sampling, the logits of the last token of each
// sequence computed, host work inside the clock.

#include <vector>

#include "base/function_ref.h"
#include "engine/engine.h"

namespace banyan {

// llama-batched-bench: `pl` sequences read a prompt of `pp` tokens (one for all if `shared`), then
// generate `tg` tokens each, together.
struct DecodeShape {
  int pp = 0;
  int tg = 0;
  int pl = 1;
  bool shared = false;
};

struct DecodeFigures {
  double prompt_seconds = 0;
  double generate_seconds = 0;
  double attention_ms = 0;  // of generation, summed over its steps
  double weights_ms = 0;
  double other_ms = 0;    // planning included
  uint64_t kv_bytes = 0;  // held at the end
};

// kBadInput if the KV budget cannot hold the shape.
Result<DecodeFigures> bench_decode(Engine& engine, const DecodeShape& shape, PlanMethod method);

// llama-bench: one sample of reading `tokens` new ones at `depth`, or of generating them one by
// one.
struct SpeedSample {
  double seconds = 0;
  double attention_ms = 0;
  double weights_ms = 0;
  double other_ms = 0;  // all else inside the clock: norms, rotation, planning, the tree
};

// Holds a sequence of `depth` tokens, computed once, from which every sample forks.
class DepthBench {
 public:
  static Result<std::unique_ptr<DepthBench>> create(Engine& engine, int depth);
  ~DepthBench();
  Result<SpeedSample> read(int tokens);
  Result<SpeedSample> generate(int tokens);

 private:
  DepthBench(Engine& engine, SeqId base) : engine_(engine), base_(base) {}
  Result<SpeedSample> timed(FunctionRef<Result<void>()> work);
  Engine& engine_;
  SeqId base_;
};

}  // namespace banyan
