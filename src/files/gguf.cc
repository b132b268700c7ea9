// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <span>
#include <utility>

#include "base/bytes.h"
#include "files/gguf_reader.h"
#include "files/model_file.h"

namespace banyan {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr uint32_t kMinVersion = 2;
constexpr uint32_t kMaxVersion = 3;
constexpr uint32_t kMaxDims = 4;
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMinAlignment = 8;  // tensors of f32 are read as such
constexpr uint64_t kMaxAlignment = uint64_t{1} << 20;

// Fewest bytes that an entry takes: a name of one byte, and the fixed parts.
constexpr uint64_t kMinMetadataBytes = 8 + 1 + 4 + 1;
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;

struct Header {
  uint64_t n_tensors = 0;
  uint64_t n_metadata = 0;
};

// A tensor's entry, and where its data claims to be.
struct TensorEntry {
  TensorInfo info;
  uint64_t offset = 0;  // from the start of the data section
  uint64_t bytes = 0;
};

Result<Header> read_header(GgufReader& reader) {
  if (reader.left() < kMagic.size() || reader.take_text(kMagic.size()) != kMagic) {
    return bad_input(fmt::format("'{}' is not a GGUF file, which would begin with the letters {}",
                                 reader.file_name(), kMagic));
  }
  uint32_t version = 0;
  if (!reader.take(version)) return reader.truncated("its header");
  if (version != 0 && (version & 0xffff) == 0) {
    return reader.error("it is big-endian; a little-endian file can be read");
  }
  if (version < kMinVersion || version > kMaxVersion) {
    return reader.error(fmt::format("its format version is {}; {} or {} can be read", version,
                                    kMinVersion, kMaxVersion));
  }
  Header header;
  if (!reader.take(header.n_tensors) || !reader.take(header.n_metadata)) {
    return reader.truncated("its header");
  }
  const auto check_count = [&](uint64_t count, uint64_t min_bytes,
                               std::string_view what) -> Result<void> {
    if (count <= reader.left() / min_bytes) return {};
    return reader.error(fmt::format("it claims {} {}, more than its {} bytes can hold", count, what,
                                    reader.bytes().size()));
  };
  BANYAN_TRY(check_count(header.n_metadata, kMinMetadataBytes, "metadata keys"));
  BANYAN_TRY(check_count(header.n_tensors, kMinTensorBytes, "tensors"));
  return header;
}

// An integer of the metadata; nothing if absent.
Result<std::optional<int64_t>> find_integer(const GgufReader& reader, const Metadata& metadata,
                                            std::string_view key) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) return std::optional<int64_t>();
  if (const auto* value = std::get_if<int64_t>(&found->second)) return std::optional(*value);
  return reader.error(fmt::format("metadata key '{}' must be an integer", key));
}

Result<uint64_t> data_alignment(const GgufReader& reader, const Metadata& metadata) {
  const auto stated = find_integer(reader, metadata, "general.alignment");
  if (!stated) return stated.error();
  const int64_t alignment = stated->value_or(kDefaultAlignment);
  if (alignment >= static_cast<int64_t>(kMinAlignment) &&
      alignment <= static_cast<int64_t>(kMaxAlignment) &&
      std::has_single_bit(static_cast<uint64_t>(alignment))) {
    return static_cast<uint64_t>(alignment);
  }
  return reader.error(
      fmt::format("general.alignment is {}; a power of two from {} to {} would be "
                  "right",
                  alignment, kMinAlignment, kMaxAlignment));
}

Result<std::vector<int64_t>> read_dims(GgufReader& reader, const GgufPlace& place) {
  uint32_t n_dims = 0;
  if (!reader.take(n_dims)) return reader.truncated(describe(place));
  if (n_dims < 1 || n_dims > kMaxDims) {
    return reader.error(fmt::format("{} has {} dimensions; 1 to {} would be right", describe(place),
                                    n_dims, kMaxDims));
  }
  std::vector<int64_t> dims(n_dims);
  for (int64_t& dim : dims) {
    if (!reader.take(dim)) return reader.truncated(describe(place));
    if (dim <= 0) {
      return reader.error(fmt::format("{} has a dimension of {}; 1 to 2^63 - 1 would be right",
                                      describe(place), static_cast<uint64_t>(dim)));
    }
  }
  return dims;
}

// Bytes of a tensor's data; an error unless its rows are whole blocks and the product fits.
Result<uint64_t> data_bytes(const GgufReader& reader, const TensorInfo& tensor) {
  const GgufPlace place{"tensor", tensor.name};
  const DTypeInfo* type = type_info(tensor.type);
  if (type == nullptr) {
    return reader.error(fmt::format("{} has type {}, which is no current ggml tensor type",
                                    describe(place), static_cast<int32_t>(tensor.type)));
  }
  const auto row_elements = static_cast<uint64_t>(tensor.dims[0]);
  if (row_elements % type->block_elements != 0) {
    return reader.error(fmt::format("{} has rows of {} elements; {} needs a multiple of {}",
                                    describe(place), row_elements, type->name,
                                    type->block_elements));
  }
  std::optional<uint64_t> elements = row_elements;
  std::optional<uint64_t> bytes =
      checked_mul(row_elements / type->block_elements, type->block_bytes);
  for (const int64_t dim : std::span(tensor.dims).subspan(1)) {
    if (elements) elements = checked_mul(*elements, static_cast<uint64_t>(dim));
    if (bytes) bytes = checked_mul(*bytes, static_cast<uint64_t>(dim));
  }
  if (elements && *elements <= INT64_MAX && bytes) return *bytes;
  return reader.error(fmt::format("{} has dimensions {}, whose product is no possible size",
                                  describe(place), fmt::join(tensor.dims, " x ")));
}

Result<TensorEntry> read_tensor_entry(GgufReader& reader) {
  TensorEntry entry;
  const auto name = reader.take_name("tensor");
  if (!name) return name.error();
  const GgufPlace place{"tensor", *name};
  auto dims = read_dims(reader, place);
  if (!dims) return dims.error();
  int32_t type = 0;
  if (!reader.take(type) || !reader.take(entry.offset)) return reader.truncated(describe(place));
  entry.info.name = *name;
  entry.info.type = static_cast<DType>(type);
  entry.info.dims = std::move(*dims);
  const auto bytes = data_bytes(reader, entry.info);
  if (!bytes) return bytes.error();
  entry.bytes = *bytes;
  return entry;
}

// Points every tensor at its data. The data section begins behind the header, so that no data can
// overlap it.
Result<void> place_tensors(const GgufReader& reader, uint64_t alignment,
                           std::span<TensorEntry> entries) {
  const uint64_t file_bytes = reader.bytes().size();
  const uint64_t data_begin = (reader.position() + alignment - 1) / alignment * alignment;
  for (TensorEntry& entry : entries) {
    const GgufPlace place{"tensor", entry.info.name};
    if (entry.offset % alignment != 0) {
      return reader.error(fmt::format("{} begins at offset {}; a multiple of {} would be right",
                                      describe(place), entry.offset, alignment));
    }
    const auto begin = checked_add(data_begin, entry.offset);
    const auto end = begin ? checked_add(*begin, entry.bytes) : begin;
    if (!end || *end > file_bytes) {
      return reader.error(fmt::format(
          "the data of {}, {} bytes at offset {} of a data section that begins at byte {}, would "
          "lie outside the {} bytes of the file; a complete file would hold them",
          describe(place), entry.bytes, entry.offset, data_begin, file_bytes));
    }
    entry.info.data = reader.bytes().subspan(*begin, entry.bytes);
  }
  return {};
}

// The entries in rising order of key(entry).
template <class Key>
std::vector<const TensorEntry*> sorted_by(std::span<const TensorEntry> entries, Key key) {
  std::vector<const TensorEntry*> order(entries.size());
  std::ranges::transform(entries, order.begin(), [](const TensorEntry& e) { return &e; });
  std::ranges::sort(order, {}, [&](const TensorEntry* e) { return key(*e); });
  return order;
}

Result<void> check_names_differ(const GgufReader& reader, std::span<const TensorEntry> entries) {
  const auto order =
      sorted_by(entries, [](const TensorEntry& e) { return std::string_view(e.info.name); });
  const auto twice = std::ranges::adjacent_find(
      order, [](const auto* a, const auto* b) { return a->info.name == b->info.name; });
  if (twice == order.end()) return {};
  return reader.error(fmt::format("{} appears twice; names must differ",
                                  describe({"tensor", (*twice)->info.name})));
}

Result<void> check_data_apart(const GgufReader& reader, std::span<const TensorEntry> entries) {
  const auto order = sorted_by(entries, [](const TensorEntry& e) { return e.offset; });
  // In order of offset, and none empty: if any two overlap, some neighbours do.
  const auto overlap = std::ranges::adjacent_find(
      order, [](const auto* a, const auto* b) { return b->offset - a->offset < a->bytes; });
  if (overlap == order.end()) return {};
  return reader.error(fmt::format("the data of {} and of {} overlap; they must lie apart",
                                  describe({"tensor", overlap[0]->info.name}),
                                  describe({"tensor", overlap[1]->info.name})));
}

}  // namespace

Result<ParsedGguf> parse_gguf(std::span<const std::byte> bytes, const std::string& name) {
  GgufReader reader(bytes, name);
  const auto header = read_header(reader);
  if (!header) return header.error();
  auto metadata = read_gguf_metadata(reader, header->n_metadata);
  if (!metadata) return metadata.error();
  const auto alignment = data_alignment(reader, *metadata);
  if (!alignment) return alignment.error();

  std::vector<TensorEntry> entries;  // grows as entries prove real, not to the count claimed
  for (uint64_t i = 0; i < header->n_tensors; ++i) {
    auto entry = read_tensor_entry(reader);
    if (!entry) return entry.error();
    entries.push_back(std::move(*entry));
  }
  BANYAN_TRY(place_tensors(reader, *alignment, entries));
  BANYAN_TRY(check_names_differ(reader, entries));
  BANYAN_TRY(check_data_apart(reader, entries));

  ParsedGguf parsed{.metadata = std::move(*metadata), .tensors = {}};
  parsed.tensors.reserve(entries.size());
  for (TensorEntry& entry : entries) parsed.tensors.push_back(std::move(entry.info));
  return parsed;
}

}  // namespace banyan
