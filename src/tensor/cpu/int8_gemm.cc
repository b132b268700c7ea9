// SPDX-License-Identifier: Apache-2.0
#include "tensor/cpu/int8_gemm.h"

#include <algorithm>

#include "tensor/cpu/row_passes.h"

namespace banyan {
namespace {

constexpr int64_t kBlock = 32;

// Rows per pass: bounds the scratch for rounded activations. Weights are expanded once per pass.
constexpr int64_t kMaxRows = 1024;

// Of this many blocks of a group of rows, one gets 16 bits. The default model's logits are then
// 0.05 off, root mean square, instead of 0.14 without such blocks (bf16: 0.025), and its perplexity
// 0.04 % instead of 0.28 %; one of ten leaves 0.07 and 0.1 %.
constexpr int64_t kBlocksForWide = 5;

// Blocks of inputs at once: their expanded weights, 20 KiB in a tile of 32 outputs, stay in the L1
// while the rows pass by.
constexpr int64_t kMaxPassBlocks = 18;

// Records of the rows of a part: they stay in an L2 of 1 MiB while tile after tile is taken.
constexpr int64_t kRecordBytes = 512 << 10;

// Every part expands all weights anew, which for this many rows costs a tenth of the products.
constexpr int64_t kFewestPartRows = 64;

int64_t divide_up(int64_t n, int64_t by) { return (n + by - 1) / by; }

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
  uint64_t bytes = records_.size();
  for (const WorkerScratch& scratch : scratch_) {
    bytes += scratch.quants.size();
    bytes +=
        sizeof(float) * (scratch.scales.size() + scratch.offsets.size() + scratch.energies.size());
  }
  return bytes;
}

void Int8Gemm::run(ConstMatrix x, std::span<const LinearTarget> targets) {
  for_each_row_pass(
      x, targets, kMaxRows,
      [&](ConstMatrix rows, std::span<const LinearTarget> some) { run_block(rows, some); });
}

void Int8Gemm::run_block(ConstMatrix x, std::span<const LinearTarget> targets) {
  n_groups_ = divide_up(x.rows, kInt8GroupRows);
  n_blocks_ = x.cols / kBlock;
  const int64_t n_passes = divide_up(n_blocks_, kMaxPassBlocks);
  pass_blocks_ = divide_up(n_blocks_, n_passes);
  records_.reserve_discarding(n_passes * n_groups_ * pass_blocks_ * kInt8RecordBytes);
  for (WorkerScratch& scratch : scratch_) {
    const int64_t tile_blocks = kernels_.tile_outputs * pass_blocks_;
    scratch.quants.reserve_discarding(tile_blocks * kBlock);
    scratch.scales.reserve_discarding(tile_blocks);
    scratch.offsets.reserve_discarding(tile_blocks);
    scratch.energies.reserve_discarding(n_blocks_);
  }
  list_parts(x.rows);
  list_tiles(targets);
  const int n_workers = pool_.size();
  const auto home_begin = [&](int worker) { return n_parts_ * worker / n_workers; };
  if (n_parts_ < n_workers) {
    pool_.parallel_for(x.rows, kInt8GroupRows, [&](int64_t begin, int64_t end, int worker) {
      round_rows(x, begin, end, scratch_[worker]);
    });
  } else {
    pool_.run([&](int worker) {
      const int64_t first = home_begin(worker);
      const int64_t last = home_begin(worker + 1) - 1;
      round_rows(x, parts_[first].row_begin, parts_[last].row_end, scratch_[worker]);
    });
  }
  const auto n_tiles = static_cast<int64_t>(tiles_.size());
  pool_.run([&](int worker) {
    for (int64_t i = 0; i < n_parts_; ++i) {
      Part& part = parts_[(home_begin(worker) + i) % n_parts_];
      while (true) {
        const int64_t tile = part.next_tile.fetch_add(1, std::memory_order_relaxed);
        if (tile >= n_tiles) break;
        multiply(part, tiles_[tile], scratch_[worker]);
      }
    }
  });
}

void Int8Gemm::round_rows(ConstMatrix x, int64_t begin, int64_t end, WorkerScratch& scratch) {
  const int64_t n_wide = divide_up(n_blocks_, kBlocksForWide);
  const int64_t run_bytes = pass_blocks_ * kInt8RecordBytes;
  for (int64_t row = begin; row < end; row += kInt8GroupRows) {
    const int n_rows = static_cast<int>(std::min<int64_t>(kInt8GroupRows, end - row));
    kernels_.round_group(
        x.row(row), x.stride, n_rows, n_blocks_, n_wide, scratch.energies.data(),
        {records_.data() + row / kInt8GroupRows * run_bytes, pass_blocks_, n_groups_ * run_bytes});
  }
}

// One part for each worker, if that leaves them rows enough, or as many as make them small enough.
void Int8Gemm::list_parts(int64_t n_rows) {
  const int64_t most_groups = std::max<int64_t>(1, kRecordBytes / (n_blocks_ * kInt8RecordBytes));
  const int64_t for_workers = std::clamp<int64_t>(n_rows / kFewestPartRows, 1, pool_.size());
  const int64_t for_cache = divide_up(n_groups_, most_groups);
  n_parts_ = std::min(divide_up(for_cache, for_workers) * for_workers, n_groups_);
  for (int64_t p = 0; p < n_parts_; ++p) {
    parts_[p].row_begin = n_groups_ * p / n_parts_ * kInt8GroupRows;
    parts_[p].row_end = std::min(n_groups_ * (p + 1) / n_parts_ * kInt8GroupRows, n_rows);
    parts_[p].next_tile = 0;
  }
}

void Int8Gemm::list_tiles(std::span<const LinearTarget> targets) {
  tiles_.clear();
  for (const LinearTarget& target : targets) {
    for (int64_t n = 0; n < target.weight.rows; n += kernels_.tile_outputs) {
      tiles_.push_back({&target, n, std::min(n + kernels_.tile_outputs, target.weight.rows)});
    }
  }
}

void Int8Gemm::multiply(const Part& part, const Tile& outputs, WorkerScratch& scratch) const {
  const LinearTarget& target = *outputs.target;
  const Weight& weight = target.weight;
  const Int8Tile tile{scratch.quants.data(), scratch.scales.data(), scratch.offsets.data()};
  const int n_outputs = static_cast<int>(outputs.end - outputs.begin);
  for (int64_t block = 0; block < n_blocks_; block += pass_blocks_) {
    const int64_t n_blocks = std::min(pass_blocks_, n_blocks_ - block);
    const std::byte* records = records_.data() + block * n_groups_ * kInt8RecordBytes;
    kernels_.expand(weight.type, weight.row(outputs.begin), weight.row_bytes, n_outputs, block,
                    block + n_blocks, tile);
    for (int64_t row = part.row_begin; row < part.row_end; row += kInt8GroupRows) {
      const int n_rows = static_cast<int>(std::min<int64_t>(kInt8GroupRows, part.row_end - row));
      kernels_.multiply(tile, records + row / kInt8GroupRows * pass_blocks_ * kInt8RecordBytes,
                        n_blocks, n_rows, n_outputs, target.accumulate || block > 0,
                        target.out.row(row) + outputs.begin, target.out.stride);
    }
  }
  if (target.bias == nullptr) return;
  for (int64_t r = part.row_begin; r < part.row_end; ++r) {
    for (int64_t n = outputs.begin; n < outputs.end; ++n) target.out.row(r)[n] += target.bias[n];
  }
}

}  // namespace banyan
