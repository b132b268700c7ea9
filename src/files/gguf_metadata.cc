// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "files/gguf_reader.h"

namespace banyan {
namespace {

constexpr uint64_t kMaxStringBytes = uint64_t{64} << 20;

// Elements of all arrays of a file together. The largest vocabularies with their merges, scores and
// types have about 2^20. The size of the file is no bound for what we allocate: a sparse file of
// terabytes costs its maker nothing.
constexpr uint64_t kMaxArrayElements = uint64_t{1} << 24;

// Numbers of the format's value types.
enum class MetaType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

// Calls read(T{}) with the C++ type of a number type; nothing for other types.
template <class Read>
auto with_number_type(MetaType type, Read read) -> std::optional<decltype(read(0))> {
  switch (type) {
    case MetaType::kUint8:
      return read(uint8_t{});
    case MetaType::kInt8:
      return read(int8_t{});
    case MetaType::kUint16:
      return read(uint16_t{});
    case MetaType::kInt16:
      return read(int16_t{});
    case MetaType::kUint32:
      return read(uint32_t{});
    case MetaType::kInt32:
      return read(int32_t{});
    case MetaType::kUint64:
      return read(uint64_t{});
    case MetaType::kInt64:
      return read(int64_t{});
    case MetaType::kFloat32:
      return read(float{});
    case MetaType::kFloat64:
      return read(double{});
    default:
      return std::nullopt;
  }
}

template <class Stored>
using Widened = std::conditional_t<std::is_floating_point_v<Stored>, double, int64_t>;

// Reads the values of one key.
class ValueReader {
 public:
  ValueReader(GgufReader& reader, std::string_view key, uint64_t& array_elements)
      : reader_(reader), place_{"metadata key", key}, array_elements_(array_elements) {}

  Result<MetaValue> read() {
    uint32_t number = 0;
    if (!reader_.take(number)) return truncated();
    const auto type = static_cast<MetaType>(number);
    if (type == MetaType::kBool) return as_value(read_bool());
    if (type == MetaType::kString) return as_value(read_string());
    if (type == MetaType::kArray) return as_value(read_array());
    auto value = with_number_type(
        type, [this](auto stored) { return as_value(read_number<decltype(stored)>()); });
    if (value) return std::move(*value);
    return error(fmt::format("has value type {}; 0 to 12 would be right", number));
  }

 private:
  template <class T>
  static Result<MetaValue> as_value(Result<T> value) {
    if (!value) return value.error();
    return MetaValue(std::move(*value));
  }

  Error error(std::string_view what) const {
    return reader_.error(fmt::format("{} {}", describe(place_), what));
  }
  Error truncated() const { return reader_.truncated(describe(place_)); }

  template <class Stored>
  Result<Widened<Stored>> read_number() {
    Stored value{};
    if (!reader_.take(value)) return truncated();
    if constexpr (std::is_same_v<Stored, uint64_t>) {
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        return error(fmt::format("holds {}; at most {} can be read", value,
                                 std::numeric_limits<int64_t>::max()));
      }
    }
    return static_cast<Widened<Stored>>(value);
  }

  Result<bool> read_bool() {
    uint8_t value = 0;
    if (!reader_.take(value)) return truncated();
    if (value > 1) return error(fmt::format("holds {} as a boolean; 0 or 1 would be right", value));
    return value == 1;
  }

  Result<std::string_view> read_string() {
    uint64_t size = 0;
    if (!reader_.take(size)) return truncated();
    if (size > reader_.left()) {
      return error(
          fmt::format("claims a string of {} bytes where {} are left", size, reader_.left()));
    }
    if (size > kMaxStringBytes) {
      return error(fmt::format("holds a string of {}; at most {} can be read", format_bytes(size),
                               format_bytes(kMaxStringBytes)));
    }
    return reader_.take_text(size);
  }

  Result<MetaArray> read_array() {
    uint32_t number = 0;
    uint64_t count = 0;
    if (!reader_.take(number) || !reader_.take(count)) return truncated();
    const auto type = static_cast<MetaType>(number);
    if (type == MetaType::kBool) {
      return read_items<bool>(count, 1, [this] { return read_bool(); });
    }
    if (type == MetaType::kString) {
      return read_items<std::string_view>(count, 8, [this] { return read_string(); });
    }
    if (type == MetaType::kArray) {
      return error("is an array of arrays; an array of numbers, booleans or strings can be read");
    }
    auto array = with_number_type(type, [&](auto stored) {
      using Stored = decltype(stored);
      return read_items<Widened<Stored>>(count, sizeof(Stored),
                                         [this] { return read_number<Stored>(); });
    });
    if (array) return std::move(*array);
    return error(fmt::format("is an array of type {}; 0 to 12 would be right", number));
  }

  // Reads `count` items, each of at least `min_bytes` bytes in the file.
  template <class Item, class ReadItem>
  Result<MetaArray> read_items(uint64_t count, uint64_t min_bytes, ReadItem read_item) {
    if (count > reader_.left() / min_bytes) {
      return error(fmt::format("claims {} array elements, more than the {} bytes left can hold",
                               count, reader_.left()));
    }
    if (count > kMaxArrayElements - array_elements_) {
      return error(
          fmt::format("brings the array elements of the file above {}, the most that "
                      "can be read",
                      kMaxArrayElements));
    }
    array_elements_ += count;
    std::vector<Item> items;
    items.reserve(count);
    for (uint64_t i = 0; i < count; ++i) {
      const auto item = read_item();
      if (!item) return item.error();
      items.push_back(*item);
    }
    return MetaArray{std::move(items)};
  }

  GgufReader& reader_;
  const GgufPlace place_;
  uint64_t& array_elements_;  // of the file so far, <= kMaxArrayElements
};

}  // namespace

Result<Metadata> read_gguf_metadata(GgufReader& reader, uint64_t count) {
  Metadata metadata;
  uint64_t array_elements = 0;
  for (uint64_t i = 0; i < count; ++i) {
    const auto key = reader.take_name("metadata key");
    if (!key) return key.error();
    const auto key_error = [&](std::string_view what) {
      return reader.error(fmt::format("{} {}", describe({"metadata key", *key}), what));
    };
    if (!std::ranges::all_of(*key, [](char c) { return c >= 0x20 && c < 0x7f; })) {
      return key_error("is not printable ASCII, as keys are");
    }
    if (metadata.contains(*key)) return key_error("appears twice; keys must differ");
    auto value = ValueReader(reader, *key, array_elements).read();
    if (!value) return value.error();
    metadata.emplace(*key, std::move(*value));
  }
  return metadata;
}

}  // namespace banyan
