// SPDX-License-Identifier: Apache-2.0
#pragma once
// Products of 4- and 8-bit weights with many rows of activations in 8-bit arithmetic, by kernels of
// our own: twice as fast as bf16 where a CPU has both, and as f32 where it has neither.

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "base/thread_pool.h"
#include "tensor/cpu/int8_kernels.h"
#include "tensor/ops.h"

namespace banyan {

// One caller at a time. Allocates only when a call needs more scratch than any before it.
class Int8Gemm {
 public:
  Int8Gemm(ThreadPool& pool, Isa isa);

  // Whether products with weights of this type can be taken here.
  bool takes(DType type) const;

  // As Ops::linear(), for weights of types that it takes.
  void run(ConstMatrix x, std::span<const LinearTarget> targets);

  uint64_t scratch_bytes() const;

 private:
  // Rows that pass by the weights together. One worker rounds them and begins with them, so that
  // they lie in its L2; the others help when nothing of their own parts is left.
  struct Part {
    int64_t row_begin = 0, row_end = 0;
    std::atomic<int64_t> next_tile{0};
  };
  // At most a tile of a target's outputs.
  struct Tile {
    const LinearTarget* target;
    int64_t begin, end;
  };
  struct WorkerScratch {
    AlignedArray<uint8_t> quants;  // a tile of outputs, the inputs of a pass
    AlignedArray<float> scales, offsets;
    AlignedArray<float> energies;  // one for each block of inputs
  };

  void run_block(ConstMatrix x, std::span<const LinearTarget> targets);
  void list_parts(int64_t n_rows);
  void list_tiles(std::span<const LinearTarget> targets);
  void round_rows(ConstMatrix x, int64_t begin, int64_t end, WorkerScratch& scratch);
  void multiply(const Part& part, const Tile& outputs, WorkerScratch& scratch) const;

  ThreadPool& pool_;
  const Int8Kernels& kernels_;
  std::vector<WorkerScratch> scratch_;  // one for each worker
  std::vector<Part> parts_;             // room for the most there can be
  int64_t n_parts_ = 0;
  std::vector<Tile> tiles_;
  // Of the current block of rows: [pass][group of rows][block of inputs].
  AlignedArray<std::byte> records_;
  int64_t n_groups_ = 0;
  int64_t n_blocks_ = 0;
  int64_t pass_blocks_ = 0;
};

}  // namespace banyan
