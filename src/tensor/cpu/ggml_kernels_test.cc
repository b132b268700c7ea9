// SPDX-License-Identifier: Apache-2.0
#include "tensor/cpu/ggml_kernels.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tensor/cpu/testing_weights.h"

namespace banyan {
namespace {

using testing::name_of;
using testing::random_floats;
using testing::random_weight;

const GgmlTypeKernels& entry(const NamedGgmlKernels& variant, DType type) {
  return variant.kernels->types[static_cast<int32_t>(type)];
}

TEST(GgmlKernels, EveryVariantCoversEveryQuantisedWeightType) {
  for (const NamedGgmlKernels& variant : runnable_ggml_kernels()) {
    for (const DType type : testing::quantized_weight_types()) {
      SCOPED_TRACE(std::string(variant.name) + " " + name_of(type));
      const GgmlTypeKernels& kernels = entry(variant, type);
      ASSERT_NE(kernels.vec_dot, nullptr);
      ASSERT_NE(kernels.to_float, nullptr);
      const DTypeInfo* operand = type_info(DType{kernels.vec_dot_type});
      ASSERT_NE(operand, nullptr);
      EXPECT_NE(entry(variant, DType{kernels.vec_dot_type}).from_float, nullptr);
      // A row of weights must be a whole number of blocks of its operand too.
      EXPECT_LE(operand->block_elements, type_info(type)->block_elements) << operand->name;
    }
  }
}

// Types with an offset per block need the sum of the activations of a block, which Q8_1 has;
// blocks of 256 need Q8_K; others Q8_0.
TEST(GgmlKernels, ActivationsAreRoundedToWhatTheWeightsNeed) {
  for (const NamedGgmlKernels& variant : runnable_ggml_kernels()) {
    for (const DType type : testing::quantized_weight_types()) {
      const std::string name = name_of(type);
      const bool has_offset = name == "Q4_1" || name == "Q5_1";
      const bool super_blocks = type_info(type)->block_elements == 256;
      const std::string expected = has_offset ? "Q8_1" : super_blocks ? "Q8_K" : "Q8_0";
      EXPECT_EQ(name_of(DType{entry(variant, type).vec_dot_type}), expected) << name;
    }
  }
}

TEST(GgmlKernels, ConversionToFloatEqualsTheReference) {
  for (const NamedGgmlKernels& variant : runnable_ggml_kernels()) {
    for (const DType type : testing::quantized_weight_types()) {
      const auto weight = random_weight(type, 1, 1024, 3);
      std::vector<float> values(1024);
      entry(variant, type).to_float(weight.view.data, values.data(), 1024);
      EXPECT_EQ(values, weight.row(0)) << variant.name << " " << name_of(type);
    }
  }
}

// The other operand is rounded to 8 bits in blocks of 32 or 256, so that each product is off by at
// most half a step, |x|max / 127 / 2; independent errors add up as the root of their squares. Six
// deviations, and a part in a thousand of the terms' size for f16 scales and sums.
TEST(GgmlKernels, DotProductsEqualTheExactOnesUpToTheRoundingOfActivations) {
  for (const NamedGgmlKernels& variant : runnable_ggml_kernels()) {
    for (const DType type : testing::quantized_weight_types()) {
      for (const int64_t n : {256, 768, 2048}) {
        for (uint32_t seed = 0; seed < 4; ++seed) {
          SCOPED_TRACE(std::string(variant.name) + " " + name_of(type) + " " + std::to_string(n));
          const auto weight = random_weight(type, 1, n, 7 + seed);
          const std::vector<float> w = weight.row(0);
          const std::vector<float> x = random_floats(n, 100 + seed);
          const GgmlTypeKernels& kernels = entry(variant, type);
          std::vector<std::byte> rounded(n * 2);
          entry(variant, DType{kernels.vec_dot_type}).from_float(x.data(), rounded.data(), n);
          float dot = 0;
          kernels.vec_dot(static_cast<int>(n), &dot, 0, weight.view.data, 0, rounded.data(), 0, 1);

          double exact = 0;
          double w_squares = 0;
          double terms_squares = 0;
          float x_max = 0;
          for (int64_t i = 0; i < n; ++i) {
            exact += double{w[i]} * x[i];
            w_squares += double{w[i]} * w[i];
            terms_squares += double{w[i]} * x[i] * w[i] * x[i];
            x_max = std::max(x_max, std::fabs(x[i]));
          }
          const double step_deviation = x_max / 127 / std::sqrt(12.0);
          const double tolerance =
              6 * step_deviation * std::sqrt(w_squares) + 6e-3 * std::sqrt(terms_squares);
          EXPECT_NEAR(dot, exact, tolerance);
        }
      }
    }
  }
}

TEST(GgmlKernels, TablesFollowTheInstructionSet) {
  const auto variants = runnable_ggml_kernels();
  EXPECT_EQ(&ggml_kernels(Isa::kBaseline), variants.front().kernels);
  EXPECT_EQ(&ggml_kernels(detect_isa()), variants.back().kernels);
}

}  // namespace
}  // namespace banyan
