// SPDX-License-Identifier: Apache-2.0
#pragma once
// Files for fuzzers of what is read from disk: a folder in memory, where there is one, that one
// input after another is written into.

#include <stdlib.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/check.h"

namespace banyan {

class FuzzFolder {
 public:
  FuzzFolder() {
    const bool in_memory = std::filesystem::is_directory("/dev/shm");
    std::string name = in_memory ? "/dev/shm/banyan-fuzz-XXXXXX" : "/tmp/banyan-fuzz-XXXXXX";
    BANYAN_CHECK(::mkdtemp(name.data()) != nullptr, "could not make a folder");
    path_ = name;
  }
  ~FuzzFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  FuzzFolder(const FuzzFolder&) = delete;
  FuzzFolder& operator=(const FuzzFolder&) = delete;

  std::string path(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

  void write(const std::string& name, std::string_view bytes) const {
    std::FILE* file = std::fopen(path(name).c_str(), "wb");
    BANYAN_CHECK(file != nullptr, "could not write a file");
    std::fwrite(bytes.data(), 1, bytes.size(), file);
    std::fclose(file);
  }

 private:
  std::string path_;
};

inline std::string_view text_of(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

}  // namespace banyan
