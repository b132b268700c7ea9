// SPDX-License-Identifier: Apache-2.0
#include "tensor/cpu/machine.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "tensor/cpu/machine_kernels.h"

namespace banyan {
namespace {

constexpr int kRuns = 7;               // of which the median counts
constexpr double kShortestRunMs = 20;  // far above the cost of starting the workers
constexpr uint64_t kHugePageBytes = uint64_t{2} << 20;

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

double timed_ms(ThreadPool& pool, FunctionRef<void(int worker)> f) {
  const int64_t start = now_ns();
  pool.run(f);
  return ms_since(start);
}

// Rounds per second of one worker's loop, over all workers.
double rounds_per_second(ThreadPool& pool, float (*loop)(int64_t rounds)) {
  int64_t rounds = 256;
  const auto run_ms = [&] { return timed_ms(pool, [&](int) { loop(rounds); }); };
  // The faster of two: one may have been interrupted.
  while (std::min(run_ms(), run_ms()) < kShortestRunMs) rounds *= 2;
  std::vector<double> rates;
  for (int run = 0; run < kRuns; ++run) {
    rates.push_back(static_cast<double>(rounds) * pool.size() / (run_ms() * 1e-3));
  }
  return median(std::move(rates));
}

Result<double> bytes_per_second(ThreadPool& pool, const MachineKernels& kernels, uint64_t bytes) {
  const auto granule = static_cast<uint64_t>(pool.size()) * kReadFloats * sizeof(float);
  bytes = std::max(granule, std::min(bytes, available_memory() / 2) / granule * granule);
  auto memory = PageReservation::reserve(bytes + kHugePageBytes);
  if (!memory) {
    return failed("memory to measure the bandwidth with cannot be had: " + memory.error().message);
  }
#if defined(MADV_HUGEPAGE)
  // The roof of the memory, not of the page tables. Refused by some systems, which does no harm.
  ::madvise(memory->data(), memory->size(), MADV_HUGEPAGE);
#endif
  const uint64_t part = bytes / pool.size();
  pool.run([&](int worker) { std::memset(memory->data() + worker * part, 1, part); });

  std::vector<double> rates;
  for (int run = 0; run < kRuns; ++run) {
    const double ms = timed_ms(pool, [&](int worker) {
      const auto* data = reinterpret_cast<const float*>(memory->data() + worker * part);
      kernels.read(data, static_cast<int64_t>(part / sizeof(float)));
    });
    rates.push_back(static_cast<double>(bytes) / (ms * 1e-3));
  }
  return median(std::move(rates));
}

}  // namespace

Result<MachineFigures> measure_machine(ThreadPool& pool, Isa isa, uint64_t bandwidth_bytes) {
  const MachineKernels kernels = machine_kernels(isa);
  auto bandwidth = bytes_per_second(pool, kernels, bandwidth_bytes);
  if (!bandwidth) return bandwidth.error();
  MachineFigures figures;
  figures.bandwidth_gbps = *bandwidth * 1e-9;
  figures.peak_gflops = rounds_per_second(pool, kernels.multiply_add) *
                        static_cast<double>(kernels.flops_per_round) * 1e-9;
  figures.peak_gexps =
      rounds_per_second(pool, kernels.exponentials) * static_cast<double>(kExpsPerRound) * 1e-9;
  return figures;
}

}  // namespace banyan
