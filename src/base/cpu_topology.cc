// SPDX-License-Identifier: Apache-2.0
#include "base/cpu_topology.h"

#include <sched.h>

#include <fstream>
#include <memory>
#include <set>
#include <string>

#include "base/bytes.h"

namespace banyan {
namespace {

constexpr int kMaxCpus = 1 << 16;  // far beyond what Linux can be built for

struct FreeCpuSet {
  void operator()(cpu_set_t* set) const { CPU_FREE(set); }
};

}  // namespace

std::vector<int> allowed_cpus() {
  // The kernel refuses a mask smaller than its own, whose size it does not tell.
  for (int n_cpus = CPU_SETSIZE; n_cpus <= kMaxCpus; n_cpus *= 2) {
    const std::unique_ptr<cpu_set_t, FreeCpuSet> set(CPU_ALLOC(n_cpus));
    const size_t bytes = CPU_ALLOC_SIZE(n_cpus);
    if (set == nullptr) break;
    CPU_ZERO_S(bytes, set.get());
    if (sched_getaffinity(0, bytes, set.get()) != 0) continue;
    std::vector<int> cpus;
    for (int cpu = 0; cpu < n_cpus; ++cpu) {
      if (CPU_ISSET_S(cpu, bytes, set.get())) cpus.push_back(cpu);
    }
    if (!cpus.empty()) return cpus;
  }
  return {0};
}

int distinct_cores(const std::vector<int>& cpus, const std::filesystem::path& sysfs) {
  std::set<std::string> cores;
  for (const int cpu : cpus) {
    const std::filesystem::path topology = sysfs / ("cpu" + std::to_string(cpu)) / "topology";
    std::string siblings;
    for (const char* file : {"core_cpus_list", "thread_siblings_list"}) {  // new and old name
      std::ifstream(topology / file) >> siblings;
      if (!siblings.empty()) break;
    }
    cores.insert(siblings.empty() ? "cpu" + std::to_string(cpu) : siblings);
  }
  return static_cast<int>(cores.size());
}

std::vector<CpuCache> cpu_caches(int cpu, const std::filesystem::path& sysfs) {
  std::vector<CpuCache> caches;
  while (true) {
    const std::filesystem::path index =
        sysfs / ("cpu" + std::to_string(cpu)) / "cache" / ("index" + std::to_string(caches.size()));
    CpuCache cache;
    std::string size;
    std::ifstream(index / "level") >> cache.level;
    std::ifstream(index / "type") >> cache.type;
    std::ifstream(index / "size") >> size;
    const auto bytes = parse_bytes(size);
    if (!bytes) return caches;
    cache.bytes = *bytes;
    caches.push_back(std::move(cache));
  }
}

}  // namespace banyan
