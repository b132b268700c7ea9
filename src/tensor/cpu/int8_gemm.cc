// SPDX-License-Identifier: Apache-2.0
#include "tensor/cpu/int8_gemm.h"

#include <algorithm>

#include "tensor/cpu/row_passes.h"

namespace banyan {
namespace {

constexpr int64_t kBlock = 32;

// Rows per pass: bounds the scratch for rounded activations. Weights are expanded once per part.
constexpr int64_t kMaxRows = 1024;

// Of this many blocks of a group of rows, one gets 16 bits. The default model's logits are then
// 0.05 off, root mean square, instead of 0.14 without such blocks (bf16: 0.025), and its perplexity
// 0.04 % instead of 0.28 %; one of ten leaves 0.07 and 0.1 %.
constexpr int64_t kBlocksForWide = 5;

// Blocks of inputs at once: their expanded weights, 20 KiB in a tile of 32 outputs, stay in the L1
// while the rows pass by.
constexpr int64_t kMaxPassBlocks = 18;

// Records of the rows of a part: what products read of them, two thirds, stays in an L2 of 1 MiB
// while tile after tile is taken.
constexpr int64_t kRecordBytes = 1 << 20;

// Every part expands all weights anew, which for this many rows costs a tenth of the products.
constexpr int64_t kFewestPartRows = 64;

// Rows of a part at most: their 32 outputs of gate and up stay in the L2 too.
constexpr int64_t kMostPartRows = 384;

// Below these a second worker gains less than waking it costs (about 2 us).
constexpr int64_t kSerialItems = 128;       // blocks of a group to round
constexpr int64_t kSerialBytes = 16 << 10;  // of weights, times rows

int64_t divide_up(int64_t n, int64_t by) { return (n + by - 1) / by; }

// To outputs [begin, begin + n) of n_rows rows at `out`.
void add_bias(const LinearTarget& target, int64_t begin, int n, int64_t n_rows, float* out,
              int64_t stride) {
  if (target.bias == nullptr) return;
  for (int64_t r = 0; r < n_rows; ++r) {
    for (int i = 0; i < n; ++i) out[r * stride + i] += target.bias[begin + i];
  }
}

}  // namespace

Int8Gemm::Int8Gemm(ThreadPool& pool, Isa isa)
    : pool_(pool),
      kernels_(int8_kernels(isa)),
      scratch_(pool.size()),
      parts_(kMaxRows / kInt8GroupRows) {}

bool Int8Gemm::takes(DType type) const {
  return kernels_.tile_outputs > 0 && int8_expands(type, kernels_.takes_bytes);
}

uint64_t Int8Gemm::scratch_bytes() const {
  uint64_t bytes = input_.bytes() + hidden_.bytes();
  for (const WorkerScratch& scratch : scratch_) {
    bytes += scratch.quants.size();
    bytes += sizeof(float) * (scratch.scales.size() + scratch.offsets.size() +
                              scratch.energies.size() + scratch.gate.size() + scratch.up.size());
  }
  return bytes;
}

void Int8Gemm::run(ConstMatrix x, std::span<const LinearTarget> targets, Rounding rounding) {
  rounding_ = rounding;
  if (x.rows <= kInt8MostDirectRows && rounding == Rounding::kWide) return run_directly(x, targets);
  for_each_row_pass(x, targets, kMaxRows,
                    [&](ConstMatrix rows, std::span<const LinearTarget> some) {
                      round(rows, input_);
                      multiply(input_, rows.rows, some);
                    });
}

void Int8Gemm::run_directly(ConstMatrix x, std::span<const LinearTarget> targets) {
  input_.reserve(x.rows, x.cols);
  const int64_t n_items = input_.n_groups * input_.n_blocks;
  const auto round_items = [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / input_.n_blocks * kInt8GroupRows;
      const int64_t block = i % input_.n_blocks;
      const int n_rows = static_cast<int>(std::min<int64_t>(kInt8GroupRows, x.rows - row));
      round_block(x.row(row) + block * kBlock, x.stride, n_rows, row, block, input_);
    }
  };
  if (n_items < kSerialItems) {
    round_items(0, n_items, 0);
  } else {
    pool_.parallel_for(n_items, 1, round_items);
  }
  const int64_t step = kernels_.direct_outputs;
  int64_t n_tiles = 0;
  int64_t n_bytes = 0;
  for (const LinearTarget& target : targets) {
    n_tiles += divide_up(target.weight.rows, step);
    n_bytes += target.weight.rows * target.weight.row_bytes;
  }
  // Each worker streams an equal, contiguous share of the weights.
  const auto work = [&](int64_t begin, int64_t end) {
    for (const LinearTarget& target : targets) {
      const int64_t own = divide_up(target.weight.rows, step);
      const int64_t last = std::min(end, own);
      if (begin < last) {
        multiply_directly(target, begin * step, std::min(last * step, target.weight.rows));
      }
      begin = std::max<int64_t>(begin - own, 0);
      end -= own;
      if (end <= 0) break;
    }
  };
  if (n_bytes * x.rows < kSerialBytes) return work(0, n_tiles);
  pool_.run([&](int worker) {
    work(n_tiles * worker / pool_.size(), n_tiles * (worker + 1) / pool_.size());
  });
}

// Outputs [begin, end) of a target for all rows of input_.
void Int8Gemm::multiply_directly(const LinearTarget& target, int64_t begin, int64_t end) {
  const Weight& weight = target.weight;
  for (int64_t first = begin; first < end; first += kernels_.direct_outputs) {
    const int n_outputs = static_cast<int>(std::min<int64_t>(kernels_.direct_outputs, end - first));
    float* out = target.out.row(0) + first;
    for (int64_t block = 0; block < input_.n_blocks; block += input_.pass_blocks) {
      kernels_.multiply_directly(
          weight.type, weight.row(first), weight.row_bytes, n_outputs, block,
          input_.records.data() + input_.record_at(0, block), input_.pass_blocks,
          std::min(input_.pass_blocks, input_.n_blocks - block), static_cast<int>(target.out.rows),
          target.accumulate || block > 0, out, target.out.stride);
    }
    add_bias(target, first, n_outputs, target.out.rows, out, target.out.stride);
  }
}

void Int8Gemm::feed_forward(ConstMatrix x, const LinearTarget& gate, const LinearTarget& up,
                            Gated gated, const LinearTarget& down, Rounding rounding) {
  rounding_ = rounding;
  for_each_row_pass(x, {&down, 1}, kMaxRows,
                    [&](ConstMatrix rows, std::span<const LinearTarget> some) {
                      round(rows, input_);
                      hidden_.reserve(rows.rows, down.weight.cols);
                      make_hidden(gate, up, gated, rows.rows);
                      multiply(hidden_, rows.rows, some);
                    });
}

void Int8Gemm::Rounded::reserve(int64_t rows, int64_t cols) {
  n_groups = divide_up(rows, kInt8GroupRows);
  n_blocks = cols / kBlock;
  const int64_t n_passes = divide_up(n_blocks, kMaxPassBlocks);
  pass_blocks = divide_up(n_blocks, n_passes);
  records.reserve_discarding(n_passes * n_groups * pass_blocks * kInt8RecordBytes);
  energies.reserve_discarding(n_groups * n_blocks);
  is_wide.reserve_discarding(n_groups * n_blocks);
}

void Int8Gemm::reserve_scratch(const Rounded& x) {
  for (WorkerScratch& scratch : scratch_) {
    const int64_t tile_blocks = kernels_.tile_outputs * x.pass_blocks;
    scratch.quants.reserve_discarding(tile_blocks * kBlock);
    scratch.scales.reserve_discarding(tile_blocks);
    scratch.offsets.reserve_discarding(tile_blocks);
  }
}

void Int8Gemm::round(ConstMatrix x, Rounded& to) {
  to.reserve(x.rows, x.cols);
  list_parts(to, x.rows);
  for_home_rows(x.rows, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t row = begin; row < end; row += kInt8GroupRows) {
      const int n_rows = static_cast<int>(std::min<int64_t>(kInt8GroupRows, end - row));
      for (int64_t b = 0; b < to.n_blocks; ++b) {
        round_block(x.row(row) + b * kBlock, x.stride, n_rows, row, b, to);
      }
    }
    choose_wide(begin, end, to, scratch_[worker]);
  });
}

void Int8Gemm::round_block(const float* x, int64_t stride, int n_rows, int64_t row, int64_t block,
                           Rounded& to) const {
  const int64_t group = row / kInt8GroupRows;
  to.energies[group * to.n_blocks + block] =
      kernels_.round_block(x, stride, n_rows, to.records.data() + to.record_at(group, block));
}

// Of each group of rows the blocks that would lose most.
void Int8Gemm::choose_wide(int64_t begin, int64_t end, Rounded& x, WorkerScratch& scratch) const {
  const int64_t n_wide = divide_up(x.n_blocks, kBlocksForWide);
  scratch.energies.reserve_discarding(x.n_blocks);
  for (int64_t row = begin; row < end; row += kInt8GroupRows) {
    const int64_t first = row / kInt8GroupRows * x.n_blocks;
    const std::span energies(x.energies.data() + first, x.n_blocks);
    const std::span sorted(scratch.energies.data(), x.n_blocks);
    float limit = -1;
    if (n_wide < x.n_blocks && rounding_ == Rounding::kWideOutliers) {
      std::ranges::copy(energies, sorted.begin());
      std::ranges::nth_element(sorted, sorted.begin() + n_wide, std::greater<float>());
      limit = sorted[n_wide];
    }
    std::ranges::transform(energies, x.is_wide.data() + first,
                           [&](float energy) { return energy > limit; });
  }
}

// One part for each worker, if that leaves them rows enough, or as many as make them small enough.
void Int8Gemm::list_parts(const Rounded& x, int64_t n_rows) {
  const int64_t most_groups = std::clamp<int64_t>(kRecordBytes / (x.n_blocks * kInt8RecordBytes), 1,
                                                  kMostPartRows / kInt8GroupRows);
  const int64_t for_workers = std::clamp<int64_t>(n_rows / kFewestPartRows, 1, pool_.size());
  const int64_t for_cache = divide_up(x.n_groups, most_groups);
  n_parts_ = std::min(divide_up(for_cache, for_workers) * for_workers, x.n_groups);
  for (int64_t p = 0; p < n_parts_; ++p) {
    parts_[p].row_begin = x.n_groups * p / n_parts_ * kInt8GroupRows;
    parts_[p].row_end = std::min(x.n_groups * (p + 1) / n_parts_ * kInt8GroupRows, n_rows);
  }
}

template <class F>
void Int8Gemm::for_home_rows(int64_t n_rows, F f) {
  if (n_parts_ < pool_.size()) return pool_.parallel_for(n_rows, kInt8GroupRows, f);
  pool_.run([&](int worker) {
    f(parts_[home_part(worker)].row_begin, parts_[home_part(worker + 1) - 1].row_end, worker);
  });
}

template <class F>
void Int8Gemm::for_parts(int64_t n, F f) {
  for (int64_t p = 0; p < n_parts_; ++p) parts_[p].next = 0;
  pool_.run([&](int worker) {
    for (int64_t i = 0; i < n_parts_; ++i) {
      Part& part = parts_[(home_part(worker) + i) % n_parts_];
      while (true) {
        const int64_t next = part.next.fetch_add(1, std::memory_order_relaxed);
        if (next >= n) break;
        f(part, next, scratch_[worker]);
      }
    }
  });
}

void Int8Gemm::multiply(const Rounded& x, int64_t n_rows, std::span<const LinearTarget> targets) {
  list_parts(x, n_rows);
  reserve_scratch(x);
  tiles_.clear();
  for (const LinearTarget& target : targets) {
    for (int64_t n = 0; n < target.weight.rows; n += kernels_.tile_outputs) {
      tiles_.push_back({&target, n, std::min(n + kernels_.tile_outputs, target.weight.rows)});
    }
  }
  for_parts(static_cast<int64_t>(tiles_.size()), [&](const Part& part, int64_t i,
                                                     WorkerScratch& scratch) {
    const LinearTarget& target = *tiles_[i].target;
    const int64_t begin = tiles_[i].begin;
    multiply_tile(x, part, target, begin, tiles_[i].end, workers_of_part() * kernels_.tile_outputs,
                  target.out.row(part.row_begin) + begin, target.out.stride, scratch);
  });
}

void Int8Gemm::multiply_tile(const Rounded& x, const Part& part, const LinearTarget& target,
                             int64_t begin, int64_t end, int64_t to_next, float* out,
                             int64_t stride, WorkerScratch& scratch) const {
  const Weight& weight = target.weight;
  const Int8Tile tile{scratch.quants.data(), scratch.scales.data(), scratch.offsets.data()};
  const int n_outputs = static_cast<int>(end - begin);
  // The weights of the tile that this worker takes next are fetched while this one's are used, some
  // with each group of rows.
  const int64_t next = std::min(begin + to_next, weight.rows);
  const std::byte* ahead = weight.row(next);
  const std::byte* ahead_end = weight.row(std::min(next + kernels_.tile_outputs, weight.rows));
  const int64_t n_passes = divide_up(x.n_blocks, x.pass_blocks);
  const int64_t n_groups = divide_up(part.row_end - part.row_begin, kInt8GroupRows);
  const int64_t ahead_bytes = divide_up(divide_up(ahead_end - ahead, n_passes * n_groups), 64) * 64;
  for (int64_t block = 0; block < x.n_blocks; block += x.pass_blocks) {
    const int64_t n_blocks = std::min(x.pass_blocks, x.n_blocks - block);
    kernels_.expand(weight.type, weight.row(begin), weight.row_bytes, n_outputs, block,
                    block + n_blocks, tile);
    for (int64_t row = part.row_begin; row < part.row_end; row += kInt8GroupRows) {
      const int n_rows = static_cast<int>(std::min<int64_t>(kInt8GroupRows, part.row_end - row));
      for (const std::byte* e = std::min(ahead + ahead_bytes, ahead_end); ahead < e; ahead += 64)
        __builtin_prefetch(ahead, 0, 2);
      const int64_t group = row / kInt8GroupRows;
      kernels_.multiply(tile, x.records.data() + x.record_at(group, block),
                        x.is_wide.data() + group * x.n_blocks + block, n_blocks, n_rows, n_outputs,
                        target.accumulate || block > 0, out + (row - part.row_begin) * stride,
                        stride);
    }
  }
  add_bias(target, begin, n_outputs, part.row_end - part.row_begin, out, stride);
}

// Rounds activation(gate) * up of the input to hidden_, a block of 32 at a time.
void Int8Gemm::make_hidden(const LinearTarget& gate, const LinearTarget& up, Gated gated,
                           int64_t n_rows) {
  reserve_scratch(input_);
  for (WorkerScratch& scratch : scratch_) {
    scratch.gate.reserve_discarding(kMostPartRows * kBlock);
    scratch.up.reserve_discarding(kMostPartRows * kBlock);
  }
  for_parts(hidden_.n_blocks, [&](const Part& part, int64_t block, WorkerScratch& scratch) {
    const auto product = [&](const LinearTarget& target, float* out) {
      for (int64_t n = 0; n < kBlock; n += kernels_.tile_outputs) {
        const int64_t begin = block * kBlock + n;
        multiply_tile(input_, part, target, begin, begin + kernels_.tile_outputs,
                      workers_of_part() * kBlock, out + n, kBlock, scratch);
      }
    };
    product(gate, scratch.gate.data());
    product(up, scratch.up.data());
    float* hidden = scratch.gate.data();
    gated(hidden, scratch.up.data(), hidden, (part.row_end - part.row_begin) * kBlock);
    for (int64_t row = part.row_begin; row < part.row_end; row += kInt8GroupRows) {
      const int rows = static_cast<int>(std::min<int64_t>(kInt8GroupRows, part.row_end - row));
      round_block(hidden + (row - part.row_begin) * kBlock, kBlock, rows, row, block, hidden_);
    }
  });
  for_home_rows(n_rows, [&](int64_t begin, int64_t end, int worker) {
    choose_wide(begin, end, hidden_, scratch_[worker]);
  });
}

}  // namespace banyan
