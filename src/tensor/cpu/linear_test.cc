// SPDX-License-Identifier: Apache-2.0
// Ops::linear() against a sum in double, through every way that it may take.
#include <gtest/gtest.h>

#include <cmath>

#include "tensor/cpu/cpu_ops.h"
#include "tensor/cpu/testing_weights.h"

extern "C" void omp_set_num_threads(int n_threads);
extern "C" int omp_get_max_threads();

namespace banyan {
namespace {

using testing::name_of;
using testing::random_floats;
using testing::random_weight;
using testing::runnable_isas;
using testing::TestWeight;

constexpr DType kQ5_1{7}, kQ4_K{12}, kQ6_K{14}, kIQ4_NL{20};

// Types that have dot products of our own, with 16-bit activations.
bool is_block_type(DType type) {
  return type == DType::kQ4_0 || type == DType::kQ4_1 || type == DType::kQ8_0;
}

// One deviation of the rounding of a factor, relative to a number of usual size: activations to 8
// or 16 bits (a 127th or 32384th of the largest of a block, about 3 deviations), factors to bf16
// (both), or none. Few rows are never taken in bf16.
double relative_deviation(Compute compute, DType weight, int64_t rows) {
  if (compute == Compute::kF32 || weight == DType::kF32 || weight == DType::kF16) return 3e-7;
  const double steps = is_block_type(weight) && rows < 16 ? 32384 : 127;
  return 4.0 / steps / std::sqrt(12.0);
}

struct Case {
  int64_t rows, outputs, cols;
};

// Checks out = x * weight^T (+ bias) (+ what was there).
void expect_linear(CpuOps& ops, Compute compute, const TestWeight& weight, int64_t rows,
                   bool with_bias, bool accumulate) {
  const int64_t cols = weight.view.cols;
  const int64_t outputs = weight.view.rows;
  const int64_t x_stride = cols + 4;
  const int64_t out_stride = outputs + 3;
  const std::vector<float> x = random_floats(rows * x_stride, 1);
  const std::vector<float> bias = random_floats(outputs, 2);
  const std::vector<float> before = random_floats(rows * out_stride, 3);
  std::vector<float> out = before;
  const LinearTarget target{weight.view,
                            {out.data(), rows, outputs, out_stride},
                            with_bias ? bias.data() : nullptr,
                            accumulate};
  ops.linear({x.data(), rows, cols, x_stride}, {&target, 1});

  const double deviation = relative_deviation(compute, weight.view.type, rows);
  for (int64_t n = 0; n < outputs; ++n) {
    const std::vector<float> w = weight.row(n);
    for (int64_t r = 0; r < rows; ++r) {
      double sum = 0;
      double squares = 0;
      for (int64_t i = 0; i < cols; ++i) {
        sum += double{w[i]} * x[r * x_stride + i];
        squares += double{w[i]} * w[i];
      }
      if (with_bias) sum += bias[n];
      if (accumulate) sum += before[r * out_stride + n];
      ASSERT_NEAR(out[r * out_stride + n], sum, 6 * deviation * std::sqrt(squares) + 1e-5)
          << "row " << r << " of " << rows << ", output " << n;
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t n = outputs; n < out_stride; ++n) {
      ASSERT_EQ(out[r * out_stride + n], before[r * out_stride + n]) << "beside the output";
    }
  }
}

class Linear : public ::testing::TestWithParam<std::tuple<Compute, bool>> {};

INSTANTIATE_TEST_SUITE_P(EveryMode, Linear,
                         ::testing::Combine(::testing::Values(Compute::kAuto, Compute::kF32),
                                            ::testing::Bool()),
                         [](const auto& mode) {
                           return std::string(std::get<0>(mode.param) == Compute::kAuto ? "auto"
                                                                                        : "f32") +
                                  (std::get<1>(mode.param) ? "Deterministic" : "");
                         });

TEST_P(Linear, EqualsASumInDoubleForEveryNumberOfRows) {
  const auto [compute, deterministic] = GetParam();
  const std::pair<DType, int64_t> types_and_cols[] = {
      {DType::kF32, 67},  {DType::kF16, 77},   {DType::kBF16, 61}, {DType::kQ8_0, 96},
      {DType::kQ4_0, 64}, {DType::kQ4_1, 160}, {kQ5_1, 32},        {kQ4_K, 512},
      {kQ6_K, 256},       {kIQ4_NL, 64},
  };
  for (const Isa isa : runnable_isas()) {
    ThreadPool pool(2, init_worker_thread);
    const auto ops = make_cpu_ops(pool, {compute, deterministic, isa});
    for (const auto& [type, cols] : types_and_cols) {
      const TestWeight weight = random_weight(type, 37, cols, 4);
      for (int64_t rows = 1; rows <= 40; ++rows) {
        SCOPED_TRACE(std::string(name(isa)) + " " + name_of(type));
        expect_linear(*ops, compute, weight, rows, rows % 3 == 0, rows % 2 == 0);
      }
      expect_linear(*ops, compute, weight, 130, true, true);
    }
  }
}

TEST_P(Linear, EqualsASumInDoubleForEveryNumberOfThreads) {
  const auto [compute, deterministic] = GetParam();
  for (const Isa isa : runnable_isas()) {
    for (int n_threads = 1; n_threads <= 3; ++n_threads) {
      ThreadPool pool(n_threads, init_worker_thread);
      const auto ops = make_cpu_ops(pool, {compute, deterministic, isa});
      for (const DType type : {DType::kF32, DType::kBF16, DType::kQ4_1}) {
        for (const int64_t outputs : {1, 2, 191, 500}) {
          const TestWeight weight = random_weight(type, outputs, 96, 5);
          for (const int64_t rows : {1, 17, 130}) {
            SCOPED_TRACE(std::string(name(isa)) + " " + name_of(type) + ", outputs: " +
                         std::to_string(outputs) + ", threads: " + std::to_string(n_threads));
            expect_linear(*ops, compute, weight, rows, false, false);
            expect_linear(*ops, compute, weight, rows, true, true);
          }
        }
      }
    }
  }
}

TEST_P(Linear, LeavesTheCallersOpenMpAsItWas) {
  const auto [compute, deterministic] = GetParam();
  omp_set_num_threads(5);
  ThreadPool pool(2, init_worker_thread);
  const TestWeight weight = random_weight(DType::kF32, 40, 64, 6);
  for (const Isa isa : runnable_isas()) {
    SCOPED_TRACE(name(isa));
    const auto ops = make_cpu_ops(pool, {compute, deterministic, isa});
    expect_linear(*ops, compute, weight, 130, true, true);
    EXPECT_EQ(omp_get_max_threads(), 5);
  }
}

TEST_P(Linear, ManyRowsAreTakenInPassesOfBoundedScratch) {
  const auto [compute, deterministic] = GetParam();
  ThreadPool pool(2, init_worker_thread);
  const TestWeight weight = random_weight(DType::kQ4_1, 40, 64, 6);
  for (const Isa isa : runnable_isas()) {
    SCOPED_TRACE(name(isa));
    const auto ops = make_cpu_ops(pool, {compute, deterministic, isa});
    expect_linear(*ops, compute, weight, 1500, true, true);
    const uint64_t scratch = ops->scratch_bytes();
    expect_linear(*ops, compute, weight, 4000, false, false);
    EXPECT_EQ(ops->scratch_bytes(), scratch);
  }
}

// Several products of one x, of types that want it rounded differently.
TEST_P(Linear, TargetsOfOneCallAreEachRight) {
  const auto [compute, deterministic] = GetParam();
  ThreadPool pool(3, init_worker_thread);
  const DType types[] = {DType::kQ4_1, DType::kQ8_0, kQ4_K,       DType::kF16,
                         DType::kBF16, DType::kF32,  DType::kQ4_1};
  for (const Isa isa : runnable_isas()) {
    SCOPED_TRACE(name(isa));
    const auto ops = make_cpu_ops(pool, {compute, deterministic, isa});
    for (const int64_t rows : {1, 5, 64}) {
      const std::vector<float> x = random_floats(rows * 512, 7);
      std::vector<TestWeight> weights;
      std::vector<std::vector<float>> together, apart;
      std::vector<LinearTarget> targets;
      for (size_t i = 0; i < std::size(types); ++i) {
        const int64_t outputs = 11 + 100 * static_cast<int64_t>(i % 3);
        weights.push_back(random_weight(types[i], outputs, 512, static_cast<uint32_t>(i)));
        together.emplace_back(rows * outputs);
        apart.emplace_back(rows * outputs);
        targets.push_back({weights[i].view, {together[i].data(), rows, outputs, outputs}});
      }
      ops->linear({x.data(), rows, 512, 512}, targets);
      for (size_t i = 0; i < targets.size(); ++i) {
        LinearTarget alone = targets[i];
        alone.out.data = apart[i].data();
        ops->linear({x.data(), rows, 512, 512}, {&alone, 1});
        const double deviation = relative_deviation(compute, types[i], rows);
        for (size_t j = 0; j < apart[i].size(); ++j) {
          double squares = 0;
          for (const float w : weights[i].row(j % alone.out.cols)) squares += double{w} * w;
          ASSERT_NEAR(together[i][j], apart[i][j], 6 * deviation * std::sqrt(squares) + 1e-5)
              << name_of(types[i]) << " " << j;
        }
      }
    }
  }
}

// The f32 result of `rows` rows of x, computed in calls of `rows_per_call`.
std::vector<float> in_calls_of(int64_t rows_per_call, int n_threads, Compute compute, Isa isa,
                               const TestWeight& weight, const std::vector<float>& x) {
  const int64_t cols = weight.view.cols;
  const int64_t outputs = weight.view.rows;
  const int64_t rows = static_cast<int64_t>(x.size()) / cols;
  std::vector<float> out(rows * outputs);
  ThreadPool pool(n_threads, init_worker_thread);
  const auto ops = make_cpu_ops(pool, {compute, true, isa});
  for (int64_t begin = 0; begin < rows; begin += rows_per_call) {
    const int64_t n = std::min(rows_per_call, rows - begin);
    const LinearTarget target{weight.view, {out.data() + begin * outputs, n, outputs, outputs}};
    ops->linear({x.data() + begin * cols, n, cols, cols}, {&target, 1});
  }
  return out;
}

TEST(DeterministicLinear, IsBitEqualForAnySplitIntoCallsAndThreads) {
  for (const Isa isa : runnable_isas()) {
    for (const Compute compute : {Compute::kAuto, Compute::kF32}) {
      for (const DType type :
           {DType::kF32, DType::kF16, DType::kBF16, DType::kQ4_1, DType::kQ8_0, kQ6_K}) {
        const int64_t cols = type == DType::kF32 ? 259 : 768;
        const TestWeight weight = random_weight(type, 150, cols, 8);
        const std::vector<float> x = random_floats(75 * cols, 9);
        const auto expected = in_calls_of(1, 1, compute, isa, weight, x);
        for (const int64_t rows_per_call : {2, 3, 17, 64, 75}) {
          for (int n_threads = 1; n_threads <= 3; ++n_threads) {
            EXPECT_EQ(in_calls_of(rows_per_call, n_threads, compute, isa, weight, x), expected)
                << name(isa) << " " << name_of(type) << " in calls of " << rows_per_call;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace banyan
