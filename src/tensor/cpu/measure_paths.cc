// SPDX-License-Identifier: Apache-2.0
#include "tensor/cpu/measure_paths.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/statistics.h"
#include "dnnl.hpp"
#include "tensor/cpu/products.h"

namespace banyan {
namespace {

// Between small models and large ones, whose choices hardly differ (576 to 4,096 inputs tried); no
// power of two, whose rows meet in the same lines of a cache.
constexpr int64_t kInputs = 1280;

// Enough for every worker to have slices of every path.
constexpr int64_t kFewestOutputs = 768;
constexpr int64_t kOutputsPerWorker = 128;

// Rows that stand for a class of row counts: about its middle, fewer in the last to save time.
constexpr std::array<int64_t, kRowClasses> kRows = {1, 2, 4, 8, 16, 28, 48, 72, 112, 192};

// To be raised whenever a path or this measurement has changed in a way that shifts the choice.
constexpr int kVersion = 2;

constexpr int kMostSamples = 7;
constexpr int kFewestSamples = 3;

// Another path must take less than this share of the default's time.
constexpr double kClearly = 0.9;

// One that took this many times as long as the fastest, twice, is not timed again.
constexpr double kHopeless = 2;

struct Candidate {
  ProductPath path;
  bool hopeless = false;
  std::vector<double> ms;
};

// One cell of the table.
struct Cell {
  WeightClass weights;
  int row_class;
  std::vector<Candidate> candidates;  // none where there is no choice
};

class Measurement {
 public:
  Measurement(ThreadPool& pool, Isa isa)
      : products_(pool, isa, Compute::kAuto),
        outputs_(std::max<int64_t>(kFewestOutputs, kOutputsPerWorker * pool.size())),
        weights_(outputs_ * kInputs),
        x_(kRows.back() * kInputs),
        out_(kRows.back() * outputs_) {
    // Bits that are usual numbers in all the types, as scales too.
    for (size_t i = 0; i < weights_.size(); ++i) {
      weights_[i] = static_cast<uint16_t>(0x2C00 + i * 37 % 256);
    }
    for (size_t i = 0; i < x_.size(); ++i) x_[i] = static_cast<float>(i * 61 % 255) / 127 - 1;
    std::ranges::fill(out_.span(), 0.0F);
    for (int w = 0; w < kWeightClasses; ++w) {
      for (int r = 0; r < kRowClasses; ++r) add_cell(WeightClass{static_cast<uint8_t>(w)}, r);
    }
  }

  void run(double budget_ms) {
    const int64_t start = now_ns();
    // Round 0 is not counted: primitives are made, scratch grows, pages are touched.
    for (int round = 0; round <= kMostSamples; ++round) {
      for (Cell& cell : cells_) {
        for (Candidate& candidate : cell.candidates) {
          if (candidate.hopeless) continue;
          if (ms_since(start) > budget_ms) return;
          const double ms = time(candidate.path, cell);
          if (round > 0) candidate.ms.push_back(ms);
        }
        give_up(cell);
      }
    }
  }

  MeasuredPaths result() const {
    MeasuredPaths measured{products_.default_paths()};
    for (const Cell& cell : cells_) {
      const auto w = static_cast<int>(cell.weights);
      ProductPath& path = measured.paths.at(cell.weights, cell.row_class);
      const auto ms_of = [&](ProductPath p) -> double {
        const auto found = std::ranges::find(cell.candidates, p, &Candidate::path);
        return median(found->ms);
      };
      double least = kClearly * ms_of(path);
      for (const Candidate& candidate : cell.candidates) {
        if (candidate.ms.empty()) continue;
        const double ms = median(candidate.ms);
        measured.gflops[w][cell.row_class][static_cast<int>(candidate.path)] =
            2.0 * static_cast<double>(kRows[cell.row_class] * kInputs * outputs_) / (ms * 1e6);
        if (candidate.ms.size() < kFewestSamples || ms >= least) continue;
        least = ms;
        path = candidate.path;
      }
    }
    return measured;
  }

 private:
  void add_cell(WeightClass weights, int row_class) {
    Cell cell{weights, row_class, {}};
    for (int p = 0; p < kProductPaths; ++p) {
      const ProductPath path{static_cast<uint8_t>(p)};
      if (products_.may_take(path, weights, row_class))
        cell.candidates.push_back({path, false, {}});
    }
    if (cell.candidates.size() > 1) cells_.push_back(std::move(cell));
  }

  double time(ProductPath path, const Cell& cell) {
    const DType type = Products::type_of(cell.weights);
    const DTypeInfo& info = *type_info(type);
    const int64_t row_bytes = kInputs / info.block_elements * info.block_bytes;
    const int64_t rows = kRows[cell.row_class];
    const LinearTarget target{
        {reinterpret_cast<const std::byte*>(weights_.data()), type, outputs_, kInputs, row_bytes},
        {out_.data(), rows, outputs_, outputs_}};
    const int64_t start = now_ns();
    products_.run(path, {x_.data(), rows, kInputs, kInputs}, {&target, 1});
    return ms_since(start);
  }

  static void give_up(Cell& cell) {
    double least = 1e300;
    for (const Candidate& c : cell.candidates) {
      if (c.ms.size() >= 2) least = std::min(least, std::ranges::min(c.ms));
    }
    for (Candidate& c : cell.candidates) {
      c.hopeless = c.ms.size() >= 2 && std::ranges::min(c.ms) > kHopeless * least;
    }
  }

  Products products_;
  const int64_t outputs_;
  AlignedArray<uint16_t> weights_;  // as large as the widest type needs
  AlignedArray<float> x_;
  AlignedArray<float> out_;
  std::vector<Cell> cells_;
};

}  // namespace

std::string product_paths_version() {
  const dnnl_version_t* onednn = dnnl_version();
  return fmt::format("{}, oneDNN {}.{}.{}", kVersion, onednn->major, onednn->minor, onednn->patch);
}

MeasuredPaths measure_paths(ThreadPool& pool, Isa isa, double budget_ms) {
  Measurement measurement(pool, isa);
  measurement.run(budget_ms);
  return measurement.result();
}

}  // namespace banyan
