// SPDX-License-Identifier: Apache-2.0
#pragma once
// The forward pass, written once for every family and device over the operations of tensor/ops.h
// and an attention executor.

#include <cstdint>
#include <span>
#include <vector>

#include "attention/executor.h"
#include "attention/plan.h"
#include "base/buffer.h"
#include "model/experts.h"
#include "model/model.h"
#include "tensor/ops.h"

namespace banyan {

// Where the time of a step went.
struct StepTimes {
  int64_t attention_ns = 0;
  int64_t weights_ns = 0;  // linear(), the logits included
  int64_t other_ns = 0;
};

// What is computed for the wanted rows of a step.
enum class StepOutput {
  kLogits,  // [vocab]
  kHidden,  // [hidden]: what the logits are made of, the last norm's result
};

// Everything a step feeds to the model. Rows as in the plans; the KV slots exist already.
struct StepInputs {
  std::span<const TokenId> tokens;        // [rows]
  std::span<const KvSlot> slots;          // [rows]
  std::span<const Plan> plans;            // one for each layer group; row_pos: [rows], alike
  std::span<const KvPlanes> planes;       // [n_layers]
  std::span<const uint32_t> wanted_rows;  // rows whose output is wanted, ascending
  StepOutput output = StepOutput::kLogits;
  int n_sequences = 1;  // whose rows these are
};

// Activations of a step of at most `max_rows` rows, taken once.
class Activations {
 public:
  Activations(const Model& model, int max_rows);
  int max_rows() const { return max_rows_; }
  uint64_t bytes() const { return memory_.size() * sizeof(float); }

 private:
  friend class Pass;
  int max_rows_;
  AlignedArray<float> memory_;
  // Views into memory_, each [max_rows][..] of the widest layer; empty where the model has no use
  // for them.
  Matrix residual_, normed_, q_, k_, v_, attended_, gate_, up_;
  Matrix ffn_normed_;  // where attention and feed-forward read the same residual
  Matrix block_;       // what a block adds, where it is not added at once
  Matrix qkv_;         // q, k and v head by head
  Matrix scores_;      // of experts
  Matrix gathered_;    // rows of one expert
  struct Angles {
    std::vector<float> cos, sin;
  };
  std::vector<Angles> angles_;  // one for each Rope
  std::vector<RopeAngles> rope_;
  std::vector<TokenId> position_rows_;
  Routing routing_;
};

// One pass over `in.tokens`: writes their K and V, and in.output of in.wanted_rows to `output`,
// [wanted_rows.size()][vocab or hidden]. Adds to `times`. Requires 1 <= rows <=
// activations.max_rows().
void forward(const Model& model, const StepInputs& in, Ops& ops, AttentionExecutor& attention,
             Activations& activations, Matrix output, StepTimes& times);

}  // namespace banyan
