// SPDX-License-Identifier: Apache-2.0
// A GGUF model of one file, or of shards as llama-gguf-split writes them: NAME-00001-of-00003.gguf
// has the metadata, every shard says split.no and split.count and has some of the tensors.
#include <fmt/format.h>

#include <utility>

#include "base/printable.h"
#include "files/model_file.h"

namespace banyan {
namespace {

Error shard_error(const std::string& path, std::string_view what) {
  return bad_input(fmt::format("GGUF file '{}': {}", path, what));
}

// An integer of a shard's metadata.
Result<int64_t> integer(const ParsedGguf& parsed, const std::string& path, std::string_view key,
                        int64_t fallback) {
  const auto found = parsed.metadata.find(key);
  if (found == parsed.metadata.end()) return fallback;
  if (const auto* value = std::get_if<int64_t>(&found->second)) return *value;
  return shard_error(path, fmt::format("metadata key '{}' must be an integer", key));
}

// What a file says of its place among shards.
struct Split {
  int64_t index = 0;
  int64_t count = 1;
  int64_t n_tensors = -1;  // of all shards; -1: not said
};

Result<Split> split_of(const ParsedGguf& parsed, const std::string& path) {
  Split split;
  const std::pair<std::string_view, int64_t*> fields[] = {
      {"split.no", &split.index},
      {"split.count", &split.count},
      {"split.tensors.count", &split.n_tensors}};
  for (const auto& [key, value] : fields) {
    const auto read = integer(parsed, path, key, *value);
    if (!read) return read.error();
    *value = *read;
  }
  return split;
}

std::string shard_suffix(int64_t index, int64_t count) {
  return fmt::format("-{:05d}-of-{:05d}.gguf", index + 1, count);
}

Result<void> refuse_adapter(const ParsedGguf& parsed, const std::string& path) {
  const auto found = parsed.metadata.find("general.type");
  if (found == parsed.metadata.end()) return {};
  const auto* type = std::get_if<std::string_view>(&found->second);
  if (type == nullptr || *type != "adapter") return {};
  return shard_error(
      path,
      "it is an adapter (LoRA), not a model; adapters cannot be applied yet, a model "
      "that it was merged into can be read");
}

// What all shards of a model are named after: the path of the first without its end.
Result<std::string> shard_stem(const std::string& path, const Split& split) {
  const std::string suffix = shard_suffix(0, split.count);
  if (split.index != 0) {
    return shard_error(path, fmt::format("it is shard {} of {}; the first, whose name ends in {}, "
                                         "would be right",
                                         split.index + 1, split.count, suffix));
  }
  if (!path.ends_with(suffix)) {
    return shard_error(
        path, fmt::format("it is the first of {} shards of a model, but its name does not end in "
                          "{}, so the others cannot be found",
                          split.count, suffix));
  }
  return path.substr(0, path.size() - suffix.size());
}

}  // namespace

Result<ModelFile> ModelFile::open_gguf(const std::string& path) {
  auto mapped = MappedFile::open(path);
  if (!mapped) return mapped.error();
  auto parsed = parse_gguf(mapped->bytes(), path);
  if (!parsed) return parsed.error();
  BANYAN_TRY(refuse_adapter(*parsed, path));
  const auto split = split_of(*parsed, path);
  if (!split) return split.error();

  ModelFile file;
  file.path_ = path;
  file.metadata_place_ = fmt::format("GGUF file '{}'", path);
  file.files_.push_back(*std::move(mapped));
  file.metadata_ = std::move(parsed->metadata);
  BANYAN_TRY(file.add_tensors(std::move(parsed->tensors), path));
  if (split->count <= 1) return file;

  const auto stem = shard_stem(path, *split);
  if (!stem) return stem.error();
  for (int64_t i = 1; i < split->count; ++i) {
    const std::string shard = *stem + shard_suffix(i, split->count);
    auto shard_mapped = MappedFile::open(shard);
    if (!shard_mapped) {
      return bad_input(fmt::format("{}; the {} shards of a model must lie beside each other",
                                   shard_mapped.error().message, split->count));
    }
    auto shard_parsed = parse_gguf(shard_mapped->bytes(), shard);
    if (!shard_parsed) return shard_parsed.error();
    const auto said = split_of(*shard_parsed, shard);
    if (!said) return said.error();
    if (said->count != split->count || said->index != i) {
      return shard_error(shard, fmt::format("it says that it is shard {} of {}; by its name it "
                                            "would be {} of {}",
                                            said->index + 1, said->count, i + 1, split->count));
    }
    file.files_.push_back(*std::move(shard_mapped));
    BANYAN_TRY(file.add_tensors(std::move(shard_parsed->tensors), shard));
  }
  if (split->n_tensors >= 0 && file.tensors_.size() != static_cast<uint64_t>(split->n_tensors)) {
    return shard_error(path, fmt::format("its {} shards hold {} tensors; it says {}", split->count,
                                         file.tensors_.size(), split->n_tensors));
  }
  return file;
}

}  // namespace banyan
