// SPDX-License-Identifier: Apache-2.0
#include "tensor/cpu/products.h"

#include <cmath>

#include <gtest/gtest.h>

#include "tensor/cpu/cpu_ops.h"
#include "tensor/cpu/measure_paths.h"
#include "tensor/cpu/testing_weights.h"

namespace banyan {
namespace {

using testing::random_floats;
using testing::random_weight;
using testing::runnable_isas;

constexpr DType kQ4_1{3}, kQ5_1{7}, kQ4_K{12};

template <class F>
void for_each_cell(F f) {
  for (int w = 0; w < kWeightClasses; ++w) {
    for (int r = 0; r < kRowClasses; ++r) f(WeightClass{static_cast<uint8_t>(w)}, r);
  }
}

TEST(ProductPaths, RowsFallIntoTheClassThatBeginsBelowThem) {
  for (int64_t rows = 1; rows <= 600; ++rows) {
    const int r = row_class(rows);
    EXPECT_GE(rows, kRowClassBegin[r]);
    if (r + 1 < kRowClasses) {
      EXPECT_LT(rows, kRowClassBegin[r + 1]);
    }
  }
}

TEST(ProductPaths, NoPathRoundsMoreThanItsRowsArePromised) {
  ThreadPool pool(1, init_worker_thread);
  for (const Isa isa : runnable_isas()) {
    for (const Compute compute : {Compute::kAuto, Compute::kF32}) {
      const Products products(pool, isa, compute);
      const ProductPaths defaults = products.default_paths();
      EXPECT_TRUE(products.may_take(defaults)) << name(isa);
      for_each_cell([&](WeightClass weights, int r) {
        const bool eight_bits = products.may_take(ProductPath::kInt8, weights, r);
        if (compute == Compute::kF32) {
          EXPECT_FALSE(eight_bits);
        }
        // ggml's dot products round to 8 bits too.
        if (compute == Compute::kAuto && weights == WeightClass::kQuantized &&
            kRowClassBegin[r] >= 12) {
          EXPECT_FALSE(products.may_take(ProductPath::kDots, weights, r));
        }
      });
    }
  }
}

// One product with each of some types, by `ops`.
std::vector<float> product(CpuOps& ops, const Weight& weight, const std::vector<float>& x,
                           int64_t rows) {
  std::vector<float> out(rows * weight.rows);
  const LinearTarget target{weight, {out.data(), rows, weight.rows, weight.rows}};
  ops.linear({x.data(), rows, weight.cols, weight.cols}, {&target, 1});
  return out;
}

// Root mean square of the differences over that of `truth`.
double relative_error(const std::vector<float>& found, const std::vector<float>& truth) {
  double error = 0;
  double size = 0;
  for (size_t i = 0; i < truth.size(); ++i) {
    error += (found[i] - truth[i]) * (found[i] - truth[i]);
    size += truth[i] * truth[i];
  }
  return std::sqrt(error / size);
}

TEST(Products, OnlyManyRowsOrManySequencesAreRoundedCoarsely) {
  ThreadPool pool(2, init_worker_thread);
  constexpr DType kQ4_0{2};
  const testing::TestWeight weight = random_weight(kQ4_0, 64, 576, 5);
  for (const Isa isa : runnable_isas()) {
    for (const bool deterministic : {false, true}) {
      const auto ops = make_cpu_ops(pool, {.deterministic = deterministic, .isa = isa});
      const auto exact = make_cpu_ops(pool, {.compute = Compute::kF32, .isa = isa});
      const bool eight_bits =
          !deterministic && Products(pool, isa, Compute::kAuto)
                                .may_take(ProductPath::kInt8, WeightClass::kNibbles, 4);
      for (const int64_t rows : {8, 23, 24, 40, 63}) {
        const std::vector<float> x = random_floats(rows * 576, 6);
        ops->begin_step(1);
        const std::vector<float> one = product(*ops, weight.view, x, rows);
        ops->begin_step(static_cast<int>(rows));
        const std::vector<float> many = product(*ops, weight.view, x, rows);
        EXPECT_EQ(one != many, eight_bits && rows >= 24) << name(isa) << " " << rows;
        const std::vector<float> truth = product(*exact, weight.view, x, rows);
        // 8 bits of a block are about 3e-3 off; f32, bf16 and 16 bits less.
        EXPECT_LT(relative_error(many, truth), 6e-3) << name(isa) << " " << rows;
        EXPECT_LE(relative_error(one, truth), relative_error(many, truth));
      }
    }
  }
}

TEST(ProductPaths, ATableIsFollowedUnlessProductsAreDeterministic) {
  std::mt19937 random(5);
  for (const Isa isa : runnable_isas()) {
    ThreadPool pool(2, init_worker_thread);
    Products products(pool, isa, Compute::kAuto);
    for (int trial = 0; trial < 4; ++trial) {
      ProductPaths paths;
      for_each_cell([&](WeightClass weights, int r) {
        do {
          paths.at(weights, r) = ProductPath{static_cast<uint8_t>(random() % kProductPaths)};
        } while (!products.may_take(paths.at(weights, r), weights, r));
      });
      const auto ops = make_cpu_ops(pool, {.isa = isa, .paths = paths});
      const auto fixed = make_cpu_ops(pool, {.deterministic = true, .isa = isa, .paths = paths});
      const auto plain = make_cpu_ops(pool, {.deterministic = true, .isa = isa});
      for (const DType type : {kQ4_1, DType::kQ8_0, kQ5_1, kQ4_K, DType::kF16, DType::kBF16}) {
        const auto weight = random_weight(type, 70, 256, 3);
        for (const int64_t rows : kRowClassBegin) {
          SCOPED_TRACE(std::string(name(isa)) + " " + testing::name_of(type) + " rows " +
                       std::to_string(rows));
          const std::vector<float> x = random_floats(rows * 256, 7);
          std::vector<float> want(rows * 70);
          const LinearTarget target{weight.view, {want.data(), rows, 70, 70}};
          products.run(paths.at(products.class_of(type), row_class(rows)),
                       {x.data(), rows, 256, 256}, {&target, 1});
          EXPECT_EQ(product(*ops, weight.view, x, rows), want);
          EXPECT_EQ(product(*fixed, weight.view, x, rows), product(*plain, weight.view, x, rows));
        }
      }
    }
  }
}

// Two weights of 70 and 40 outputs, the second one twice and in a view, with `x`.
std::vector<float> gemm(Products& products, const Weight& a, const Weight& b,
                        const std::vector<float>& x, int64_t rows) {
  const Weight part = b.slice(0, 10);
  std::vector<float> out(rows * 160);
  const LinearTarget targets[] = {{a, {out.data(), rows, 70, 160}},
                                  {b, {out.data() + 70, rows, 40, 160}},
                                  {b, {out.data() + 110, rows, 40, 160}},
                                  {part, {out.data() + 150, rows, 10, 160}}};
  products.run(ProductPath::kGemm, {x.data(), rows, 256, 256}, targets);
  return out;
}

TEST(PanelCache, ChangesNoBitAndStaysWithinItsBytes) {
  for (const Isa isa : runnable_isas()) {
    ThreadPool pool(3, init_worker_thread);
    for (const Compute compute : {Compute::kAuto, Compute::kF32}) {
      for (const DType type : {kQ4_1, kQ4_K, DType::kF16, DType::kBF16, DType::kF32}) {
        SCOPED_TRACE(std::string(name(isa)) + " " + testing::name_of(type));
        const auto a = random_weight(type, 70, 256, 3);
        const auto b = random_weight(type, 40, 256, 4);
        Products plain(pool, isa, compute);
        const uint64_t b_bytes = uint64_t{40} * 256 * 2;
        for (const uint64_t bytes : {uint64_t{1} << 20, 2 * b_bytes, b_bytes, uint64_t{1}}) {
          Products keeping(pool, isa, compute, /*deterministic=*/false, bytes);
          for (const int64_t rows : {1, 7, 40, 7}) {
            const std::vector<float> x = random_floats(rows * 256, rows);
            EXPECT_EQ(gemm(keeping, a.view, b.view, x, rows), gemm(plain, a.view, b.view, x, rows));
            EXPECT_LE(keeping.panel_bytes(), bytes);
          }
          // f32 weights are never expanded, those of 4 bits always are.
          if (type == DType::kF32) {
            EXPECT_EQ(keeping.panel_bytes(), 0U);
          }
          if (type == kQ4_1 && bytes == uint64_t{1} << 20) {
            EXPECT_GE(keeping.panel_bytes(), uint64_t{110} * 256 * 2);
            EXPECT_LT(keeping.scratch_bytes(), plain.scratch_bytes());
          }
        }
      }
    }
  }
}

TEST(MeasuredPaths, DifferFromTheDefaultOnlyWhereTheyWereFaster) {
  for (const Isa isa : runnable_isas()) {
    ThreadPool pool(2, init_worker_thread);
    const Products products(pool, isa, Compute::kAuto);
    const ProductPaths defaults = products.default_paths();
    const MeasuredPaths measured = measure_paths(pool, isa, 200);
    EXPECT_TRUE(products.may_take(measured.paths));
    for_each_cell([&](WeightClass weights, int r) {
      const ProductPath path = measured.paths.at(weights, r);
      if (path == defaults.at(weights, r)) return;
      const auto& rates = measured.gflops[static_cast<int>(weights)][r];
      EXPECT_GT(rates[static_cast<int>(path)], rates[static_cast<int>(defaults.at(weights, r))]);
    });
  }
}

TEST(MeasuredPaths, WithoutTimeTheyAreTheDefault) {
  ThreadPool pool(2, init_worker_thread);
  const Isa isa = runnable_isas().back();
  EXPECT_EQ(measure_paths(pool, isa, 0).paths, Products(pool, isa, Compute::kAuto).default_paths());
}

}  // namespace
}  // namespace banyan
