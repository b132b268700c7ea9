// SPDX-License-Identifier: Apache-2.0
#include "base/cgroup.h"

#include <gtest/gtest.h>

#include <string>

#include "base/testing_temp_folder.h"

namespace banyan {
namespace {

class Cgroup : public testing::Test {
 protected:
  CgroupFiles files() const { return {folder_.path() / "memberships", folder_.path() / "fs"}; }
  void memberships(std::string_view text) { folder_.write("memberships", text); }
  void file(const std::string& name, std::string_view text) { folder_.write("fs/" + name, text); }

 private:
  TempFolder folder_;
};

TEST_F(Cgroup, NothingIsLimitedWhereThereIsNoCgroup) {
  EXPECT_EQ(cgroup_cpu_quota(files()), std::nullopt);
  EXPECT_EQ(cgroup_memory_left(files()), std::nullopt);
}

TEST_F(Cgroup, MaxMeansNoLimit) {
  memberships("0::/app\n");
  file("app/cpu.max", "max 100000\n");
  file("app/memory.max", "max\n");
  file("app/memory.current", "4096\n");
  EXPECT_EQ(cgroup_cpu_quota(files()), std::nullopt);
  EXPECT_EQ(cgroup_memory_left(files()), std::nullopt);
}

TEST_F(Cgroup, TightestOfAllAncestorsCounts) {
  memberships("0::/a/b\n");
  file("a/b/cpu.max", "400000 100000\n");
  file("a/cpu.max", "250000 100000\n");
  file("cpu.max", "max 100000\n");
  file("a/b/memory.max", "1000\n");
  file("a/b/memory.current", "300\n");
  file("a/memory.max", "2000\n");
  file("a/memory.current", "1900\n");
  EXPECT_EQ(cgroup_cpu_quota(files()), 2.5);
  EXPECT_EQ(cgroup_memory_left(files()), 100u);
}

TEST_F(Cgroup, FileCacheThatCanBeDroppedCountsAsFree) {
  memberships("0::/\n");
  file("memory.max", "1000\n");
  file("memory.current", "900\n");
  file("memory.stat", "anon 500\ninactive_file 250\n");
  EXPECT_EQ(cgroup_memory_left(files()), 350u);
}

TEST_F(Cgroup, UseAboveTheLimitLeavesNothing) {
  memberships("0::/\n");
  file("memory.max", "1000\n");
  file("memory.current", "1200\n");
  EXPECT_EQ(cgroup_memory_left(files()), 0u);
}

TEST_F(Cgroup, VersionOneHierarchiesAreReadByController) {
  memberships("5:memory:/job\n3:cpu,cpuacct:/job\n1:name=systemd:/\n");
  file("cpu/job/cpu.cfs_quota_us", "150000\n");
  file("cpu/job/cpu.cfs_period_us", "100000\n");
  file("cpu/cpu.cfs_quota_us", "-1\n");
  file("cpu/cpu.cfs_period_us", "100000\n");
  file("memory/job/memory.limit_in_bytes", "1000\n");
  file("memory/job/memory.usage_in_bytes", "600\n");
  file("memory/job/memory.stat", "cache 1\ntotal_inactive_file 100\n");
  EXPECT_EQ(cgroup_cpu_quota(files()), 1.5);
  EXPECT_EQ(cgroup_memory_left(files()), 500u);
}

TEST_F(Cgroup, GroupWhoseFolderIsHiddenFallsBackToTheRoot) {
  memberships("0::/docker/0123\n");
  file("cpu.max", "50000 100000\n");
  EXPECT_EQ(cgroup_cpu_quota(files()), 0.5);
}

TEST_F(Cgroup, GarbageIsNoLimit) {
  memberships("nonsense\n0::/\n::\n");
  file("cpu.max", "many few\n");
  file("memory.max", "");
  EXPECT_EQ(cgroup_cpu_quota(files()), std::nullopt);
  EXPECT_EQ(cgroup_memory_left(files()), std::nullopt);
}

}  // namespace
}  // namespace banyan
