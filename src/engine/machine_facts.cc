// SPDX-License-Identifier: Apache-2.0
#include "engine/machine_facts.h"

#include <unistd.h>

#include "base/bytes.h"
#include "base/cgroup.h"
#include "base/thread_pool.h"
#include "tensor/cpu/cpu_ops.h"
#include "tensor/cpu/products.h"

namespace banyan {

Result<MachineFacts> inspect_machine(const MachineOptions& options) {
  apply_isa_cap(options.isa);
  MachineFacts facts;
  const std::vector<int> cpus = allowed_cpus();
  facts.cpus = static_cast<int>(cpus.size());
  facts.cores = ThreadPool::physical_cores();
  facts.cpu_quota = cgroup_cpu_quota();
  facts.caches = cpu_caches(cpus.front());
  facts.memory = static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) * ::sysconf(_SC_PAGESIZE);
  facts.memory_free = available_memory();

  ThreadPool pool(options.n_threads == 0 ? facts.cores : options.n_threads, init_worker_thread);
  const PathsKey key = paths_key(pool, options.isa);
  facts.cpu = cpu_name();
  facts.isa = key.isa;
  facts.threads = pool.size();
  facts.paths = choose_paths(pool, options.isa, options.cache_folder, options.measure_again);
  facts.paths_document = write_product_paths(
      facts.paths.measured.value_or(
          MeasuredPaths{Products(pool, options.isa, Compute::kAuto).default_paths()}),
      key);
  auto figures = measure_machine(pool, options.isa);
  if (!figures) return figures.error();
  facts.figures = *figures;
  return facts;
}

}  // namespace banyan
