// SPDX-License-Identifier: Apache-2.0
#pragma once
// A model file as named, typed, checked views of mapped bytes: metadata and tensors. What the names
// mean is model's and text's business. GGUF is the first format behind it.

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/buffer.h"
#include "base/result.h"
#include "tensor/matrix.h"

namespace banyan {

// Metadata arrays; strings are views into the mapped file.
struct MetaArray {
  std::variant<std::vector<int64_t>, std::vector<double>, std::vector<bool>,
               std::vector<std::string_view>>
      items;
};

// Integers of any width and sign widen to int64 (uint64 above its range is refused), floats to
// double; strings are views into the mapped file.
using MetaValue = std::variant<int64_t, double, bool, std::string_view, MetaArray>;

struct TensorInfo {
  std::string name;
  DType type = DType::kF32;
  std::vector<int64_t> dims;  // as stored by ggml: dims[0] is the row length; 1 to 4 of them
  std::span<const std::byte> data;
  // As a matrix of dims[0] columns.
  Weight weight() const;
};

class ModelFile {
 public:
  // Maps and checks a GGUF file (v2, v3): every count, length, offset, type and shape is proved to
  // lie inside the file before anything of its size is allocated. kBadInput names `path` as given
  // and what is wrong. Vocabulary-only files (no tensors) are fine.
  static Result<ModelFile> open_gguf(const std::string& path);

  const std::string& path() const { return path_; }
  uint64_t file_bytes() const { return file_.bytes().size(); }

  const std::map<std::string, MetaValue, std::less<>>& metadata() const { return metadata_; }
  const MetaValue* find(std::string_view key) const;  // nullptr if absent
  // Typed look-ups: nothing if absent; an error that names key and file if of another type.
  Result<std::optional<int64_t>> integer(std::string_view key) const;
  Result<std::optional<double>> number(std::string_view key) const;  // integers too
  Result<std::optional<bool>> boolean(std::string_view key) const;
  Result<std::optional<std::string_view>> string(std::string_view key) const;

  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  const TensorInfo* tensor(std::string_view name) const;  // nullptr if absent

 private:
  std::string path_;
  MappedFile file_;
  std::map<std::string, MetaValue, std::less<>> metadata_;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, size_t, std::less<>> tensor_index_;
};

// The parser itself, for the fuzzer: `bytes` must outlive what it fills; `name` is for errors.
struct ParsedGguf {
  std::map<std::string, MetaValue, std::less<>> metadata;
  std::vector<TensorInfo> tensors;
};
Result<ParsedGguf> parse_gguf(std::span<const std::byte> bytes, const std::string& name);

}  // namespace banyan
