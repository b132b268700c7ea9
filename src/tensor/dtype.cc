// SPDX-License-Identifier: Apache-2.0
#include "tensor/dtype.h"

#include <array>
#include <cstring>
#include <string_view>

#include "base/check.h"
#include "ggml.h"

namespace banyan {
namespace {

// ggml's table with names in upper case. Immutable once built.
class TypeTable {
 public:
  TypeTable() {
    for (int number = 0; number < GGML_TYPE_COUNT; ++number) {
      const ggml_type_traits& traits = *ggml_get_type_traits(static_cast<ggml_type>(number));
      if (traits.blck_size == 0) continue;  // the number of a type that ggml no longer has
      infos_[number] = {.name = upper_case(traits.type_name, names_[number]),
                        .block_elements = static_cast<uint32_t>(traits.blck_size),
                        .block_bytes = static_cast<uint32_t>(traits.type_size),
                        .quantized = traits.is_quantized};
    }
  }
  TypeTable(const TypeTable&) = delete;
  TypeTable& operator=(const TypeTable&) = delete;

  const DTypeInfo* find(int32_t number) const {
    if (number < 0 || number >= GGML_TYPE_COUNT) return nullptr;
    return infos_[number].block_elements > 0 ? &infos_[number] : nullptr;
  }

 private:
  using Name = std::array<char, 16>;

  static std::string_view upper_case(const char* text, Name& name) {
    const std::string_view lower = text;
    BANYAN_CHECK(lower.size() <= name.size(), "a tensor type's name is longer than the table has");
    for (size_t i = 0; i < lower.size(); ++i) {
      name[i] =
          lower[i] >= 'a' && lower[i] <= 'z' ? static_cast<char>(lower[i] - 'a' + 'A') : lower[i];
    }
    return {name.data(), lower.size()};
  }

  std::array<Name, GGML_TYPE_COUNT> names_{};
  std::array<DTypeInfo, GGML_TYPE_COUNT> infos_{};
};

}  // namespace

const DTypeInfo* type_info(DType type) {
  static const TypeTable table;
  return table.find(static_cast<int32_t>(type));
}

bool expand_unquantized(DType type, const std::byte* in, float* out, int64_t n) {
  if (type != DType::kF32 && type != DType::kF16 && type != DType::kBF16) return false;
  if (type == DType::kF32) {
    std::memcpy(out, in, static_cast<size_t>(n) * sizeof(float));
    return true;
  }
  for (int64_t i = 0; i < n; ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, in + i * sizeof(bits), sizeof(bits));
    out[i] = type == DType::kF16 ? ggml_fp16_to_fp32(bits)
                                 : ggml_bf16_to_fp32(ggml_bf16_t{.bits = bits});
  }
  return true;
}

}  // namespace banyan
