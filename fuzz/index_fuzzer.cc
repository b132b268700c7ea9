// SPDX-License-Identifier: Apache-2.0
// Any bytes as the model.safetensors.index.json of a folder with two files of weights: opened or
// refused. Seeds: seeds/index.

#include <cstddef>
#include <cstdint>

#include "files/testing_safetensors_writer.h"
#include "readable.h"
#include "temp_files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace banyan;
  static const FuzzFolder folder;
  static const bool ready = [] {
    folder.write("config.json", R"({"model_type":"llama"})");
    folder.write("a.safetensors", SafetensorsWriter().add("a", {1}, {1}).build());
    folder.write("b.safetensors", SafetensorsWriter().add("b", {1}, {1}).build());
    return true;
  }();
  static_cast<void>(ready);
  folder.write("model.safetensors.index.json", text_of(data, size));
  const auto file = ModelFile::open(folder.path());
  if (!file) {
    check_error(file.error());
    return 0;
  }
  read_all(file->metadata(), file->tensors());
  return 0;
}
