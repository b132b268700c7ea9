// SPDX-License-Identifier: Apache-2.0
// Writes the seeds of gguf_fuzzer.cc into the folder that is its argument.

#include <cstdio>
#include <string>
#include <vector>

#include "files/testing_gguf_writer.h"

namespace {

using namespace banyan;

GgufWriter all_value_types() {
  GgufWriter writer;
  writer.set("u8", uint8_t{1})
      .set("i8", int8_t{-1})
      .set("u16", uint16_t{2})
      .set("i16", int16_t{-2});
  writer.set("u32", uint32_t{3}).set("i32", int32_t{-3}).set("u64", uint64_t{4});
  writer.set("i64", int64_t{-4})
      .set("f32", 0.5f)
      .set("f64", 0.25)
      .set("yes", true)
      .set("s", "text");
  writer.set("u8s", std::vector<uint8_t>{1, 2}).set("i8s", std::vector<int8_t>{-1});
  writer.set("u16s", std::vector<uint16_t>{1}).set("i16s", std::vector<int16_t>{-1, 7});
  writer.set("u32s", std::vector<uint32_t>{1}).set("i32s", std::vector<int32_t>{-1});
  writer.set("u64s", std::vector<uint64_t>{1}).set("i64s", std::vector<int64_t>{});
  writer.set("f32s", std::vector<float>{1.0f}).set("f64s", std::vector<double>{1.0});
  writer.set("bools", std::vector<bool>{true, false});
  writer.set("texts", std::vector<std::string>{"a", "", "longer"});
  return writer;
}

GgufWriter tiny_vocabulary() {
  GgufWriter writer;
  writer.set("general.architecture", "llama").set("tokenizer.ggml.model", "llama");
  writer.set("tokenizer.ggml.tokens", std::vector<std::string>{"<unk>", "<s>", "</s>", "a", "b"});
  writer.set("tokenizer.ggml.scores", std::vector<float>{0, 0, 0, -1, -2});
  writer.set("tokenizer.ggml.token_type", std::vector<int32_t>{2, 3, 3, 1, 1});
  return writer;
}

GgufWriter tensors(uint32_t version, uint32_t alignment) {
  GgufWriter writer(version, alignment);
  writer.set("general.alignment", alignment);
  writer.add_tensor("norm", {3}, std::vector<float>{1, 2, 3});
  writer.add_tensor("q8", {64, 2}, DType::kQ8_0, std::vector<std::byte>(4 * 34));
  writer.add_tensor("q4_1", {32, 3}, static_cast<DType>(3), std::vector<std::byte>(3 * 20));
  writer.add_tensor("f16", {2, 2, 2, 2}, DType::kF16, std::vector<std::byte>(32));
  return writer;
}

GgufWriter nested_array() {
  GgufBytes inner;
  inner.put(uint32_t{9}).put(uint64_t{1}).put(uint32_t{0}).put(uint64_t{1}).put(uint8_t{7});
  GgufWriter writer;
  return writer.set_raw("nested", 9, inner);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: gguf_seeds FOLDER\n");
    return 2;
  }
  const std::string folder = std::string(argv[1]) + "/";
  const bool written = GgufWriter().write(folder + "empty.gguf") &&
                       GgufWriter(1).write(folder + "version1.gguf") &&
                       all_value_types().write(folder + "all_value_types.gguf") &&
                       tiny_vocabulary().write(folder + "tiny_vocabulary.gguf") &&
                       tensors(3, 32).write(folder + "tensors.gguf") &&
                       tensors(2, 8).write(folder + "tensors_version2.gguf") &&
                       nested_array().write(folder + "nested_array.gguf") &&
                       GgufWriter().set("split.count", uint16_t{3}).write(folder + "shard.gguf");
  if (!written) std::fprintf(stderr, "gguf_seeds: could not write into '%s'\n", argv[1]);
  return written ? 0 : 1;
}
