// SPDX-License-Identifier: Apache-2.0
// A Hugging Face folder: config.json, and safetensors in one file or in several with an index.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/bytes.h"
#include "base/json.h"
#include "base/printable.h"
#include "files/model_file.h"
#include "files/safetensors.h"

namespace banyan {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxConfigBytes = uint64_t{4} << 20;
constexpr uint64_t kMaxIndexBytes = uint64_t{32} << 20;
constexpr size_t kMaxFiles = 4096;

constexpr const char* kConfig = "config.json";
constexpr const char* kWeights = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char* kAdapter = "adapter_config.json";

Result<json> read_json_file(const std::string& path, uint64_t max_bytes) {
  auto mapped = MappedFile::open(path);
  if (!mapped) return mapped.error();
  const auto bytes = mapped->bytes();
  if (bytes.size() > max_bytes) {
    return bad_input(fmt::format("'{}': it has {}; at most {} can be read", path,
                                 format_bytes(bytes.size()), format_bytes(max_bytes)));
  }
  auto document = parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  if (!document) return bad_input(fmt::format("'{}': {}", path, document.error().message));
  if (!document->is_object()) {
    return bad_input(fmt::format("'{}': it is no JSON object", path));
  }
  return document;
}

// Whether all items of an array are of a type.
template <class Is>
bool all(const json& array, Is is) {
  return std::ranges::all_of(array, is);
}

template <class T>
MetaArray array_of(const json& array) {
  std::vector<T> items;
  for (const json& item : array) items.push_back(item.get<T>());
  return {std::move(items)};
}

bool fits_int64(const json& value) {
  return value.is_number_integer() &&
         (!value.is_number_unsigned() || value.get<uint64_t>() <= uint64_t{INT64_MAX});
}

// A value that is neither object nor null. An array of mixed types or of objects becomes one of
// words, empty ones for what is none: absent it must not seem, lest a default be taken for it.
MetaValue as_value(const json& value, std::deque<std::string>& strings) {
  const auto kept = [&](const json& text) -> std::string_view {
    return strings.emplace_back(text.get<std::string>());
  };
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_string()) return kept(value);
  if (value.is_number()) {
    return fits_int64(value) ? MetaValue(value.get<int64_t>()) : MetaValue(value.get<double>());
  }
  if (all(value, fits_int64)) return array_of<int64_t>(value);
  if (all(value, [](const json& item) { return item.is_number(); })) return array_of<double>(value);
  if (all(value, [](const json& item) { return item.is_boolean(); })) return array_of<bool>(value);
  std::vector<std::string_view> items;
  for (const json& item : value) items.push_back(item.is_string() ? kept(item) : "");
  return MetaArray{std::move(items)};
}

struct FlatConfig {
  std::deque<std::string> strings;
  Metadata metadata;
  std::set<std::string, std::less<>> nulls;
};

// Nested keys joined by dots; what they are nested in is there too, as an array of no words.
// Recurses as deep as parse_json lets objects nest. False if two keys become one.
bool flatten(const json& object, const std::string& prefix, FlatConfig& flat) {
  for (const auto& [key, value] : object.items()) {
    const std::string name = prefix + key;
    if (flat.metadata.contains(name) || flat.nulls.contains(name)) return false;
    if (value.is_object()) {
      flat.metadata.emplace(name, MetaArray{std::vector<std::string_view>()});
      if (!flatten(value, name + ".", flat)) return false;
    } else if (value.is_null()) {
      flat.nulls.insert(name);
    } else {
      flat.metadata.emplace(name, as_value(value, flat.strings));
    }
  }
  return true;
}

// A file of the folder, not a way out of it.
bool is_plain_name(const std::string& name) {
  return !name.empty() && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos && name.ends_with(".safetensors");
}

// Files of the folder, and the tensors that each must hold.
using WeightFiles = std::map<std::string, std::vector<std::string>>;

WeightFiles single_file() { return {{kWeights, {}}}; }

Result<WeightFiles> read_index(const std::string& path) {
  auto index = read_json_file(path, kMaxIndexBytes);
  if (!index) return index.error();
  const auto map = index->find("weight_map");
  if (map == index->end() || !map->is_object() || map->empty()) {
    return bad_input(fmt::format("'{}': it has no weight_map of tensors to files", path));
  }
  WeightFiles files;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string() || !is_plain_name(file.get<std::string>())) {
      return bad_input(fmt::format(
          "'{}': tensor '{}' is not in a file of this folder, whose name would end in .safetensors",
          path, printable(tensor)));
    }
    files[file.get<std::string>()].push_back(tensor);
  }
  if (files.size() > kMaxFiles) {
    return bad_input(fmt::format("'{}': it names {} files; at most {} can be read", path,
                                 files.size(), kMaxFiles));
  }
  return files;
}

// The sentence for a folder without safetensors.
Error no_weights(const std::string& folder) {
  std::error_code ignored;
  std::string other;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".bin") || name.ends_with(".pt") || name.ends_with(".pth") ||
        name.ends_with(".h5") || name.ends_with(".gguf")) {
      other = std::max(other, name);
    }
  }
  if (other.ends_with(".gguf")) {
    return bad_input(
        fmt::format("folder '{}' holds no safetensors but GGUF, such as {}; give that "
                    "file itself",
                    folder, printable(other)));
  }
  return bad_input(
      fmt::format("folder '{}' has neither {} nor {}{}; weights as safetensors can be "
                  "read",
                  folder, kWeights, kIndex, other.empty() ? "" : " but " + printable(other)));
}

}  // namespace

Result<ModelFile> ModelFile::open_folder(const std::string& path) {
  std::string folder = path;
  while (folder.size() > 1 && folder.back() == '/') folder.pop_back();
  std::error_code ignored;  // a folder that may not be looked into is refused for its config
  namespace fs = std::filesystem;
  if (fs::exists(fs::symlink_status(folder + "/" + kAdapter, ignored))) {
    return bad_input(fmt::format(
        "'{}/{}': the folder holds an adapter (LoRA); adapters cannot be applied yet, a model that "
        "it was merged into can be read",
        folder, kAdapter));
  }
  const auto in_folder = [&](std::string_view name) { return fmt::format("{}/{}", folder, name); };
  const bool single = is_there(in_folder(kWeights));
  const bool several = is_there(in_folder(kIndex));
  if (!is_there(in_folder(kConfig))) {
    if (!single && !several) return no_weights(folder);
    return bad_input(
        fmt::format("folder '{}' has no {}; a Hugging Face model has one", folder, kConfig));
  }
  auto config = read_json_file(in_folder(kConfig), kMaxConfigBytes);
  if (!config) return config.error();

  ModelFile file;
  file.format_ = ModelFormat::kFolder;
  file.path_ = path;
  file.metadata_place_ = fmt::format("'{}/{}'", folder, kConfig);
  FlatConfig flat;
  if (!flatten(*config, "", flat)) {
    return file.metadata_error("two of its keys are the same once nested ones are joined by dots");
  }
  file.strings_ = std::move(flat.strings);
  file.metadata_ = std::move(flat.metadata);
  file.nulls_ = std::move(flat.nulls);
  if (!single && !several) return no_weights(folder);

  auto files = single ? Result<WeightFiles>(single_file()) : read_index(in_folder(kIndex));
  if (!files) return files.error();
  for (const auto& [name, tensors] : *files) {
    BANYAN_TRY(file.add_safetensors(in_folder(name), tensors));
  }
  return file;
}

Result<void> ModelFile::add_safetensors(const std::string& path,
                                        const std::vector<std::string>& named) {
  auto mapped = MappedFile::open(path);
  if (!mapped) return mapped.error();
  auto parsed = parse_safetensors(mapped->bytes(), path);
  if (!parsed) return parsed.error();
  for (const std::string& name : named) {
    if (parsed->foreign.contains(name)) continue;
    if (!std::ranges::binary_search(parsed->tensors, name, {}, &TensorInfo::name)) {
      return bad_input(fmt::format("'{}': tensor '{}' is not in it, where {} has it", path,
                                   printable(name), kIndex));
    }
  }
  for (TensorInfo& tensor : parsed->tensors) {
    // Kernels read whole elements. Writers that pad the header, as they should, need no copy.
    const auto address = reinterpret_cast<uintptr_t>(tensor.data.data());
    if (address % element_bytes(tensor.type) == 0) continue;
    AlignedArray<std::byte>& copy = copies_.emplace_back(tensor.data.size());
    std::memcpy(copy.data(), tensor.data.data(), tensor.data.size());
    tensor.data = copy.span();
  }
  BANYAN_TRY(add_tensors(std::move(parsed->tensors), path));
  foreign_.merge(parsed->foreign);
  files_.push_back(*std::move(mapped));
  return {};
}

}  // namespace banyan
