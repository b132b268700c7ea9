// SPDX-License-Identifier: Apache-2.0
#pragma once
// What this machine can do at best, measured: the roofs that benchmarks set their times against
// (roofline model: Williams, Waterman, Patterson 2009).

#include <cstdint>

#include "base/isa.h"
#include "base/result.h"
#include "base/thread_pool.h"

namespace banyan {

// All threads of the pool together. G = 1e9.
struct MachineFigures {
  double bandwidth_gbps = 0;  // bytes/s that can be read from memory
  double peak_gflops = 0;     // multiplies and adds/s: of bf16 with AMX, of 16-bit whole numbers
                              // with AVX512_VNNI, else of f32
  double peak_gexps = 0;      // exponentials/s of f32 vectors, about 1 ulp
};

// A buffer that no cache holds any part of for long.
inline constexpr uint64_t kBandwidthBytes = uint64_t{2} << 30;

// Medians of several short runs on `pool`, with instructions of `isa` at most; 1 to 2 seconds.
// Reads `bandwidth_bytes` of memory, or half of the free memory where that is less, in huge pages
// where the system has them. kFailed if there is no memory to read.
Result<MachineFigures> measure_machine(ThreadPool& pool, Isa isa,
                                       uint64_t bandwidth_bytes = kBandwidthBytes);

}  // namespace banyan
