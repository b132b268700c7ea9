// SPDX-License-Identifier: Apache-2.0
#include "base/cgroup.h"

#include <algorithm>
#include <fstream>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace banyan {
namespace {

namespace fs = std::filesystem;

struct Membership {
  std::vector<std::string> controllers;  // none: the unified hierarchy of v2
  fs::path group;                        // relative to the hierarchy's root
};

// Lines of /proc/self/cgroup: "4:cpu,cpuacct:/group", "0::/group".
std::vector<Membership> read_memberships(const fs::path& file) {
  std::vector<Membership> memberships;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    Membership membership;
    membership.group = fs::path(line.substr(second + 1)).relative_path();
    std::string_view names(line.data() + first + 1, second - first - 1);
    while (!names.empty()) {
      const size_t comma = std::min(names.find(','), names.size());
      membership.controllers.emplace_back(names.substr(0, comma));
      names.remove_prefix(std::min(comma + 1, names.size()));
    }
    memberships.push_back(std::move(membership));
  }
  return memberships;
}

// The folders of this process's group and all its ancestors, innermost first. `controller` is empty
// for v2. Inside a container the group's own folder is often not visible, its root is.
std::vector<fs::path> group_folders(const CgroupFiles& files, const std::string& controller) {
  std::vector<fs::path> folders;
  for (const Membership& membership : read_memberships(files.memberships)) {
    const auto& names = membership.controllers;
    if (controller.empty() ? !names.empty() : std::ranges::find(names, controller) == names.end()) {
      continue;
    }
    const fs::path root = controller.empty() ? files.root : files.root / controller;
    fs::path group = membership.group;
    while (!group.empty() && group != group.root_path()) {
      folders.push_back(root / group);
      group = group.parent_path();
    }
    folders.push_back(root);
  }
  return folders;
}

// The first number of a file; nothing for "max", -1, or where there is no such file.
std::optional<uint64_t> read_number(const fs::path& file) {
  std::ifstream in(file);
  int64_t value = -1;
  if (!(in >> value) || value < 0) return std::nullopt;
  return static_cast<uint64_t>(value);
}

// The number after `key` in a file of "key number" lines.
std::optional<uint64_t> read_entry(const fs::path& file, std::string_view key) {
  std::ifstream in(file);
  std::string name;
  for (uint64_t value = 0; in >> name >> value;) {
    if (name == key) return value;
  }
  return std::nullopt;
}

template <class T>
void lower_to(std::optional<T>& limit, T value) {
  limit = limit ? std::min(*limit, value) : value;
}

struct MemoryFileNames {
  const char* limit;
  const char* used;
  const char* droppable;  // key in memory.stat
};

void lower_to_memory_left(std::optional<uint64_t>& left, const fs::path& folder,
                          const MemoryFileNames& names) {
  const auto limit = read_number(folder / names.limit);
  const auto used = read_number(folder / names.used);
  if (!limit || !used) return;
  const uint64_t droppable = read_entry(folder / "memory.stat", names.droppable).value_or(0);
  const uint64_t needed = *used - std::min(*used, droppable);
  lower_to(left, *limit - std::min(*limit, needed));
}

}  // namespace

std::optional<double> cgroup_cpu_quota(const CgroupFiles& files) {
  std::optional<double> quota;
  for (const fs::path& folder : group_folders(files, "")) {
    std::ifstream in(folder / "cpu.max");
    double time = 0;
    double period = 0;
    if (in >> time >> period && time > 0 && period > 0) lower_to(quota, time / period);
  }
  for (const fs::path& folder : group_folders(files, "cpu")) {
    const auto time = read_number(folder / "cpu.cfs_quota_us");
    const auto period = read_number(folder / "cpu.cfs_period_us");
    if (time.value_or(0) > 0 && period.value_or(0) > 0) {
      lower_to(quota, static_cast<double>(*time) / static_cast<double>(*period));
    }
  }
  return quota;
}

std::optional<uint64_t> cgroup_memory_left(const CgroupFiles& files) {
  std::optional<uint64_t> left;
  for (const fs::path& folder : group_folders(files, "")) {
    lower_to_memory_left(left, folder, {"memory.max", "memory.current", "inactive_file"});
  }
  for (const fs::path& folder : group_folders(files, "memory")) {
    lower_to_memory_left(left, folder,
                         {"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"});
  }
  return left;
}

}  // namespace banyan
