// SPDX-License-Identifier: Apache-2.0
#pragma once
// Products of weights with many rows of activations. Workers take slices of the outputs one by one,
// expand the slice's weights into scratch of their own and call oneDNN on it, single-threaded: one
// pool of threads for everything, and scratch that stays in the L2.

#include <atomic>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "base/thread_pool.h"
#include "dnnl.hpp"
#include "tensor/cpu/weight_rows.h"
#include "tensor/ops.h"

namespace banyan {

// One caller at a time.
class SlicedGemm {
 public:
  // Factors are f32. With Compute::kAuto and a CPU that multiplies bf16 (under the cap `isa`),
  // those of quantised and bf16 weights are rounded to bf16; sums are f32 in any case.
  // Expanded weights are kept from call to call as long as all of them take at most `panel_bytes`;
  // those weights must not change or move.
  SlicedGemm(ThreadPool& pool, const CpuKernels& kernels, Compute compute, Isa isa,
             uint64_t panel_bytes = 0);

  // Whether products with weights of this type are taken in bf16.
  bool uses_bf16(DType type) const;

  // As Ops::linear().
  void run(ConstMatrix x, std::span<const LinearTarget> targets);

  uint64_t scratch_bytes() const;

  // Whether these weights need expanding, and are kept expanded or will be from the next run() on.
  bool keeps(const Weight& weight) const;

  // What is kept expanded, at most `panel_bytes`.
  uint64_t panel_bytes() const { return panel_bytes_; }

 private:
  // Weights expanded as a whole, [rows][cols] in f32 or bf16.
  struct Panels {
    Weight of;
    AlignedArray<std::byte> data;
    bool is_listed = false;  // some slices fill it, or have filled it
    bool is_full = false;
  };
  // out[m][n] (+)= sum_k x[m][k] * w[n][k] in bf16. All that a oneDNN primitive is made for.
  struct Bf16Shape {
    int64_t m, n, k;
    int64_t w_stride;    // elements between the weights of two outputs
    int64_t out_stride;  // elements between two rows of out
    bool accumulate;
    auto operator<=>(const Bf16Shape&) const = default;  // NOLINT(modernize-use-nullptr)
  };
  struct Bf16Matmul {
    dnnl::memory::desc x, w, out, scratchpad;
    dnnl::matmul primitive;
  };
  struct WorkerScratch {
    AlignedArray<float> expanded;        // f32 weights of a slice, or one row on its way to bf16
    AlignedArray<uint16_t> rounded;      // bf16 weights of a slice
    AlignedArray<std::byte> scratchpad;  // oneDNN's
  };
  struct Slice {
    const LinearTarget* target;
    int64_t begin, end;      // outputs
    const Bf16Matmul* bf16;  // nullptr: f32
    Panels* panels;          // nullptr: not kept
  };

  void run_block(ConstMatrix x, std::span<const LinearTarget> targets);
  void list_slices(ConstMatrix x, std::span<const LinearTarget> targets);
  void reserve_scratch(const Slice& slice);
  bool expands(const Weight& weight) const;
  uint64_t expanded_bytes(const Weight& weight) const;
  Panels* panels_for(const Weight& weight);
  const Bf16Matmul& bf16_matmul(const Bf16Shape& shape);
  void round_activations(ConstMatrix x);
  void multiply_f32(ConstMatrix x, const Slice& slice, WorkerScratch& scratch) const;
  void multiply_bf16(const Slice& slice, WorkerScratch& scratch) const;
  void add_bias(const Slice& slice) const;

  ThreadPool& pool_;
  const CpuKernels kernels_;
  const dnnl::engine engine_;
  const int64_t f32_rows_;  // of x, in one call of oneDNN
  const bool has_bf16_;
  std::map<Bf16Shape, Bf16Matmul> matmuls_;
  const uint64_t most_panel_bytes_;
  uint64_t panel_bytes_ = 0;
  std::map<const std::byte*, Panels> panels_;  // by the weights' address
  std::vector<WorkerScratch> scratch_;         // one for each worker
  std::vector<Slice> slices_;                  // of the current block
  AlignedArray<uint16_t> rounded_x_;           // [rows][cols] bf16, rows of the current block
};

}  // namespace banyan
