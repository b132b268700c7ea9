// SPDX-License-Identifier: Apache-2.0
#pragma once
// One step: new tokens of some sequences go through the model together. This is where the rooms
// meet: the tree gives slots and paths, the planner a plan, the model the logits.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "attention/executor.h"
#include "attention/plan.h"
#include "base/thread_pool.h"
#include "engine/step_view.h"
#include "kv/pool.h"
#include "kv/tree.h"
#include "model/forward.h"
#include "model/model.h"
#include "tensor/ops.h"

namespace banyan {

struct StepDevice {
  Ops* ops = nullptr;
  AttentionExecutor* attention = nullptr;
  int n_workers = 1;
  bool deterministic = false;  // plans whose results do not depend on how they are cut
  int32_t block = 128;         // as DeviceDescription::block
};

// Runs steps for one model. Not thread safe; allocates nothing once steps of a size have been seen.
class StepRunner {
 public:
  // All references must outlive the runner.
  StepRunner(const Model& model, PanelPool& pool, KvTree& tree, StepDevice device,
             PlanMethod method, int max_rows);

  // Extends every piece's sequence and runs the model over all of them. kFailed, with the tree
  // unchanged, if the KV budget cannot hold the new tokens. Requires distinct sequences and at most
  // max_rows() tokens together.
  Result<void> run(std::span<const Piece> pieces, StepOutput output = StepOutput::kLogits);

  // run() for pieces whose tokens are the newest of their sequences already.
  Result<void> run_extended(std::span<const Piece> pieces, StepOutput output = StepOutput::kLogits);

  // Of the last run: logits, [vocab], after the token that the piece's wanted[i] names.
  std::span<const float> logits(size_t piece, size_t i) const { return output(piece, i); }
  // The same of a run for hidden states, [hidden].
  std::span<const float> hidden(size_t piece, size_t i) const { return output(piece, i); }

  // Room for steps over sequences of `positions` together, so that decoding them does not allocate.
  void reserve(int64_t positions);

  // How the next steps are planned.
  void set_plan_method(PlanMethod method) {
    if (method != method_) view_.restart();
    method_ = method;
  }

  int max_rows() const { return activations_.max_rows(); }
  const StepTimes& times() const { return times_; }  // summed over all steps
  const Plan& plan() const { return plans_[0]; }     // of the last step, for the first layer group
  // Summed over all steps: taking slots for new tokens, and numbering rows and planning.
  int64_t tree_ns() const { return tree_ns_; }
  int64_t plan_ns() const { return plan_ns_; }
  uint64_t activation_bytes() const {
    return activations_.bytes() + output_.size() * sizeof(float);
  }

 private:
  std::span<const float> output(size_t piece, size_t i) const {
    return output_.span().subspan((output_begin_[piece] + i) * output_width_, output_width_);
  }
  // `extended`: whether the sequences have the pieces' tokens already.
  Result<void> check_positions(std::span<const Piece> pieces, bool extended) const;
  Result<void> extend(std::span<const Piece> pieces);

  const Model& model_;
  KvTree& tree_;
  StepDevice device_;
  PlanMethod method_;
  StepView view_;
  std::vector<RowShape> shapes_;  // of the layer groups
  std::vector<KvPlanes> planes_;  // [n_layers]
  Activations activations_;
  AlignedArray<float> output_;  // [wanted][output_width_]
  size_t output_width_ = 0;     // of the last run
  StepTimes times_;
  int64_t tree_ns_ = 0;
  int64_t plan_ns_ = 0;
  std::vector<Plan> plans_;  // one for each layer group

  // Scratch of a step, kept for its capacity.
  std::vector<uint32_t> wanted_rows_;   // ascending rows
  std::vector<uint32_t> output_begin_;  // by piece: its first row of output_
};

}  // namespace banyan
