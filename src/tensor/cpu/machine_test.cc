// SPDX-License-Identifier: Apache-2.0
#include "tensor/cpu/machine.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tensor/cpu/machine_kernels.h"

namespace banyan {
namespace {

std::vector<Isa> runnable_isas() {
  std::vector<Isa> isas;
  for (const Isa isa : {Isa::kBaseline, Isa::kSse4, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (isa <= detect_isa()) isas.push_back(isa);
  }
  return isas;
}

TEST(Machine, FiguresArePositiveAndFiniteForEveryInstructionSetAndThreadCount) {
  for (const int n_threads : {1, 3}) {
    ThreadPool pool(n_threads);
    for (const Isa isa : runnable_isas()) {
      SCOPED_TRACE(name(isa));
      const auto figures = measure_machine(pool, isa, 8 << 20);
      ASSERT_TRUE(figures);
      for (const double figure :
           {figures->bandwidth_gbps, figures->peak_gflops, figures->peak_gexps}) {
        EXPECT_TRUE(std::isfinite(figure));
        EXPECT_GT(figure, 0);
      }
    }
  }
}

TEST(Machine, ABufferSmallerThanOneReadStillMeasures) {
  ThreadPool pool(2);
  const auto figures = measure_machine(pool, detect_isa(), 1);
  ASSERT_TRUE(figures);
  EXPECT_GT(figures->bandwidth_gbps, 0);
  EXPECT_TRUE(std::isfinite(figures->bandwidth_gbps));
}

// The loops do the work that they are timed for.
TEST(MachineKernels, ReadAddsUpEveryFloat) {
  std::vector<float> data(3 * kReadFloats);
  double sum = 0;
  for (size_t i = 0; i < data.size(); ++i) {
    data[i] = static_cast<float>(i % 7) - 2;  // sums of small integers are exact
    sum += data[i];
  }
  for (const Isa isa : runnable_isas()) {
    EXPECT_EQ(machine_kernels(isa).read(data.data(), static_cast<int64_t>(data.size())), sum)
        << name(isa);
  }
}

TEST(MachineKernels, ExponentialsAddUpToTheirSum) {
  double sum = 0;
  for (int i = 0; i < kExpsPerRound; ++i) sum += std::exp(-20.0 * i / kExpsPerRound);
  for (const Isa isa : runnable_isas()) {
    EXPECT_NEAR(machine_kernels(isa).exponentials(1), sum, 1e-4 * sum) << name(isa);
  }
}

TEST(MachineKernels, EveryChainOfMultiplyAddsComesToItsSum) {
  for (const Isa isa : runnable_isas()) {
    const MachineKernels kernels = machine_kernels(isa);
    if (isa == Isa::kAmx) {
      // Four tiles, of which each element is a sum of 32 products 2^-7 * 2^-7 for each round.
      EXPECT_EQ(kernels.multiply_add(64), 4 * 64 * 32 * std::ldexp(1.0f, -14));
    } else if (isa == Isa::kAvx512 && has_avx512_vnni()) {
      // One lane of each chain: its number, and for each round two products 1 * 1.
      EXPECT_EQ(kernels.multiply_add(64), 24 * 64 * 2 + 24 * 23 / 2);
    } else {
      // x = 0.999 x + 0.001 tends to 1 in each lane of each chain.
      const double lanes = static_cast<double>(kernels.flops_per_round) / 2;
      EXPECT_NEAR(kernels.multiply_add(20000) / lanes, 1, 1e-3) << name(isa);
    }
  }
}

}  // namespace
}  // namespace banyan
