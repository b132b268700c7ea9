// SPDX-License-Identifier: Apache-2.0
#pragma once
// A model as named, typed, checked views of mapped bytes: metadata and tensors, from GGUF (one file
// or several shards) or a Hugging Face folder (config.json and safetensors). What the names mean is
// model's and text's business; each format keeps its own.

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/buffer.h"
#include "base/result.h"
#include "tensor/matrix.h"

namespace banyan {

enum class ModelFormat { kGguf, kFolder };

// Metadata arrays; strings are views into the mapped file or what the ModelFile keeps.
struct MetaArray {
  std::variant<std::vector<int64_t>, std::vector<double>, std::vector<bool>,
               std::vector<std::string_view>>
      items;
  bool operator==(const MetaArray&) const = default;
};

// Integers of any width and sign widen to int64 (GGUF's uint64 above its range is refused, JSON's
// is a double), floats to double; strings are views as in arrays.
using MetaValue = std::variant<int64_t, double, bool, std::string_view, MetaArray>;
using Metadata = std::map<std::string, MetaValue, std::less<>>;

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
  // A folder as open_folder(), anything else as open_gguf().
  static Result<ModelFile> open(const std::string& path);

  // Maps and checks a GGUF file (v2, v3): every count, length, offset, type and shape is proved to
  // lie inside the file before anything of its size is allocated. The first shard of several brings
  // the others, which lie beside it. kBadInput names the file and what is wrong; an adapter (LoRA)
  // is refused as such. Vocabulary-only files (no tensors) are fine.
  static Result<ModelFile> open_gguf(const std::string& path);

  // Maps and checks a Hugging Face folder: config.json becomes the metadata, its nested keys joined
  // by dots ("rope_scaling.factor"), and what they are nested in an empty array of strings; arrays
  // of no type here become strings, empty ones for what is none; model.safetensors, or the files
  // that model.safetensors.index.json names, become the tensors. Refused like a GGUF file;
  // tokenizers are not looked at.
  static Result<ModelFile> open_folder(const std::string& path);

  ModelFormat format() const { return format_; }
  const std::string& path() const { return path_; }  // as given
  uint64_t file_bytes() const;                       // of all files with tensors
  int n_files() const { return static_cast<int>(files_.size()); }

  const Metadata& metadata() const { return metadata_; }
  const MetaValue* find(std::string_view key) const;  // nullptr if absent or null
  // Whether config.json has the key with null as its value, which metadata() leaves out.
  bool is_null(std::string_view key) const { return nulls_.contains(key); }
  // Typed look-ups: nothing if absent; an error that names key and file if of another type.
  Result<std::optional<int64_t>> integer(std::string_view key) const;
  Result<std::optional<double>> number(std::string_view key) const;  // integers too
  Result<std::optional<bool>> boolean(std::string_view key) const;
  Result<std::optional<std::string_view>> string(std::string_view key) const;
  // An error about the metadata: "GGUF file 'name': what".
  Error metadata_error(std::string_view what) const;

  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  const TensorInfo* tensor(std::string_view name) const;  // nullptr if absent
  // Tensors of types that no weight has (safetensors: I64, F8_E4M3, ..), which are not in
  // tensors(): their types by name.
  const std::map<std::string, std::string, std::less<>>& foreign_tensors() const {
    return foreign_;
  }

 private:
  Result<void> add_tensors(std::vector<TensorInfo> tensors, const std::string& file_name);
  // Adds a file of safetensors, which must hold the tensors named.
  Result<void> add_safetensors(const std::string& path, const std::vector<std::string>& named);

  ModelFormat format_ = ModelFormat::kGguf;
  std::string path_;
  std::string metadata_place_;
  std::vector<MappedFile> files_;
  std::deque<std::string> strings_;              // what metadata_ views, where no file holds it
  std::vector<AlignedArray<std::byte>> copies_;  // tensors that do not lie aligned in their file
  Metadata metadata_;
  std::set<std::string, std::less<>> nulls_;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, size_t, std::less<>> tensor_index_;
  std::map<std::string, std::string, std::less<>> foreign_;
};

// The parser of one GGUF file, for the fuzzer too: `bytes` must outlive what it fills; `name` is
// for errors.
struct ParsedGguf {
  Metadata metadata;
  std::vector<TensorInfo> tensors;
};
Result<ParsedGguf> parse_gguf(std::span<const std::byte> bytes, const std::string& name);

}  // namespace banyan
