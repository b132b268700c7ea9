// SPDX-License-Identifier: Apache-2.0
#pragma once
// The program as its user calls it: a shell's line, and the files that it leaves.

#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace banyan {

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string((std::istreambuf_iterator<char>(file)), {});
}

// Exit code of the line, or 128 and the signal that ended it.
inline int run_shell(const std::string& line) {
  const int status = std::system(line.c_str());  // NOLINT(cert-env33-c): a shell is wanted
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace banyan
