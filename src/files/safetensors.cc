// SPDX-License-Identifier: Apache-2.0
#include "files/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <utility>

#include "base/bytes.h"
#include "base/json.h"
#include "base/printable.h"

namespace banyan {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "numbers are read as they lie");

// Headers of models with 100,000 tensors take 15 MB; what JSON becomes in memory is some 15 times
// as much, so a header that is let in must be small against memory.
constexpr uint64_t kMaxHeaderBytes = uint64_t{32} << 20;
constexpr size_t kMaxDims = 4;

struct StoredType {
  std::string_view name;
  uint32_t bytes;
  std::optional<DType> weight;  // as which weights of it are read
};
constexpr std::array kStoredTypes = {
    StoredType{"F32", 4, DType::kF32},      StoredType{"F16", 2, DType::kF16},
    StoredType{"BF16", 2, DType::kBF16},    StoredType{"F64", 8, std::nullopt},
    StoredType{"I64", 8, std::nullopt},     StoredType{"U64", 8, std::nullopt},
    StoredType{"I32", 4, std::nullopt},     StoredType{"U32", 4, std::nullopt},
    StoredType{"I16", 2, std::nullopt},     StoredType{"U16", 2, std::nullopt},
    StoredType{"I8", 1, std::nullopt},      StoredType{"U8", 1, std::nullopt},
    StoredType{"BOOL", 1, std::nullopt},    StoredType{"F8_E4M3", 1, std::nullopt},
    StoredType{"F8_E5M2", 1, std::nullopt}, StoredType{"F8_E8M0", 1, std::nullopt},
};

const StoredType* stored_type(std::string_view name) {
  const auto* found = std::ranges::find(kStoredTypes, name, &StoredType::name);
  return found == kStoredTypes.end() ? nullptr : found;
}

// What a file claims of one tensor.
struct Entry {
  std::string name;
  std::string type;
  std::vector<uint64_t> shape;
  uint64_t begin = 0;  // [begin, end) of the data
  uint64_t end = 0;
};

class HeaderReader {
 public:
  HeaderReader(std::span<const std::byte> bytes, const std::string& name)
      : bytes_(bytes), name_(name) {}

  Error error(std::string_view what) const {
    return bad_input(fmt::format("'{}': {}", name_, what));
  }
  Error error(const Entry& entry, std::string_view what) const {
    return error(fmt::format("tensor '{}' {}", printable(entry.name), what));
  }

  // Reads the header and leaves data() at what follows it.
  Result<std::vector<Entry>> read() {
    uint64_t size = 0;
    if (bytes_.size() < sizeof(size)) {
      return error("it is too short for a safetensors file, which begins with 8 bytes of length");
    }
    std::memcpy(&size, bytes_.data(), sizeof(size));
    const uint64_t left = bytes_.size() - sizeof(size);
    if (size > left || size > kMaxHeaderBytes) {
      return error(fmt::format("it claims a safetensors header of {} bytes; at most {} can be read",
                               size, std::min(left, kMaxHeaderBytes)));
    }
    const auto* text = reinterpret_cast<const char*>(bytes_.data() + sizeof(size));
    auto header = parse_json({text, size});
    if (!header) return error(header.error().message);
    if (!header->is_object()) return error("its safetensors header is no JSON object");
    data_ = bytes_.subspan(sizeof(size) + size);
    std::vector<Entry> entries;
    for (const auto& [key, value] : header->items()) {
      if (key == "__metadata__") continue;  // free text
      auto entry = read_entry(key, value);
      if (!entry) return entry.error();
      entries.push_back(*std::move(entry));
    }
    return entries;
  }

  std::span<const std::byte> data() const { return data_; }

 private:
  Result<Entry> read_entry(const std::string& key, const json& value) const {
    Entry entry{.name = key, .type = {}, .shape = {}};
    const auto wrong = [&] {
      return error(entry, "is not described by a dtype, a shape and two data_offsets");
    };
    if (!value.is_object()) return wrong();
    const auto type = value.find("dtype");
    const auto shape = value.find("shape");
    const auto offsets = value.find("data_offsets");
    if (type == value.end() || shape == value.end() || offsets == value.end()) return wrong();
    if (!type->is_string() || !shape->is_array() || !offsets->is_array()) return wrong();
    const auto is_size = [](const json& item) { return item.is_number_unsigned(); };
    if (offsets->size() != 2 || !std::ranges::all_of(*offsets, is_size)) return wrong();
    if (!std::ranges::all_of(*shape, is_size)) return wrong();
    entry.type = type->get<std::string>();
    for (const json& dim : *shape) entry.shape.push_back(dim.get<uint64_t>());
    entry.begin = offsets->front().get<uint64_t>();
    entry.end = offsets->back().get<uint64_t>();
    BANYAN_TRY(check_size(entry));
    return entry;
  }

  // The data lie in the file and are as many as type and shape say.
  Result<void> check_size(const Entry& entry) const {
    if (entry.begin > entry.end || entry.end > data_.size()) {
      return error(entry, fmt::format("claims bytes {} to {} of the {} of data", entry.begin,
                                      entry.end, data_.size()));
    }
    const StoredType* type = stored_type(entry.type);
    if (type == nullptr) return {};  // a newer type: it is foreign, whatever its size
    std::optional<uint64_t> bytes = type->bytes;
    for (const uint64_t dim : entry.shape) {
      if (bytes) bytes = checked_mul(*bytes, dim);
    }
    if (bytes == entry.end - entry.begin) return {};
    return error(entry,
                 fmt::format("has {} bytes of data, which is not what {} of shape [{}] takes",
                             entry.end - entry.begin, type->name, fmt::join(entry.shape, ", ")));
  }

  const std::span<const std::byte> bytes_;
  const std::string& name_;
  std::span<const std::byte> data_;
};

// The tensors' data tile what follows the header.
Result<void> check_tiling(const HeaderReader& reader, const std::vector<Entry>& entries) {
  std::vector<const Entry*> order;
  for (const Entry& entry : entries) order.push_back(&entry);
  std::ranges::sort(order, [](const Entry* a, const Entry* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  uint64_t end = 0;
  for (const Entry* entry : order) {
    if (entry->begin < end) {
      return reader.error(*entry, "overlaps the data of another; they must lie apart");
    }
    if (entry->begin > end) {
      return reader.error(*entry, fmt::format("begins at byte {} of the data, where {} would leave "
                                              "no gap",
                                              entry->begin, end));
    }
    end = entry->end;
  }
  if (end == reader.data().size()) return {};
  return reader.error(
      fmt::format("its tensors take {} of {} bytes of data; it was cut off or has "
                  "more behind it than it names",
                  end, reader.data().size()));
}

}  // namespace

Result<ParsedSafetensors> parse_safetensors(std::span<const std::byte> bytes,
                                            const std::string& name) {
  HeaderReader reader(bytes, name);
  auto entries = reader.read();
  if (!entries) return entries.error();
  BANYAN_TRY(check_tiling(reader, *entries));
  ParsedSafetensors parsed;
  for (Entry& entry : *entries) {
    const StoredType* type = stored_type(entry.type);
    const bool is_weight = type != nullptr && type->weight && entry.begin < entry.end &&
                           entry.shape.size() <= kMaxDims;
    if (!is_weight) {
      parsed.foreign.emplace(std::move(entry.name), printable(entry.type, 16));
      continue;
    }
    TensorInfo tensor;
    tensor.name = std::move(entry.name);
    tensor.type = *type->weight;
    tensor.dims.assign(entry.shape.rbegin(), entry.shape.rend());  // the row length first
    if (tensor.dims.empty()) tensor.dims = {1};
    tensor.data = reader.data().subspan(entry.begin, entry.end - entry.begin);
    parsed.tensors.push_back(std::move(tensor));
  }
  return parsed;
}

}  // namespace banyan
