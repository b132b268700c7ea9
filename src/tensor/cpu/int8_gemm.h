// SPDX-License-Identifier: Apache-2.0
#pragma once
// Products of 4- and 8-bit weights with some rows of activations or many in 8-bit arithmetic, by
// kernels of our own: with many twice as fast as bf16 where a CPU has both, and as f32 where it has
// neither.

#include <algorithm>
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
  // Element by element, as Kernels::gated.
  using Gated = void (*)(const float* gate, const float* up, float* out, int64_t n);

  Int8Gemm(ThreadPool& pool, Isa isa);

  // Whether products with weights of this type can be taken here.
  bool takes(DType type) const;

  // How activations are rounded. kWide: to 16 bits; the bits of a row's products then depend on
  // that row alone.
  enum class Rounding { kWide, kWideOutliers };

  // As Ops::linear(), for weights of types that it takes.
  void run(ConstMatrix x, std::span<const LinearTarget> targets, Rounding rounding);

  // As Ops::feed_forward(), for weights of types that it takes. Does not use gate.out and up.out:
  // what is between the products is rounded where it is made, and never leaves a core's cache
  // as f32.
  void feed_forward(ConstMatrix x, const LinearTarget& gate, const LinearTarget& up, Gated gated,
                    const LinearTarget& down, Rounding rounding);

  uint64_t scratch_bytes() const;

 private:
  // Rows that pass by the weights together. One worker rounds them and begins with them, so that
  // they lie in its L2; the others help when nothing of their own parts is left.
  struct Part {
    int64_t row_begin = 0, row_end = 0;
    std::atomic<int64_t> next{0};  // what of it is to be taken next
  };
  // At most a tile of a target's outputs.
  struct Tile {
    const LinearTarget* target;
    int64_t begin, end;
  };
  // Rounded activations of some rows.
  struct Rounded {
    AlignedArray<std::byte> records;  // [pass][group of rows][block of inputs]
    AlignedArray<float> energies;     // [group][block], what the kernels say of a block
    AlignedArray<uint8_t> is_wide;    // [group][block]
    int64_t n_groups = 0;
    int64_t n_blocks = 0;
    int64_t pass_blocks = 0;

    void reserve(int64_t rows, int64_t cols);
    uint64_t bytes() const {
      return records.size() + energies.size() * sizeof(float) + is_wide.size();
    }
    int64_t record_at(int64_t group, int64_t block) const {
      return ((block / pass_blocks * n_groups + group) * pass_blocks + block % pass_blocks) *
             kInt8RecordBytes;
    }
  };
  struct WorkerScratch {
    AlignedArray<uint8_t> quants;  // a tile of outputs, the inputs of a pass
    AlignedArray<float> scales, offsets;
    AlignedArray<float> energies;  // of a group
    AlignedArray<float> gate, up;  // [rows of a part][32]
  };

  void run_directly(ConstMatrix x, std::span<const LinearTarget> targets);
  void multiply_directly(const LinearTarget& target, int64_t begin, int64_t end);
  void round(ConstMatrix x, Rounded& to);
  void multiply(const Rounded& x, int64_t rows, std::span<const LinearTarget> targets);
  void make_hidden(const LinearTarget& gate, const LinearTarget& up, Gated gated, int64_t rows);

  void reserve_scratch(const Rounded& x);
  void list_parts(const Rounded& x, int64_t n_rows);
  int64_t home_part(int worker) const { return n_parts_ * worker / pool_.size(); }
  // Workers that take turns at a part.
  int64_t workers_of_part() const { return std::max<int64_t>(1, pool_.size() / n_parts_); }
  // f(begin, end, worker) for all rows, whole groups each, by the workers whose parts hold them.
  template <class F>
  void for_home_rows(int64_t n_rows, F f);
  // f(part, i, scratch) for each part and each i < n.
  template <class F>
  void for_parts(int64_t n, F f);
  void round_block(const float* x, int64_t stride, int n_rows, int64_t row, int64_t block,
                   Rounded& to) const;
  void choose_wide(int64_t begin, int64_t end, Rounded& x, WorkerScratch& scratch) const;
  // Outputs [begin, end) of a target for the rows of a part; `out` is the first of them. The
  // worker's next tile probably begins `to_next` outputs on.
  void multiply_tile(const Rounded& x, const Part& part, const LinearTarget& target, int64_t begin,
                     int64_t end, int64_t to_next, float* out, int64_t stride,
                     WorkerScratch& scratch) const;

  ThreadPool& pool_;
  const Int8Kernels& kernels_;
  std::vector<WorkerScratch> scratch_;  // one for each worker
  std::vector<Part> parts_;             // room for the most there can be
  int64_t n_parts_ = 0;
  std::vector<Tile> tiles_;
  Rounding rounding_ = Rounding::kWide;
  Rounded input_;
  Rounded hidden_;
};

}  // namespace banyan
