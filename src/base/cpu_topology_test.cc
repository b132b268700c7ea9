// SPDX-License-Identifier: Apache-2.0
#include "base/cpu_topology.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <filesystem>
#include <string>
#include <thread>

#include "base/testing_temp_folder.h"
#include "base/thread_pool.h"

namespace banyan {
namespace {

TEST(CpuTopology, SiblingsOfOneCoreCountOnce) {
  const TempFolder sysfs;
  for (int cpu = 0; cpu < 8; ++cpu) {
    const int core = cpu % 4;
    sysfs.write("cpu" + std::to_string(cpu) + "/topology/core_cpus_list",
                std::to_string(core) + "," + std::to_string(core + 4) + "\n");
  }
  EXPECT_EQ(distinct_cores({0, 1, 2, 3, 4, 5, 6, 7}, sysfs.path()), 4);
  EXPECT_EQ(distinct_cores({1, 5}, sysfs.path()), 1);
  EXPECT_EQ(distinct_cores({1, 2, 5}, sysfs.path()), 2);
}

TEST(CpuTopology, OldKernelsNameOfTheSiblingListIsReadToo) {
  const TempFolder sysfs;
  sysfs.write("cpu0/topology/thread_siblings_list", "0-1\n");
  sysfs.write("cpu1/topology/thread_siblings_list", "0-1\n");
  EXPECT_EQ(distinct_cores({0, 1}, sysfs.path()), 1);
}

TEST(CpuTopology, CpusWithoutTopologyAreCoresOfTheirOwn) {
  const TempFolder sysfs;
  EXPECT_EQ(distinct_cores({0, 3, 9}, sysfs.path()), 3);
}

TEST(CpuTopology, AffinityMaskLimitsCpusAndCores) {
  // On a thread of its own, so that the mask ends with it.
  std::thread([] {
    const int cpu = allowed_cpus().back();
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
    EXPECT_EQ(allowed_cpus(), std::vector<int>{cpu});
    EXPECT_EQ(ThreadPool::physical_cores(), 1);
  }).join();
}

TEST(CpuTopology, CachesComeAsSysfsListsThem) {
  const TempFolder sysfs;
  const auto write = [&](int index, const char* level, const char* type, const char* size) {
    const std::string folder = "cpu2/cache/index" + std::to_string(index) + "/";
    sysfs.write(folder + "level", level);
    sysfs.write(folder + "type", type);
    sysfs.write(folder + "size", size);
  };
  write(0, "1\n", "Data\n", "48K\n");
  write(1, "2\n", "Unified\n", "2048K\n");
  const std::vector<CpuCache> caches = cpu_caches(2, sysfs.path());
  ASSERT_EQ(caches.size(), 2U);
  EXPECT_EQ(caches[0].level, 1);
  EXPECT_EQ(caches[0].type, "Data");
  EXPECT_EQ(caches[0].bytes, 48U << 10);
  EXPECT_EQ(caches[1].bytes, 2U << 20);
  EXPECT_TRUE(cpu_caches(0, sysfs.path()).empty());
}

}  // namespace
}  // namespace banyan
