// SPDX-License-Identifier: Apache-2.0
#pragma once
// What one worker does with one work item or merge: finds the blocks through the run's refs, lets
// the kernels fold them into segments and segments into the item's state, and stores that.

#include <cstddef>
#include <cstdint>

#include "attention/cpu/bf16_kernels.h"
#include "attention/cpu/kernels.h"
#include "attention/executor.h"
#include "attention/plan.h"
#include "base/buffer.h"

namespace banyan {

// Packed rows (row x head) that one pass over an item's KV serves: converting a block to f32 costs
// little beside that many rows' products, and their states (3 x 132 x head_dim floats) with the
// block still fit a second-level cache of 1 MiB at head_dim 256. A multiple of kTileRows.
inline constexpr int kPassRows = 132;

// Buffers of one worker.
class WorkerScratch {
 public:
  void reserve(int head_dim, bool with_pairs);
  uint64_t bytes() const {
    return floats_.size() * sizeof(float) + pairs_.size() * sizeof(uint32_t) + sizeof(*this);
  }

  float* q = nullptr;        // [kPassRows][head_dim]
  float* scores = nullptr;   // [kPassRows][64]
  float* tile = nullptr;     // [kTileRows][padded head_dim]
  float* k_block = nullptr;  // [4][head_dim][16]
  float* v_block = nullptr;  // [64][padded head_dim]
  float* block_m = nullptr;  // [kPassRows]
  float* block_l = nullptr;
  // The same in pairs of bf16, if asked for (bf16_kernels.h).
  uint32_t* q_pairs = nullptr;  // [kPassRows][half of head_dim]
  uint32_t* p_pairs = nullptr;  // [kPassRows][32]
  uint32_t* k_pairs = nullptr;  // [4][half of head_dim][16]
  uint32_t* v_pairs = nullptr;  // [4][8][padded head_dim]
  StateView segment;            // [kPassRows]
  StateView item;
  Position row_pos[kPassRows];
  KeyRange visible[kPassRows];

 private:
  int head_dim_ = 0;
  AlignedArray<float> floats_;
  AlignedArray<uint32_t> pairs_;
};

struct AttendCall {
  const AttentionKernels* kernels;
  const Bf16Kernels* bf16;  // null: every product in f32
  const Plan* plan;
  const AttendInputs* in;
  const AttendOutputs* out;
  float* workspace;   // plan->workspace_floats
  int64_t most_keys;  // that any row of the plan can see
};

void attend_item(const AttendCall& call, const WorkItem& item, WorkerScratch& scratch);
void attend_merge(const AttendCall& call, const Merge& merge, WorkerScratch& scratch);

}  // namespace banyan
