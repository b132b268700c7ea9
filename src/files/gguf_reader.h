// SPDX-License-Identifier: Apache-2.0
#pragma once
// Inside of the GGUF parser: a cursor over the file, and its metadata section. Format:
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
//
// Everything that a file says about itself is taken as a claim: a count or length is compared with
// the bytes that are left before anything of its size is allocated.

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/result.h"
#include "files/model_file.h"

namespace banyan {

static_assert(std::endian::native == std::endian::little, "numbers are read as they lie");

// What is being read, for error sentences.
struct GgufPlace {
  std::string_view kind;  // "metadata key" or "tensor"
  std::string_view name;  // of the key or tensor, as in the file
};

// "tensor 'name'", foreign bytes made printable.
std::string describe(const GgufPlace& place);

// Takes the bytes of one file from front to back.
class GgufReader {
 public:
  // `bytes` and `file_name` must outlive the reader.
  GgufReader(std::span<const std::byte> bytes, const std::string& file_name)
      : bytes_(bytes), file_name_(file_name) {}

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::string& file_name() const { return file_name_; }
  uint64_t position() const { return position_; }
  uint64_t left() const { return bytes_.size() - position_; }

  // Takes the next bytes as a T; false, and nothing taken, if fewer are left.
  template <class T>
  requires std::is_arithmetic_v<T>
  [[nodiscard]] bool take(T& value) {
    if (left() < sizeof(T)) return false;
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return true;
  }

  // Takes `size` bytes as text. Requires size <= left().
  std::string_view take_text(uint64_t size);

  // Takes the name that a metadata key or tensor begins with: 1 to 65,536 bytes.
  Result<std::string_view> take_name(std::string_view kind);

  // An error of this file: "GGUF file 'name': what".
  Error error(std::string_view what) const;
  // The file ends inside of something.
  Error truncated(std::string_view inside) const;

 private:
  const std::span<const std::byte> bytes_;
  const std::string& file_name_;
  uint64_t position_ = 0;  // <= bytes_.size()
};

// Reads `count` keys and their values. Keys are printable ASCII and differ.
Result<Metadata> read_gguf_metadata(GgufReader& reader, uint64_t count);

}  // namespace banyan
