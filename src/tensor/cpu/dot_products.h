// SPDX-License-Identifier: Apache-2.0
#pragma once
// Products of weights and activations as dot products, one row of weights with one row of
// activations: the way for few rows, which wait for the weights to arrive from memory, and for
// deterministic mode, because a row's arithmetic is then its own.

#include <array>
#include <cstdint>
#include <span>

#include "base/buffer.h"
#include "base/thread_pool.h"
#include "tensor/cpu/weight_rows.h"
#include "tensor/ops.h"

namespace banyan {

// One caller at a time. Allocates only when a call needs more scratch than any before it.
class DotProducts {
 public:
  // Quantised weights meet activations rounded to 8 or 16 bits with Compute::kAuto and are expanded
  // to f32 with kF32; weights of f32, f16 and bf16 always meet f32 activations.
  DotProducts(ThreadPool& pool, const CpuKernels& kernels, Compute compute);

  // As Ops::linear(). A row's result depends on that row, the weights and the kernels alone.
  void run(ConstMatrix x, std::span<const LinearTarget> targets);

  uint64_t scratch_bytes() const;

 private:
  // The rows of x, rounded in one way.
  struct RoundedRows {
    void (*round_row)(const float*, void*, int64_t) = nullptr;
    AlignedArray<std::byte> data;
  };

  void run_block(ConstMatrix x, std::span<const LinearTarget> targets);
  void round_activations(ConstMatrix x, const RoundedDots& dots);
  const std::byte* rounded_rows(const RoundedDots& dots) const;
  void run_outputs(ConstMatrix x, const LinearTarget& target, int64_t begin, int64_t end,
                   float* expanded) const;
  void run_rounded_outputs(ConstMatrix x, const LinearTarget& target, int64_t begin,
                           int64_t end) const;
  bool expands(const Weight& weight) const;
  bool rounds(const Weight& weight) const;
  int64_t tile_rows(const Weight& weight) const;

  ThreadPool& pool_;
  const CpuKernels kernels_;
  const Compute compute_;
  std::array<RoundedRows, 4> rounded_;  // our own, and Q8_0, Q8_1, Q8_K: all that ggml asks for
  int n_rounded_ = 0;                   // entries of rounded_ that hold the rows of this block
  AlignedArray<float> expanded_;        // [worker][tile of weight rows]
};

}  // namespace banyan
