// SPDX-License-Identifier: Apache-2.0
// Any bytes as a GGUF file: parsed or refused, and all that a parsed file points at can be read.
// Seeds: seeds/gguf, made by gguf_seeds.cc.

#include <cstddef>
#include <cstdint>
#include <span>

#include "readable.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace banyan;
  const auto file = parse_gguf(std::as_bytes(std::span(data, size)), "fuzz");
  if (!file) {
    check_error(file.error());
    return 0;
  }
  read_all(file->metadata, file->tensors);
  return 0;
}
