// SPDX-License-Identifier: Apache-2.0
// Writes the seeds of shards_fuzzer.cc into the folder that is its argument.

#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "files/testing_gguf_writer.h"

namespace {

using namespace banyan;

std::string shard(int index, int count, const std::string& tensor) {
  GgufWriter writer;
  writer.set("split.no", static_cast<uint16_t>(index));
  writer.set("split.count", static_cast<uint16_t>(count));
  writer.set("split.tensors.count", int32_t{2});
  writer.add_tensor(tensor, {2}, std::vector<float>{1, 2});
  const std::vector<std::byte> bytes = writer.build();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

bool write(const std::string& path, const std::string& first, const std::string& second) {
  std::ofstream file(path, std::ios::binary);
  return static_cast<bool>((file << first << "|NEXT|" << second).flush());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: shards_seeds FOLDER\n");
    return 2;
  }
  const std::string folder = std::string(argv[1]) + "/";
  const bool written = write(folder + "two", shard(0, 2, "a"), shard(1, 2, "b")) &&
                       write(folder + "same_tensor", shard(0, 2, "a"), shard(1, 2, "a")) &&
                       write(folder + "same_shard", shard(0, 2, "a"), shard(0, 2, "a")) &&
                       write(folder + "one", shard(0, 1, "a"), "");
  if (!written) std::fprintf(stderr, "shards_seeds: could not write into '%s'\n", argv[1]);
  return written ? 0 : 1;
}
