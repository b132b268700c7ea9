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
#include "model/model.h"
#include "tensor/ops.h"

namespace banyan {

// Where the time of a step went.
struct StepTimes {
  int64_t attention_ns = 0;
  int64_t weights_ns = 0;  // linear(), the logits included
  int64_t other_ns = 0;
};

// Everything a step feeds to the model. Rows as in `plan`; the KV slots exist already.
struct StepInputs {
  std::span<const TokenId> tokens;       // [rows]
  std::span<const KvSlot> slots;         // [rows]
  const Plan* plan = nullptr;            // row_pos: [rows]
  std::span<const KvPlanes> planes;      // [n_layers]
  std::span<const uint32_t> logit_rows;  // rows whose logits are wanted, ascending
};

// Activations of a step of at most `max_rows` rows, taken once.
class Activations {
 public:
  Activations(const Hyperparameters& hp, int max_rows);
  int max_rows() const { return max_rows_; }
  uint64_t bytes() const { return memory_.size() * sizeof(float); }

 private:
  friend void forward(const Model&, const StepInputs&, Ops&, AttentionExecutor&, Activations&,
                      Matrix, StepTimes&);
  int max_rows_;
  AlignedArray<float> memory_;
  // Views into memory_, each [max_rows][..].
  Matrix residual_, normed_, q_, k_, v_, attended_, gate_, up_;
  std::vector<float> cos_, sin_;
};

// One pass over `in.tokens`: writes their K and V, and the logits of in.logit_rows to `logits`,
// [logit_rows.size()][vocab]. Adds to `times`. Requires 1 <= rows <= activations.max_rows().
void forward(const Model& model, const StepInputs& in, Ops& ops, AttentionExecutor& attention,
             Activations& activations, Matrix logits, StepTimes& times);

}  // namespace banyan
