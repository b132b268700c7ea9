// SPDX-License-Identifier: Apache-2.0
#pragma once
// The loops that measure_machine() times, one table for each instruction set. Each returns a number
// that depends on all its work, so that a compiler must do it. Immutable; safe from any thread.

#include <cstdint>

#include "base/isa.h"

namespace banyan {

struct MachineKernels {
  // Reads n floats; n is a multiple of kReadFloats.
  float (*read)(const float* data, int64_t n);

  // `rounds` times `flops_per_round` multiplies and adds on registers.
  float (*multiply_add)(int64_t rounds);
  int64_t flops_per_round;

  // `rounds` times kExpsPerRound exponentials of numbers in the L1 cache.
  float (*exponentials)(int64_t rounds);
};

inline constexpr int64_t kReadFloats = 256;
inline constexpr int64_t kExpsPerRound = 1024;

// The kernels for `isa`, or for the next lower set that they were written for.
MachineKernels machine_kernels(Isa isa);

}  // namespace banyan
