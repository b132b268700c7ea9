// SPDX-License-Identifier: Apache-2.0
#pragma once
// Which CPUs this process may run on, and how many physical cores they are.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace banyan {

// CPU numbers (hardware threads) in the affinity mask of the calling thread, rising; not empty.
std::vector<int> allowed_cpus();

// Physical cores among `cpus`, by the sibling lists of sysfs; a CPU without one is its own core.
int distinct_cores(const std::vector<int>& cpus,
                   const std::filesystem::path& sysfs = "/sys/devices/system/cpu");

struct CpuCache {
  int level = 0;
  std::string type;  // "Data", "Instruction" or "Unified"
  uint64_t bytes = 0;
};

// Caches that one CPU sees, as sysfs lists them; none where it does not.
std::vector<CpuCache> cpu_caches(int cpu,
                                 const std::filesystem::path& sysfs = "/sys/devices/system/cpu");

}  // namespace banyan
