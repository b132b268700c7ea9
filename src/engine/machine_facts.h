// SPDX-License-Identifier: Apache-2.0
#pragma once
// What this machine is and can do, as far as it matters here.

#include <optional>
#include <string>
#include <vector>

#include "base/cpu_topology.h"
#include "base/isa.h"
#include "base/result.h"
#include "engine/path_choice.h"
#include "tensor/cpu/machine.h"

namespace banyan {

struct MachineFacts {
  std::string cpu;
  std::string isa;                  // that kernels use, and its extensions
  int cpus = 0;                     // hardware threads that this process may run on
  int cores = 0;                    // physical ones among them, CPU quota respected
  std::optional<double> cpu_quota;  // of the container, in CPUs
  int threads = 0;                  // that the figures below are for
  std::vector<CpuCache> caches;
  uint64_t memory = 0;       // bytes
  uint64_t memory_free = 0;  // bytes, limits of a container respected
  MachineFigures figures;
  PathChoice paths;
  std::string paths_document;  // the paths in use, as write_product_paths() has them
};

struct MachineOptions {
  int n_threads = 0;  // 0: physical cores
  Isa isa = detect_isa();
  std::string cache_folder;  // "": the default paths
  bool measure_again = false;
};

// Measures for about 2 seconds. kFailed if there is no memory for that.
Result<MachineFacts> inspect_machine(const MachineOptions& options);

}  // namespace banyan
