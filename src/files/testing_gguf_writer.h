// SPDX-License-Identifier: Apache-2.0
#pragma once
// Builds GGUF images in memory, so that tests can make the model they need and break it as they
// like. For tests only: nothing is checked, a wrong file comes out as asked for.
//
//   GgufWriter writer;
//   writer.set("general.architecture", "llama").set("llama.block_count", uint32_t{1});
//   writer.add_tensor("output_norm.weight", {2}, std::vector<float>{1, 1});
//   writer.write("/tmp/model.gguf");

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "tensor/dtype.h"

namespace banyan {

// Bytes of a file, little-endian, strings with their length before them.
class GgufBytes {
 public:
  template <class T>
  requires std::is_arithmetic_v<T> GgufBytes& put(T value) {
    const auto* begin = reinterpret_cast<const std::byte*>(&value);
    bytes_.insert(bytes_.end(), begin, begin + sizeof(T));
    return *this;
  }
  GgufBytes& put_raw(std::span<const std::byte> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  GgufBytes& put_letters(std::string_view text) {
    return put_raw(std::as_bytes(std::span(text.data(), text.size())));
  }
  GgufBytes& put_string(std::string_view text) {
    return put(uint64_t{text.size()}).put_letters(text);
  }
  GgufBytes& pad_to(uint64_t alignment) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment);
    return *this;
  }
  GgufBytes& header(uint32_t version, uint64_t n_tensors, uint64_t n_metadata) {
    return put_letters("GGUF").put(version).put(n_tensors).put(n_metadata);
  }

  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

// The format's number of a value type.
template <class T>
constexpr uint32_t gguf_type() {
  if constexpr (std::is_same_v<T, uint8_t>) return 0;
  if constexpr (std::is_same_v<T, int8_t>) return 1;
  if constexpr (std::is_same_v<T, uint16_t>) return 2;
  if constexpr (std::is_same_v<T, int16_t>) return 3;
  if constexpr (std::is_same_v<T, uint32_t>) return 4;
  if constexpr (std::is_same_v<T, int32_t>) return 5;
  if constexpr (std::is_same_v<T, float>) return 6;
  if constexpr (std::is_same_v<T, bool>) return 7;
  if constexpr (std::is_same_v<T, std::string>) return 8;
  if constexpr (std::is_same_v<T, uint64_t>) return 10;
  if constexpr (std::is_same_v<T, int64_t>) return 11;
  if constexpr (std::is_same_v<T, double>) return 12;
}

class GgufWriter {
 public:
  // `alignment` is only used; a file of another than 32 must also set general.alignment to it.
  explicit GgufWriter(uint32_t version = 3, uint64_t alignment = 32)
      : version_(version), alignment_(alignment) {}

  // A key and its value, stored as exactly the type that is given.
  template <class T>
  requires std::is_arithmetic_v<T> GgufWriter& set(std::string_view key, T value) {
    begin_entry(key, gguf_type<T>()).put(value);
    return *this;
  }
  GgufWriter& set(std::string_view key, std::string_view value) {
    begin_entry(key, gguf_type<std::string>()).put_string(value);
    return *this;
  }
  GgufWriter& set(std::string_view key, const char* value) {
    return set(key, std::string_view(value));
  }
  // An array.
  template <class T>
  GgufWriter& set(std::string_view key, const std::vector<T>& values) {
    GgufBytes& out = begin_entry(key, 9).put(gguf_type<T>()).put(uint64_t{values.size()});
    for (const auto& value : values) {
      if constexpr (std::is_same_v<T, std::string>) {
        out.put_string(value);
      } else {
        out.put(static_cast<T>(value));  // a vector<bool> hands out proxies
      }
    }
    return *this;
  }
  // A key with a type and the bytes behind it, whatever they mean.
  GgufWriter& set_raw(std::string_view key, uint32_t type, const GgufBytes& value) {
    begin_entry(key, type).put_raw(value.bytes());
    return *this;
  }

  // A tensor; dims[0] is the row length.
  GgufWriter& add_tensor(std::string_view name, const std::vector<int64_t>& dims, DType type,
                         std::span<const std::byte> data) {
    data_.pad_to(alignment_);
    add_tensor_entry(name, dims, static_cast<int32_t>(type), data_.bytes().size());
    data_.put_raw(data);
    return *this;
  }
  GgufWriter& add_tensor(std::string_view name, const std::vector<int64_t>& dims,
                         std::span<const float> data) {
    return add_tensor(name, dims, DType::kF32, std::as_bytes(data));
  }
  // A tensor's entry alone, with any type and offset.
  GgufWriter& add_tensor_entry(std::string_view name, const std::vector<int64_t>& dims,
                               int32_t type, uint64_t offset) {
    tensors_.put_string(name).put(static_cast<uint32_t>(dims.size()));
    for (const int64_t dim : dims) tensors_.put(dim);
    tensors_.put(type).put(offset);
    ++n_tensors_;
    return *this;
  }
  // Zeros behind the data.
  GgufWriter& add_data(size_t bytes) {
    data_.put_raw(std::vector<std::byte>(bytes));
    return *this;
  }

  std::vector<std::byte> build() const {
    GgufBytes out;
    out.header(version_, n_tensors_, n_metadata_);
    out.put_raw(metadata_.bytes()).put_raw(tensors_.bytes());
    if (n_tensors_ > 0) out.pad_to(alignment_).put_raw(data_.bytes());
    return out.bytes();
  }
  // Builds it into a file; true if that was written.
  bool write(const std::string& path) const {
    const std::vector<std::byte> bytes = build();
    std::ofstream out(path, std::ios::binary);
    out.write(reinterpret_cast<const char*>(bytes.data()),
              static_cast<std::streamsize>(bytes.size()));
    return static_cast<bool>(out.flush());
  }

 private:
  GgufBytes& begin_entry(std::string_view key, uint32_t type) {
    ++n_metadata_;
    return metadata_.put_string(key).put(type);
  }

  uint32_t version_;
  uint64_t alignment_;
  uint64_t n_tensors_ = 0;
  uint64_t n_metadata_ = 0;
  GgufBytes metadata_;
  GgufBytes tensors_;
  GgufBytes data_;
};

}  // namespace banyan
