// SPDX-License-Identifier: Apache-2.0
#pragma once
// Limits that a container puts on this process, cgroup v2 and v1. A limit of any ancestor group
// counts. Nothing is returned where none is set or none can be read.

#include <cstdint>
#include <filesystem>
#include <optional>

namespace banyan {

// Where to look; tests give a tree of their own.
struct CgroupFiles {
  std::filesystem::path memberships = "/proc/self/cgroup";
  std::filesystem::path root = "/sys/fs/cgroup";
};

// CPU time per wall time, in CPUs; > 0.
std::optional<double> cgroup_cpu_quota(const CgroupFiles& files = {});

// Bytes that can still be used before the memory limit; file cache that the kernel would drop first
// counts as free.
std::optional<uint64_t> cgroup_memory_left(const CgroupFiles& files = {});

}  // namespace banyan
