// SPDX-License-Identifier: Apache-2.0
#pragma once
// What fuzzers of model files ask of every answer: an error is a sentence, and all that was parsed
// can be read.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "base/check.h"
#include "files/model_file.h"

namespace banyan {

inline void check_error(const Error& error) {
  BANYAN_CHECK(error.code == ErrorCode::kBadInput, "a wrong file is bad input");
  BANYAN_CHECK(!error.message.empty(), "an error is a sentence");
}

inline uint64_t sum_of_bytes(std::span<const std::byte> bytes) {
  uint64_t sum = 0;
  for (const std::byte b : bytes) sum += std::to_integer<uint64_t>(b);
  return sum;
}

inline uint64_t sum_of_text(std::string_view text) {
  return sum_of_bytes(std::as_bytes(std::span(text)));
}

inline uint64_t sum_of_texts(const MetaValue& value) {
  if (const auto* text = std::get_if<std::string_view>(&value)) return sum_of_text(*text);
  const auto* array = std::get_if<MetaArray>(&value);
  if (array == nullptr) return 0;
  const auto* texts = std::get_if<std::vector<std::string_view>>(&array->items);
  if (texts == nullptr) return 0;
  uint64_t sum = 0;
  for (const std::string_view text : *texts) sum += sum_of_text(text);
  return sum;
}

// Touches every byte that metadata and tensors view.
inline void read_all(const Metadata& metadata, const std::vector<TensorInfo>& tensors) {
  uint64_t sum = 0;
  for (const auto& [key, value] : metadata) sum += sum_of_text(key) + sum_of_texts(value);
  for (const TensorInfo& tensor : tensors) {
    const Weight weight = tensor.weight();
    BANYAN_CHECK(static_cast<uint64_t>(weight.rows * weight.row_bytes) == tensor.data.size(),
                 "a weight's rows are its data");
    sum += sum_of_bytes(tensor.data);
  }
  volatile uint64_t sink = sum;
  static_cast<void>(sink);
}

}  // namespace banyan
