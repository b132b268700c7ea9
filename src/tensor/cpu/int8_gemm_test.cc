// SPDX-License-Identifier: Apache-2.0
#include "tensor/cpu/int8_gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "tensor/cpu/testing_weights.h"

namespace banyan {
namespace {

using testing::name_of;
using testing::random_floats;
using testing::random_weight;
using testing::runnable_isas;
using testing::TestWeight;

using Rounding = Int8Gemm::Rounding;

constexpr int64_t kBlock = 32;

std::vector<double> exact(const TestWeight& weight, const std::vector<float>& x, int64_t rows) {
  const int64_t cols = weight.view.cols;
  std::vector<double> out;
  std::vector<std::vector<float>> w;
  for (int64_t n = 0; n < weight.view.rows; ++n) w.push_back(weight.row(n));
  for (int64_t r = 0; r < rows; ++r) {
    for (const std::vector<float>& row : w) {
      double sum = 0;
      for (int64_t i = 0; i < cols; ++i) sum += double{row[i]} * x[r * cols + i];
      out.push_back(sum);
    }
  }
  return out;
}

std::vector<float> product(Int8Gemm& gemm, const TestWeight& weight, const std::vector<float>& x,
                           int64_t rows, Rounding rounding = Rounding::kWideOutliers) {
  const int64_t outputs = weight.view.rows;
  std::vector<float> out(rows * outputs, NAN);
  const LinearTarget target{weight.view, {out.data(), rows, outputs, outputs}};
  gemm.run({x.data(), rows, weight.view.cols, weight.view.cols}, {&target, 1}, rounding);
  return out;
}

// Rows of which a fifth of the blocks (the same in all rows) hold integers of 16 bits and the
// others of 8, each block with its largest magnitude in it: rounding leaves them as they are.
std::vector<float> integers(int64_t rows, int64_t cols, uint32_t seed) {
  std::mt19937 generator(seed);
  const int64_t n_blocks = cols / kBlock;
  const int64_t n_wide = (n_blocks + 4) / 5;
  std::vector<int64_t> order(n_blocks);
  for (int64_t b = 0; b < n_blocks; ++b) order[b] = b;
  std::ranges::shuffle(order, generator);
  std::vector<float> x(rows * cols);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < n_blocks; ++i) {
      const int largest = i < n_wide ? 127 * 256 : 127;
      std::uniform_int_distribution<int> any(-largest, largest);
      float* block = x.data() + r * cols + order[i] * kBlock;
      for (int64_t j = 0; j < kBlock; ++j) block[j] = static_cast<float>(any(generator));
      block[generator() % kBlock] = static_cast<float>(generator() % 2 == 0 ? largest : -largest);
    }
  }
  return x;
}

double largest(const std::vector<double>& values) {
  double most = 0;
  for (const double value : values) most = std::max(most, std::abs(value));
  return most;
}

// Types that the kernels of an instruction set take.
std::vector<DType> types_of(const Int8Gemm& gemm) {
  std::vector<DType> types;
  for (const DType type : {DType::kQ4_0, DType::kQ4_1, DType::kQ8_0}) {
    if (gemm.takes(type)) types.push_back(type);
  }
  return types;
}

TEST(Int8Gemm, TakesFourBitsFromAvx2On) {
  for (const Isa isa : runnable_isas()) {
    ThreadPool pool(1);
    const Int8Gemm gemm(pool, isa);
    EXPECT_EQ(gemm.takes(DType::kQ4_0), isa >= Isa::kAvx2) << name(isa);
    EXPECT_EQ(gemm.takes(DType::kQ4_1), isa >= Isa::kAvx2) << name(isa);
    EXPECT_EQ(gemm.takes(DType::kQ8_0), isa >= Isa::kAvx512 && has_avx512_vnni()) << name(isa);
    EXPECT_FALSE(gemm.takes(DType::kF32));
    EXPECT_FALSE(gemm.takes(DType::kBF16));
  }
}

TEST(Int8Gemm, IsExactForIntegers) {
  struct Shape {
    int64_t outputs, cols;
  };
  const Shape shapes[] = {{1, 32}, {3, 64}, {37, 160}, {96, 608}, {33, 1536}};
  for (const Isa isa : runnable_isas()) {
    for (const int n_threads : {1, 3}) {
      ThreadPool pool(n_threads);
      Int8Gemm gemm(pool, isa);
      for (const DType type : types_of(gemm)) {
        for (const Shape& shape : shapes) {
          const TestWeight weight = random_weight(type, shape.outputs, shape.cols, 1);
          for (const int64_t rows : {1, 2, 3, 4, 5, 8, 11, 12, 13, 17, 130}) {
            const std::vector<float> x = integers(rows, shape.cols, 2);
            const std::vector<double> expected = exact(weight, x, rows);
            const double tolerance = 2e-6 * largest(expected);
            for (const Rounding rounding : {Rounding::kWideOutliers, Rounding::kWide}) {
              const std::vector<float> got = product(gemm, weight, x, rows, rounding);
              for (size_t i = 0; i < got.size(); ++i) {
                ASSERT_NEAR(got[i], expected[i], tolerance)
                    << name(isa) << " " << name_of(type) << " " << shape.outputs << " x "
                    << shape.cols << ", rows " << rows << ", number " << i;
              }
            }
          }
        }
      }
    }
  }
}

TEST(Int8Gemm, WideRowsDoNotDependOnTheirNeighbours) {
  constexpr int64_t kRows = 130;
  constexpr int64_t kCols = 1184;  // three passes, the last of them shorter
  constexpr int64_t kOutputs = 75;
  const std::vector<float> x = random_floats(kRows * kCols, 10);
  for (const Isa isa : runnable_isas()) {
    ThreadPool pool(2);
    Int8Gemm gemm(pool, isa);
    for (const DType type : types_of(gemm)) {
      const TestWeight weight = random_weight(type, kOutputs, kCols, 11);
      const std::vector<float> all = product(gemm, weight, x, kRows, Rounding::kWide);
      for (const int64_t rows : {1, 2, 3, 4, 7, 8, 9, 11, 12, 13, 33}) {
        for (int64_t first = 0; first + rows <= kRows; first += 31) {
          const std::vector<float> some(x.begin() + first * kCols,
                                        x.begin() + (first + rows) * kCols);
          const std::vector<float> got = product(gemm, weight, some, rows, Rounding::kWide);
          ASSERT_TRUE(std::equal(got.begin(), got.end(), all.begin() + first * kOutputs))
              << name(isa) << " " << name_of(type) << ", rows " << rows;
        }
      }
    }
  }
}

// Root mean square of the differences to the exact product over that of the product.
double relative_error(Int8Gemm& gemm, const TestWeight& weight, const std::vector<float>& x,
                      int64_t rows) {
  const std::vector<double> expected = exact(weight, x, rows);
  const std::vector<float> got = product(gemm, weight, x, rows);
  double errors = 0;
  double squares = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    errors += (got[i] - expected[i]) * (got[i] - expected[i]);
    squares += expected[i] * expected[i];
  }
  return std::sqrt(errors / squares);
}

// Some channels a hundred times larger than the others are what activations of real models look
// like. Rounded to 8 bits, their blocks would make an error of 4 %.
TEST(Int8Gemm, RoundsBlocksWithOutliersFinely) {
  constexpr int64_t kRows = 64;
  constexpr int64_t kCols = 640;
  for (const Isa isa : runnable_isas()) {
    ThreadPool pool(2);
    Int8Gemm gemm(pool, isa);
    for (const DType type : types_of(gemm)) {
      const TestWeight weight = random_weight(type, 64, kCols, 3);
      std::vector<float> x = random_floats(kRows * kCols, 4);
      const double even = relative_error(gemm, weight, x, kRows);
      EXPECT_GT(even, 1e-3) << "an 8-bit product";
      EXPECT_LT(even, 8e-3);
      for (int64_t r = 0; r < kRows; ++r) {
        for (const int64_t channel : {17, 300, 301, 555}) x[r * kCols + channel] *= 100;
      }
      EXPECT_LT(relative_error(gemm, weight, x, kRows), 8e-4) << name(isa) << " " << name_of(type);
    }
  }
}

TEST(Int8Gemm, AddsBiasAndWhatWasThereAndWritesNothingBeside) {
  constexpr int64_t kRows = 11;
  constexpr int64_t kOutputs = 50;
  constexpr int64_t kStride = 57;
  constexpr int64_t kCols = 96;
  for (const Isa isa : runnable_isas()) {
    ThreadPool pool(2);
    Int8Gemm gemm(pool, isa);
    for (const DType type : types_of(gemm)) {
      const TestWeight weight = random_weight(type, kOutputs, kCols, 5);
      const std::vector<float> x = integers(kRows, kCols, 6);
      const std::vector<float> bias = random_floats(kOutputs, 7, 1e4F);
      const std::vector<float> before = random_floats(kRows * kStride, 8, 1e4F);
      const std::vector<double> expected = exact(weight, x, kRows);
      for (const Rounding rounding : {Rounding::kWideOutliers, Rounding::kWide}) {
        std::vector<float> out = before;
        const LinearTarget target{
            weight.view, {out.data(), kRows, kOutputs, kStride}, bias.data(), /*accumulate=*/true};
        gemm.run({x.data(), kRows, kCols, kCols}, {&target, 1}, rounding);
        for (int64_t r = 0; r < kRows; ++r) {
          for (int64_t n = 0; n < kStride; ++n) {
            const float had = before[r * kStride + n];
            if (n >= kOutputs) {
              ASSERT_EQ(out[r * kStride + n], had) << "beside the output";
            } else {
              ASSERT_NEAR(out[r * kStride + n], expected[r * kOutputs + n] + bias[n] + had,
                          2e-6 * largest(expected) + 0.01);
            }
          }
        }
      }
    }
  }
}

TEST(Int8Gemm, GivesZeroForRowsOfZeros) {
  for (const Isa isa : runnable_isas()) {
    ThreadPool pool(1);
    Int8Gemm gemm(pool, isa);
    for (const DType type : types_of(gemm)) {
      const TestWeight weight = random_weight(type, 40, 64, 9);
      for (const float value : product(gemm, weight, std::vector<float>(5 * 64), 5)) {
        ASSERT_EQ(value, 0.0F);
      }
    }
  }
}

}  // namespace
}  // namespace banyan
