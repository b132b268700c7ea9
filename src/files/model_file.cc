// SPDX-License-Identifier: Apache-2.0
#include "files/model_file.h"

#include <fmt/format.h>

#include <filesystem>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "base/printable.h"

namespace banyan {
namespace {

// What a person calls the type of a metadata value.
std::string_view type_name(const MetaValue& value) {
  constexpr std::string_view kNames[] = {"an integer", "a floating-point number", "a boolean",
                                         "a string", "an array"};
  static_assert(std::size(kNames) == std::variant_size_v<MetaValue>);
  return kNames[value.index()];
}

Error wrong_type(const ModelFile& file, std::string_view key, const MetaValue& value,
                 std::string_view wanted) {
  return file.metadata_error(fmt::format("metadata key '{}' is {}; {} would be right",
                                         printable(key), type_name(value), wanted));
}

// The value of a key as a T; nothing if absent, an error if of another type.
template <class T>
Result<std::optional<T>> find_as(const ModelFile& file, std::string_view key,
                                 std::string_view wanted) {
  const MetaValue* value = file.find(key);
  if (value == nullptr) return std::optional<T>();
  if (const T* typed = std::get_if<T>(value)) return std::optional<T>(*typed);
  return wrong_type(file, key, *value, wanted);
}

}  // namespace

Weight TensorInfo::weight() const {
  const DTypeInfo* info = type_info(type);
  BANYAN_CHECK(info != nullptr && !dims.empty(), "only a parsed tensor is a weight");
  Weight weight{.data = data.data(), .type = type, .rows = 1, .cols = dims[0]};
  for (size_t i = 1; i < dims.size(); ++i) weight.rows *= dims[i];
  weight.row_bytes = weight.cols / info->block_elements * info->block_bytes;
  return weight;
}

Result<ModelFile> ModelFile::open(const std::string& path) {
  std::error_code ignored;  // what cannot be looked at cannot be opened either, and that is said
  if (std::filesystem::is_directory(path, ignored)) return open_folder(path);
  if (path.ends_with(".safetensors")) {
    return bad_input(
        fmt::format("'{}' is a part of a Hugging Face model; the folder that it lies in "
                    "can be read",
                    path));
  }
  return open_gguf(path);
}

uint64_t ModelFile::file_bytes() const {
  uint64_t bytes = 0;
  for (const MappedFile& file : files_) bytes += file.bytes().size();
  return bytes;
}

Result<void> ModelFile::add_tensors(std::vector<TensorInfo> tensors, const std::string& file_name) {
  for (TensorInfo& tensor : tensors) {
    if (!tensor_index_.emplace(tensor.name, tensors_.size()).second) {
      return bad_input(fmt::format("'{}': tensor '{}' is in another file of the model too",
                                   file_name, printable(tensor.name)));
    }
    tensors_.push_back(std::move(tensor));
  }
  return {};
}

Error ModelFile::metadata_error(std::string_view what) const {
  return bad_input(fmt::format("{}: {}", metadata_place_, what));
}

const MetaValue* ModelFile::find(std::string_view key) const {
  const auto found = metadata_.find(key);
  return found == metadata_.end() ? nullptr : &found->second;
}

Result<std::optional<int64_t>> ModelFile::integer(std::string_view key) const {
  return find_as<int64_t>(*this, key, "an integer");
}

Result<std::optional<double>> ModelFile::number(std::string_view key) const {
  const MetaValue* value = find(key);
  if (value != nullptr && std::holds_alternative<int64_t>(*value)) {
    return std::optional(static_cast<double>(std::get<int64_t>(*value)));
  }
  return find_as<double>(*this, key, "a number");
}

Result<std::optional<bool>> ModelFile::boolean(std::string_view key) const {
  return find_as<bool>(*this, key, "a boolean");
}

Result<std::optional<std::string_view>> ModelFile::string(std::string_view key) const {
  return find_as<std::string_view>(*this, key, "a string");
}

const TensorInfo* ModelFile::tensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

}  // namespace banyan
