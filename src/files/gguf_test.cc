// SPDX-License-Identifier: Apache-2.0
// What a right file gives.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "files/model_file.h"
#include "files/testing_gguf_writer.h"

namespace banyan {
namespace {

template <class T>
const T& get(const ParsedGguf& file, const std::string& key) {
  return std::get<T>(file.metadata.at(key));
}
template <class T>
const std::vector<T>& get_array(const ParsedGguf& file, const std::string& key) {
  return std::get<std::vector<T>>(get<MetaArray>(file, key).items);
}

template <class T>
class IntegerTypes : public testing::Test {};
using Integers =
    testing::Types<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, uint64_t, int64_t>;
TYPED_TEST_SUITE(IntegerTypes, Integers);

TYPED_TEST(IntegerTypes, AreReadWithTheirExtremesAloneAndInArrays) {
  using T = TypeParam;
  using Limits = std::numeric_limits<T>;
  const T max = std::is_same_v<T, uint64_t> ? static_cast<T>(INT64_MAX) : Limits::max();
  GgufWriter writer;
  writer.set("min", Limits::min()).set("max", max).set("seven", T{7});
  writer.set("array", std::vector<T>{Limits::min(), T{7}, max}).set("none", std::vector<T>{});
  const auto bytes = writer.build();
  const auto file = parse_gguf(bytes, "test");
  ASSERT_TRUE(file) << file.error().message;
  const auto min64 = int64_t{Limits::min()};
  const auto max64 = static_cast<int64_t>(max);
  EXPECT_EQ(get<int64_t>(*file, "min"), min64);
  EXPECT_EQ(get<int64_t>(*file, "max"), max64);
  EXPECT_EQ(get<int64_t>(*file, "seven"), 7);
  EXPECT_EQ(get_array<int64_t>(*file, "array"), (std::vector<int64_t>{min64, 7, max64}));
  EXPECT_TRUE(get_array<int64_t>(*file, "none").empty());
}

TEST(Gguf, FloatsBooleansAndStringsAreReadAloneAndInArrays) {
  const std::string text("a\0\xff\n\"b", 6);  // strings are bytes
  GgufWriter writer;
  writer.set("f32", 0.1f).set("f64", 0.1).set("inf", -INFINITY).set("nan", NAN);
  writer.set("yes", true).set("no", false).set("text", text).set("empty", "");
  writer.set("f32s", std::vector<float>{1.5f, -2.0f}).set("f64s", std::vector<double>{1e300});
  writer.set("bools", std::vector<bool>{true, false, true});
  writer.set("texts", std::vector<std::string>{"", text, "x"});
  const auto bytes = writer.build();
  const auto file = parse_gguf(bytes, "test");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(get<double>(*file, "f32"), static_cast<double>(0.1f));
  EXPECT_EQ(get<double>(*file, "f64"), 0.1);
  EXPECT_EQ(get<double>(*file, "inf"), -INFINITY);
  EXPECT_TRUE(std::isnan(get<double>(*file, "nan")));
  EXPECT_TRUE(get<bool>(*file, "yes"));
  EXPECT_FALSE(get<bool>(*file, "no"));
  EXPECT_EQ(get<std::string_view>(*file, "text"), text);
  EXPECT_EQ(get<std::string_view>(*file, "empty"), "");
  EXPECT_EQ(get_array<double>(*file, "f32s"), (std::vector<double>{1.5, -2.0}));
  EXPECT_EQ(get_array<double>(*file, "f64s"), std::vector<double>{1e300});
  EXPECT_EQ(get_array<bool>(*file, "bools"), (std::vector<bool>{true, false, true}));
  EXPECT_EQ(get_array<std::string_view>(*file, "texts"),
            (std::vector<std::string_view>{"", text, "x"}));
}

TEST(Gguf, StringsAreViewsIntoTheFile) {
  const auto bytes = GgufWriter().set("key", "value").build();
  const auto file = parse_gguf(bytes, "test");
  ASSERT_TRUE(file) << file.error().message;
  const auto* text = reinterpret_cast<const std::byte*>(get<std::string_view>(*file, "key").data());
  EXPECT_GE(text, bytes.data());
  EXPECT_LE(text + 5, bytes.data() + bytes.size());
}

TEST(Gguf, TensorsHaveTheirTypesDimensionsAndBytes) {
  const std::vector<float> norm{1, 2, 3};
  std::vector<std::byte> blocks(2 * 3 * 34);  // Q8_0: 34 bytes for 32 elements
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<std::byte>(i);
  for (const uint32_t version : {2u, 3u}) {
    GgufWriter writer(version);
    writer.add_tensor("norm", {3}, norm).add_tensor("w", {64, 3}, DType::kQ8_0, blocks);
    writer.add_tensor("four", {1, 1, 3, 1}, norm);
    const auto bytes = writer.build();
    const auto file = parse_gguf(bytes, "test");
    ASSERT_TRUE(file) << file.error().message;
    ASSERT_EQ(file->tensors.size(), 3u);

    const TensorInfo& w = file->tensors[1];
    EXPECT_EQ(w.name, "w");
    EXPECT_EQ(w.type, DType::kQ8_0);
    EXPECT_EQ(w.dims, (std::vector<int64_t>{64, 3}));
    EXPECT_TRUE(std::ranges::equal(w.data, blocks));
    EXPECT_EQ((w.data.data() - bytes.data()) % 32, 0);
    const Weight weight = w.weight();
    EXPECT_EQ(weight.data, w.data.data());
    EXPECT_EQ(weight.type, DType::kQ8_0);
    EXPECT_EQ(weight.rows, 3);
    EXPECT_EQ(weight.cols, 64);
    EXPECT_EQ(weight.row_bytes, 68);

    EXPECT_TRUE(std::ranges::equal(file->tensors[0].data, std::as_bytes(std::span(norm))));
    EXPECT_EQ(file->tensors[0].weight().rows, 1);
    EXPECT_EQ(file->tensors[2].weight().rows, 3);
    EXPECT_EQ(file->tensors[2].weight().cols, 1);
  }
}

TEST(Gguf, TensorsMayLieInAnyOrderAndWithGaps) {
  GgufWriter writer;
  writer.add_tensor_entry("late", {8}, 0, 96).add_tensor_entry("early", {8}, 0, 0).add_data(128);
  const auto bytes = writer.build();
  const auto file = parse_gguf(bytes, "test");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->tensors[0].data.data() - file->tensors[1].data.data(), 96);
}

TEST(Gguf, StatedAlignmentMovesTheData) {
  for (const uint32_t alignment : {8u, 16u, 64u, 4096u, 1u << 20}) {
    GgufWriter writer(3, alignment);
    writer.set("general.alignment", alignment);
    writer.add_tensor("a", {3}, std::vector<float>{1, 2, 3});
    writer.add_tensor("b", {1}, std::vector<float>{4});
    const auto bytes = writer.build();
    const auto file = parse_gguf(bytes, "test");
    ASSERT_TRUE(file) << file.error().message;
    EXPECT_EQ((file->tensors[0].data.data() - bytes.data()) % alignment, 0);
    EXPECT_EQ(*reinterpret_cast<const float*>(file->tensors[1].data.data()), 4);
  }
}

TEST(Gguf, FileWithoutTensorsOrMetadataIsFine) {
  for (const uint32_t version : {2u, 3u}) {
    const auto bytes = GgufWriter(version).build();
    const auto file = parse_gguf(bytes, "test");
    ASSERT_TRUE(file) << file.error().message;
    EXPECT_TRUE(file->metadata.empty());
    EXPECT_TRUE(file->tensors.empty());
  }
}

TEST(Gguf, LargeVocabularyIsRead) {
  std::vector<std::string> tokens(49152);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = "token" + std::to_string(i);
  const auto bytes = GgufWriter().set("tokenizer.ggml.tokens", tokens).build();
  const auto file = parse_gguf(bytes, "test");
  ASSERT_TRUE(file) << file.error().message;
  const auto& read = get_array<std::string_view>(*file, "tokenizer.ggml.tokens");
  EXPECT_TRUE(std::ranges::equal(read, tokens));
}

}  // namespace
}  // namespace banyan
