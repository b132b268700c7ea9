// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "attention/kv_element.h"
#include "attention/testing_case.h"

namespace banyan::testing {
namespace {

TEST(ReferenceExecutor, AgreesWithTheOracleOverRandomTreesWindowsAndCuts) {
  const auto executor = make_reference_executor();
  for (uint32_t seed = 0; seed < 40; ++seed) {
    std::mt19937 random(seed);
    CaseOptions options{.seed = seed,
                        .n_sequences = 1 + int(seed % 5),
                        .max_rows = 9,
                        .n_kv_heads = 1 + int(seed % 3),
                        .heads_per_kv_head = 1 + int(seed % 4),
                        .head_dim = seed % 12 == 3 ? 40 : 4 + int(seed % 7)};
    constexpr DType kTypes[] = {DType::kF16, DType::kBF16, DType::kF32, DType::kQ8_0};
    options.type = kTypes[seed % 4];
    options.max_node_len = seed % 8 == 0 ? 2500 : 120;
    options.split_probability = seed % 2 == 0 ? 0.1 : 0;
    Case c = make_case(options);
    const AttendOptions attend{
        .scale = default_scale(c),
        .softcap = seed % 4 == 0 ? 5.0f : 0.0f,
        .window = seed % 3 == 0 ? Band::kCausal : int32_t(1 + random() % 90)};
    const Answer truth = oracle(c, attend);
    const Answer got = run_case(*executor, c, attend, {.n_workers = int(1 + random() % 30)});
    EXPECT_LT(relative_error(got.out, truth.out), 1e-6) << "seed " << seed;
    EXPECT_LT(relative_error(got.lse, truth.lse), 1e-6) << "seed " << seed;
  }
}

TEST(KvElement, ReadsEveryFiniteHalfAsHighwayDoes) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float expected = hwy::F32FromF16(hwy::float16_t::FromBits(static_cast<uint16_t>(bits)));
    const double got = f16_to_double(static_cast<uint16_t>(bits));
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(got));
    } else {
      EXPECT_EQ(expected, got) << bits;
    }
  }
}

}  // namespace
}  // namespace banyan::testing
