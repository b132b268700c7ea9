// SPDX-License-Identifier: Apache-2.0
// Any bytes as the two shards of a GGUF model, the first up to the marker between them: opened or
// refused. Seeds: seeds/shards, made by shards_seeds.cc.

#include <cstddef>
#include <cstdint>

#include "readable.h"
#include "temp_files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace banyan;
  constexpr std::string_view kMarker = "|NEXT|";
  static const FuzzFolder folder;
  const std::string_view text = text_of(data, size);
  const size_t end = std::min(text.find(kMarker), text.size());
  folder.write("m-00001-of-00002.gguf", text.substr(0, end));
  folder.write("m-00002-of-00002.gguf", text.substr(std::min(end + kMarker.size(), text.size())));
  const auto file = ModelFile::open(folder.path("m-00001-of-00002.gguf"));
  if (!file) {
    check_error(file.error());
    return 0;
  }
  read_all(file->metadata(), file->tensors());
  return 0;
}
