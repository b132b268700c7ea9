// SPDX-License-Identifier: Apache-2.0
// Any bytes as a GGUF file: parsed or refused, and all that a parsed file points at can be read.
// Seeds: seeds/gguf, made by gguf_seeds.cc.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/check.h"
#include "files/model_file.h"

namespace {

using namespace banyan;

uint64_t sum_of_bytes(std::span<const std::byte> bytes) {
  uint64_t sum = 0;
  for (const std::byte b : bytes) sum += std::to_integer<uint64_t>(b);
  return sum;
}

uint64_t sum_of_text(std::string_view text) { return sum_of_bytes(std::as_bytes(std::span(text))); }

uint64_t sum_of_texts(const MetaValue& value) {
  if (const auto* text = std::get_if<std::string_view>(&value)) return sum_of_text(*text);
  const auto* array = std::get_if<MetaArray>(&value);
  if (array == nullptr) return 0;
  const auto* texts = std::get_if<std::vector<std::string_view>>(&array->items);
  if (texts == nullptr) return 0;
  uint64_t sum = 0;
  for (const std::string_view text : *texts) sum += sum_of_text(text);
  return sum;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = parse_gguf(std::as_bytes(std::span(data, size)), "fuzz");
  if (!file) {
    BANYAN_CHECK(file.error().code == ErrorCode::kBadInput, "a wrong file is bad input");
    BANYAN_CHECK(!file.error().message.empty(), "an error is a sentence");
    return 0;
  }
  uint64_t sum = 0;
  for (const auto& [key, value] : file->metadata) sum += sum_of_text(key) + sum_of_texts(value);
  for (const TensorInfo& tensor : file->tensors) {
    const Weight weight = tensor.weight();
    BANYAN_CHECK(static_cast<uint64_t>(weight.rows * weight.row_bytes) == tensor.data.size(),
                 "a weight's rows are its data");
    sum += sum_of_bytes(tensor.data);
  }
  volatile uint64_t sink = sum;
  static_cast<void>(sink);
  return 0;
}
