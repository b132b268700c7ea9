// SPDX-License-Identifier: Apache-2.0
// Writes the seeds of safetensors_fuzzer.cc into the folder that is its argument.

#include <cstdio>
#include <fstream>
#include <string>

#include "files/testing_safetensors_writer.h"

namespace {

bool write(const std::string& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary);
  return static_cast<bool>((file << bytes).flush());
}

}  // namespace

int main(int argc, char** argv) {
  using namespace banyan;
  if (argc != 2) {
    std::fprintf(stderr, "usage: safetensors_seeds FOLDER\n");
    return 2;
  }
  const std::string folder = std::string(argv[1]) + "/";
  SafetensorsWriter types;
  types.add("f32", {2, 3}, {1, 2, 3, 4, 5, 6}).add("bf16", "BF16", {2, 2}, "abcdefgh");
  types.add("f16", "F16", {1, 2, 1, 1}, "abcd").add("i64", "I64", {1}, "abcdefgh");
  types.add("f8", "F8_E4M3", {3}, "abc").add("none", "F32", {0}, "").add("one", "F32", {}, "abcd");
  const bool written =
      write(folder + "empty.safetensors", safetensors_image("{}", "")) &&
      write(folder + "types.safetensors", types.build()) &&
      write(folder + "unpadded.safetensors", types.build(/*padded=*/false)) &&
      write(folder + "metadata.safetensors",
            safetensors_image(R"({"__metadata__":{"format":"pt"}})", "")) &&
      write(folder + "nested.safetensors", safetensors_image(std::string(40, '['), "")) &&
      write(folder + "overlap.safetensors",
            safetensors_image(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                              R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
                              "abc"));
  if (!written) std::fprintf(stderr, "safetensors_seeds: could not write into '%s'\n", argv[1]);
  return written ? 0 : 1;
}
