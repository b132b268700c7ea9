// SPDX-License-Identifier: Apache-2.0
#pragma once
// Builds safetensors images and Hugging Face folders, so that tests can make the model they need
// and break it as they like. For tests only: nothing is checked.

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/dtype.h"

namespace banyan {

// The bytes of a file with that header and that much data behind it.
inline std::string safetensors_image(std::string_view header, std::string_view data) {
  const uint64_t size = header.size();
  std::string image(sizeof(size), '\0');
  std::memcpy(image.data(), &size, sizeof(size));
  image += header;
  image += data;
  return image;
}

inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

class SafetensorsWriter {
 public:
  // A tensor of that shape, outermost first.
  SafetensorsWriter& add(std::string_view name, std::string_view type,
                         const std::vector<int64_t>& shape, std::string_view data) {
    header_ += fmt::format(R"({}"{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                           header_.empty() ? "" : ",", name, type, fmt::join(shape, ","),
                           data_.size(), data_.size() + data.size());
    data_ += data;
    return *this;
  }
  SafetensorsWriter& add(std::string_view name, const std::vector<int64_t>& shape,
                         const std::vector<float>& values) {
    return add(name, "F32", shape,
               {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)});
  }

  // `padded`: as the format's own writer does, with spaces until the data begin at 8 bytes.
  std::string build(bool padded = true) const {
    std::string header = fmt::format("{{{}}}", header_);
    while (padded && header.size() % 8 != 0) header += ' ';
    return safetensors_image(header, data_);
  }

 private:
  std::string header_;
  std::string data_;
};

}  // namespace banyan
