// SPDX-License-Identifier: Apache-2.0
#include "tensor/dtype.h"

#include <gtest/gtest.h>

#include <vector>

#include <cstring>

#include <set>
#include <string>

namespace banyan {
namespace {

// Block sizes as the GGUF specification states them.
struct Expected {
  int32_t number;
  const char* name;
  uint32_t block_elements;
  uint32_t block_bytes;
  bool quantized;
};

TEST(DType, KnowsTheTypesOfGgufFilesByTheirNumber) {
  const Expected expected[] = {
      {0, "F32", 1, 4, false},        {1, "F16", 1, 2, false},       {2, "Q4_0", 32, 18, true},
      {3, "Q4_1", 32, 20, true},      {6, "Q5_0", 32, 22, true},     {7, "Q5_1", 32, 24, true},
      {8, "Q8_0", 32, 34, true},      {10, "Q2_K", 256, 84, true},   {11, "Q3_K", 256, 110, true},
      {12, "Q4_K", 256, 144, true},   {13, "Q5_K", 256, 176, true},  {14, "Q6_K", 256, 210, true},
      {16, "IQ2_XXS", 256, 66, true}, {17, "IQ2_XS", 256, 74, true}, {20, "IQ4_NL", 32, 18, true},
      {23, "IQ4_XS", 256, 136, true}, {26, "I32", 1, 4, false},      {28, "F64", 1, 8, false},
      {30, "BF16", 1, 2, false},      {39, "MXFP4", 32, 17, true},
  };
  for (const Expected& e : expected) {
    const DTypeInfo* info = type_info(static_cast<DType>(e.number));
    ASSERT_NE(info, nullptr) << e.name;
    EXPECT_EQ(info->name, e.name);
    EXPECT_EQ(info->block_elements, e.block_elements) << e.name;
    EXPECT_EQ(info->block_bytes, e.block_bytes) << e.name;
    EXPECT_EQ(info->quantized, e.quantized) << e.name;
  }
}

TEST(DType, HasNothingForRemovedAndUnknownNumbers) {
  for (const int32_t number : {4, 5, 31, 32, 33, 36, 37, 38, 1000, -1, INT32_MIN, INT32_MAX}) {
    EXPECT_EQ(type_info(static_cast<DType>(number)), nullptr) << number;
  }
}

TEST(DType, NamesAreDistinctAndInUpperCase) {
  std::set<std::string> names;
  for (int32_t number = 0; number < 64; ++number) {
    const DTypeInfo* info = type_info(static_cast<DType>(number));
    if (info == nullptr) continue;
    EXPECT_TRUE(names.emplace(info->name).second) << info->name;
    EXPECT_EQ(info->name.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"),
              std::string_view::npos)
        << info->name;
  }
  EXPECT_GT(names.size(), 30U);
}

TEST(DType, UnquantisedVectorsAreExpandedExactlyAtAnyAddress) {
  // 1, -2.5, 2^-24 (the least f16), 65504 (the largest f16)
  const std::vector<uint16_t> halves = {0x3c00, 0xc100, 0x0001, 0x7bff};
  const std::vector<uint16_t> brains = {0x3f80, 0xc020, 0x3380, 0x477f};
  const std::vector<float> singles = {1, -2.5F, 0x1p-24F, 65504};
  const auto expanded = [](DType type, const auto& stored) {
    std::vector<std::byte> bytes(stored.size() * sizeof(stored[0]) + 1);
    std::memcpy(bytes.data() + 1, stored.data(), bytes.size() - 1);
    std::vector<float> out(stored.size());
    EXPECT_TRUE(expand_unquantized(type, bytes.data() + 1, out.data(), 4));
    return out;
  };
  EXPECT_EQ(expanded(DType::kF16, halves), singles);
  EXPECT_EQ(expanded(DType::kF32, singles), singles);
  EXPECT_EQ(expanded(DType::kBF16, brains), (std::vector<float>{1, -2.5F, 0x1p-24F, 65280}));
  float none = 7;
  EXPECT_FALSE(expand_unquantized(DType::kQ8_0, nullptr, &none, 1));
  EXPECT_EQ(none, 7);
}

}  // namespace
}  // namespace banyan
