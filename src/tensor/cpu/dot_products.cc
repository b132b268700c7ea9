// SPDX-License-Identifier: Apache-2.0
#include "tensor/cpu/dot_products.h"

#include <algorithm>

#include "base/check.h"
#include "tensor/cpu/row_passes.h"

namespace banyan {
namespace {

// Rows per pass: bounds the scratch that holds the rounded activations.
constexpr int64_t kMaxRows = 1024;

// Outputs that a row of activations meets in turn: their results share a line of the cache.
constexpr int64_t kTileRows = 16;

// Expanded weights of a tile: half of the smallest L2 met (256 KiB), the rest is for activations.
constexpr int64_t kTileBytes = 128 << 10;

// Activations that meet a tile of weights while they are in the L1 (32 KiB, half of it for
// weights).
constexpr int64_t kActivationBytes = 16 << 10;
constexpr int64_t kMaxRowBlock = 64;

// Below these a second worker gains less than waking it costs (about 2 us).
constexpr int64_t kSerialElements = 16 << 10;  // to round
constexpr int64_t kSerialBytes = 16 << 10;     // of weights, times rows

}  // namespace

DotProducts::DotProducts(ThreadPool& pool, const CpuKernels& kernels, Compute compute)
    : pool_(pool), kernels_(kernels), compute_(compute) {}

void DotProducts::run(ConstMatrix x, std::span<const LinearTarget> targets) {
  for_each_row_pass(
      x, targets, kMaxRows,
      [&](ConstMatrix rows, std::span<const LinearTarget> some) { run_block(rows, some); });
}

uint64_t DotProducts::scratch_bytes() const {
  uint64_t bytes = expanded_.size() * sizeof(float);
  for (const RoundedRows& rows : rounded_) bytes += rows.data.size();
  return bytes;
}

bool DotProducts::expands(const Weight& weight) const {
  return compute_ == Compute::kF32 && is_quantized(weight.type);
}

bool DotProducts::rounds(const Weight& weight) const {
  return compute_ == Compute::kAuto && is_quantized(weight.type);
}

int64_t DotProducts::tile_rows(const Weight& weight) const {
  if (!expands(weight)) return kTileRows;
  const int64_t row_bytes = weight.cols * static_cast<int64_t>(sizeof(float));
  return std::clamp<int64_t>(kTileBytes / row_bytes, 1, kTileRows);
}

void DotProducts::run_block(ConstMatrix x, std::span<const LinearTarget> targets) {
  n_rounded_ = 0;
  int64_t total_bytes = 0;
  int64_t tile_floats = 0;
  for (const LinearTarget& target : targets) {
    const Weight& weight = target.weight;
    total_bytes += weight.rows * weight.row_bytes;
    if (rounds(weight)) round_activations(x, rounded_dots(kernels_, weight.type, x.cols));
    if (expands(weight)) tile_floats = std::max(tile_floats, tile_rows(weight) * weight.cols);
  }
  const int n_workers = total_bytes * x.rows < kSerialBytes ? 1 : pool_.size();
  expanded_.reserve_discarding(tile_floats * n_workers);

  // Each worker streams an equal, contiguous share of the bytes of all targets; an output belongs
  // to the worker in whose share its first byte lies.
  const auto work = [&](int worker) {
    const int64_t share_begin = total_bytes * worker / n_workers;
    const int64_t share_end = total_bytes * (worker + 1) / n_workers;
    int64_t offset = 0;
    for (const LinearTarget& target : targets) {
      const Weight& weight = target.weight;
      const auto first_output_at = [&](int64_t byte) {
        const int64_t outputs = (byte - offset + weight.row_bytes - 1) / weight.row_bytes;
        return byte <= offset ? 0 : std::min(outputs, weight.rows);
      };
      run_outputs(x, target, first_output_at(share_begin), first_output_at(share_end),
                  expanded_.data() + worker * tile_floats);
      offset += weight.rows * weight.row_bytes;
    }
  };
  if (n_workers == 1) return work(0);
  pool_.run(work);
}

void DotProducts::round_activations(ConstMatrix x, const RoundedDots& dots) {
  for (int i = 0; i < n_rounded_; ++i) {
    if (rounded_[i].round_row == dots.round_row) return;
  }
  BANYAN_CHECK(n_rounded_ < static_cast<int>(rounded_.size()), "more kinds of rounding than known");
  RoundedRows& rows = rounded_[n_rounded_++];
  rows.round_row = dots.round_row;
  rows.data.reserve_discarding(dots.row_bytes * x.rows);
  const auto round = [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      dots.round_row(x.row(r), rows.data.data() + r * dots.row_bytes, x.cols);
    }
  };
  if (x.rows * x.cols < kSerialElements) return round(0, x.rows, 0);
  pool_.parallel_for(x.rows, 1, round);
}

const std::byte* DotProducts::rounded_rows(const RoundedDots& dots) const {
  int i = 0;
  while (rounded_[i].round_row != dots.round_row) ++i;
  return rounded_[i].data.data();
}

namespace {

// Calls f(output_begin, output_end, row_begin, n_rows) for tiles of outputs, and for each tile for
// blocks of rows that stay in the L1.
template <class F>
void for_each_tile(int64_t begin, int64_t end, int64_t tile_rows, int64_t n_rows,
                   int64_t x_row_bytes, F f) {
  const int64_t fitting = kActivationBytes / x_row_bytes / 4 * 4;  // kernels take four at a time
  const int64_t row_block = std::clamp<int64_t>(fitting, 4, kMaxRowBlock);
  for (int64_t tile = begin; tile < end; tile += tile_rows) {
    for (int64_t r = 0; r < n_rows; r += row_block) {
      f(tile, std::min(end, tile + tile_rows), r, std::min(row_block, n_rows - r));
    }
  }
}

void store(const LinearTarget& target, int64_t output, int64_t row_begin, int64_t n_rows,
           const float* sums) {
  const float bias = target.bias == nullptr ? 0.0F : target.bias[output];
  for (int64_t r = 0; r < n_rows; ++r) {
    float& out = target.out.row(row_begin + r)[output];
    out = target.accumulate ? out + (sums[r] + bias) : sums[r] + bias;
  }
}

}  // namespace

void DotProducts::run_outputs(ConstMatrix x, const LinearTarget& target, int64_t begin, int64_t end,
                              float* expanded) const {
  const Weight& weight = target.weight;
  if (rounds(weight)) return run_rounded_outputs(x, target, begin, end);
  const bool expand = expands(weight);
  const RowDots dots = row_dots(kernels_, expand ? DType::kF32 : weight.type);
  const int64_t x_row_bytes = x.cols * static_cast<int64_t>(sizeof(float));
  std::array<float, kMaxRowBlock> sums;
  for_each_tile(begin, end, tile_rows(weight), x.rows, x_row_bytes,
                [&](int64_t first, int64_t last, int64_t row, int64_t n_rows) {
                  for (int64_t n = first; n < last; ++n) {
                    float* expanded_row = expanded + (n - first) * weight.cols;
                    if (expand && row == 0) expand_row(kernels_, weight, n, expanded_row);
                    const auto* w =
                        expand ? reinterpret_cast<const std::byte*>(expanded_row) : weight.row(n);
                    dots(w, x.row(row), x.stride, n_rows, x.cols, sums.data());
                    store(target, n, row, n_rows, sums.data());
                  }
                });
}

void DotProducts::run_rounded_outputs(ConstMatrix x, const LinearTarget& target, int64_t begin,
                                      int64_t end) const {
  const Weight& weight = target.weight;
  const RoundedDots dots = rounded_dots(kernels_, weight.type, x.cols);
  const std::byte* rows = rounded_rows(dots);
  std::array<float, kMaxRowBlock> sums;
  for_each_tile(begin, end, kTileRows, x.rows, dots.row_bytes,
                [&](int64_t first, int64_t last, int64_t row, int64_t n_rows) {
                  const std::byte* block = rows + row * dots.row_bytes;
                  for (int64_t n = first; n < last; ++n) {
                    if (dots.block_dots != nullptr) {
                      dots.block_dots(weight.row(n), block, dots.row_bytes, n_rows, x.cols,
                                      sums.data());
                    } else {
                      for (int64_t r = 0; r < n_rows; ++r) {
                        dots.vec_dot(static_cast<int>(x.cols), &sums[r], 0, weight.row(n), 0,
                                     block + r * dots.row_bytes, 0, 1);
                      }
                    }
                    store(target, n, row, n_rows, sums.data());
                  }
                });
}

}  // namespace banyan
