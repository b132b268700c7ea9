// SPDX-License-Identifier: Apache-2.0
#pragma once
// The three ways that products of weights and activations can go, side by side.

#include <cstdint>
#include <span>

#include "base/isa.h"
#include "base/thread_pool.h"
#include "tensor/cpu/dot_products.h"
#include "tensor/cpu/int8_gemm.h"
#include "tensor/cpu/product_paths.h"
#include "tensor/cpu/sliced_gemm.h"
#include "tensor/cpu/weight_rows.h"
#include "tensor/ops.h"

namespace banyan {

// One caller at a time. `pool` must outlive it.
class Products {
 public:
  // `deterministic`: one path for all rows of a class of weights. `panel_bytes`: for weights that
  // SlicedGemm keeps expanded.
  Products(ThreadPool& pool, Isa isa, Compute compute, bool deterministic = false,
           uint64_t panel_bytes = 0);

  WeightClass class_of(DType type) const;

  // Whether a path may be taken at all: this machine has it, and it rounds no more than what these
  // rows are promised. Timings choose among such paths only.
  bool may_take(ProductPath path, WeightClass weights, int row_class) const;
  bool may_take(const ProductPaths& paths) const;

  // A type of the class that stands for the others.
  static DType type_of(WeightClass weights);

  // As measured on two cores of a Zen 4.
  ProductPaths default_paths() const;

  // The path that `paths` has for these weights and rows >= 1. Weights that are kept expanded are
  // multiplied like those of a file that has them so.
  ProductPath path_of(const ProductPaths& paths, const Weight& weight, int64_t rows) const;

  // As Ops.
  void begin_step(int n_sequences) { n_sequences_ = n_sequences; }

  // As Ops::linear(), all targets one way. Requires may_take().
  void run(ProductPath path, ConstMatrix x, std::span<const LinearTarget> targets);

  // As Ops::feed_forward(), with weights whose path is kInt8; does not use gate.out and up.out.
  void feed_forward(ConstMatrix x, const LinearTarget& gate, const LinearTarget& up,
                    Int8Gemm::Gated gated, const LinearTarget& down) {
    int8_.feed_forward(x, gate, up, gated, down, rounding(x.rows));
  }

  uint64_t scratch_bytes() const;
  uint64_t panel_bytes() const { return gemm_.panel_bytes(); }

 private:
  ProductPath default_path(WeightClass weights, int64_t rows) const;
  Int8Gemm::Rounding rounding(int64_t rows) const;

  const CpuKernels kernels_;
  const Compute compute_;
  const bool deterministic_;
  int n_sequences_ = 1;
  DotProducts dots_;
  SlicedGemm gemm_;
  Int8Gemm int8_;
};

}  // namespace banyan
