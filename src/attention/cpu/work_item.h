// SPDX-License-Identifier: Apache-2.0
#pragma once
// What one worker does with one work item or merge: finds the blocks through the run's refs, lets
// the kernels fold them into segments and segments into the item's state, and stores that.

#include <cstddef>
#include <cstdint>
#include <memory>

#include "attention/cpu/kernels.h"
#include "attention/cpu/pair_kernels.h"
#include "attention/executor.h"
#include "attention/plan.h"
#include "base/buffer.h"

namespace banyan {

// Packed rows (row x head) that one pass over an item's KV serves: converting a block costs little
// beside that many rows' products, and their states (3 x rows x head_dim floats) with the block fit
// a second-level cache of 1 MiB. A multiple of kTileRows and of kPairTileRows.
inline constexpr int kMostPassRows = 264;
constexpr int pass_rows(int head_dim) {
  return head_dim <= 128 ? kMostPassRows : kMostPassRows / 2;
}

// Buffers of one worker.
class WorkerScratch {
 public:
  // For heads of up to this size.
  void reserve(int head_dim, bool with_pairs);
  // Packed rows that there is room for.
  int most_rows() const { return pass_rows(head_dim_); }
  uint64_t bytes() const {
    return floats_.size() * sizeof(float) + scales_.size() * sizeof(uint16_t) +
           pairs_.size() * sizeof(uint32_t) + pair_scales_.size() * sizeof(float) + sizeof(*this);
  }

  float* q = nullptr;            // [pass_rows][head_dim]
  float* scores = nullptr;       // [pass_rows][64]
  float* tile = nullptr;         // [kTileRows][padded head_dim]
  float* k_block = nullptr;      // [4][head_dim][16]
  float* v_block = nullptr;      // [64][padded head_dim]
  uint16_t* k_scales = nullptr;  // [4][scale_blocks(head_dim)][16]
  uint16_t* v_scales = nullptr;
  float* block_m = nullptr;  // [pass_rows]
  float* block_l = nullptr;
  // The same in pairs, if asked for (pair_kernels.h).
  PairRows row_pairs;  // [pass_rows]
  PairBlock block_pairs;
  StoredBlock stored;  // of which block_pairs is made
  StateView segment;   // [pass_rows]
  StateView item;
  Position row_pos[kMostPassRows];
  KeyRange visible[kMostPassRows];

 private:
  int head_dim_ = 0;
  AlignedArray<float> floats_;
  AlignedArray<uint16_t> scales_;
  AlignedArray<uint32_t> pairs_;
  AlignedArray<float> pair_scales_;
};

struct AttendCall {
  const AttentionKernels* kernels;
  const PairKernels* pairs;  // null: every product in f32
  const Plan* plan;
  const AttendInputs* in;
  const AttendOutputs* out;
  float* workspace;   // plan->workspace_floats
  int64_t most_keys;  // that any row of the plan can see
};

// The executor of executor.h with kernels of the caller's choice for products of pairs, or none.
std::unique_ptr<AttentionExecutor> make_cpu_executor(ThreadPool& pool, Isa isa,
                                                     const PairKernels* pairs);

// What one KV head of an item or a merge has to do; it must be among the heads of that.
void attend_item(const AttendCall& call, const WorkItem& item, int kv_head, WorkerScratch& scratch);
void attend_merge(const AttendCall& call, const Merge& merge, int kv_head, WorkerScratch& scratch);

}  // namespace banyan
