// SPDX-License-Identifier: Apache-2.0
// What a file that lies gives: one sentence that names the file and the lie, never a crash, never
// memory for what is not there.

#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>
#include <cstdint>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "files/model_file.h"
#include "files/testing_gguf_writer.h"

namespace {

// Bytes asked of operator new by this thread since it was last set to 0.
thread_local uint64_t allocated_bytes = 0;

void* counted_new(size_t size) {
  allocated_bytes += size;
  void* memory = malloc(size);
  if (memory == nullptr) abort();
  return memory;
}

}  // namespace

void* operator new(size_t size) { return counted_new(size); }
void* operator new[](size_t size) { return counted_new(size); }
void operator delete(void* memory) noexcept { free(memory); }
void operator delete[](void* memory) noexcept { free(memory); }
void operator delete(void* memory, size_t) noexcept { free(memory); }
void operator delete[](void* memory, size_t) noexcept { free(memory); }

namespace banyan {
namespace {

constexpr uint64_t kHuge = uint64_t{1} << 62;

void expect_refused(const std::vector<std::byte>& bytes, const std::string& why) {
  allocated_bytes = 0;
  const auto file = parse_gguf(bytes, "some/model.gguf");
  EXPECT_LT(allocated_bytes, 8192 + 16 * bytes.size()) << why;
  ASSERT_FALSE(file) << why;
  const Error& error = file.error();
  EXPECT_EQ(error.code, ErrorCode::kBadInput);
  EXPECT_NE(error.message.find("some/model.gguf"), std::string::npos) << error.message;
  EXPECT_NE(error.message.find(why), std::string::npos) << error.message;
  for (const char c : error.message) EXPECT_TRUE(c >= 0x20 && c < 0x7f) << error.message;
}

void expect_refused(const GgufWriter& writer, const std::string& why) {
  expect_refused(writer.build(), why);
}
void expect_refused(const GgufBytes& bytes, const std::string& why) {
  expect_refused(bytes.bytes(), why);
}

// One of everything, small.
GgufWriter small_file() {
  GgufWriter writer;
  writer.set("general.architecture", "llama").set("general.alignment", uint32_t{32});
  writer.set("u8", uint8_t{1}).set("i64", int64_t{-1}).set("f", 1.0f).set("yes", true);
  writer.set("words", std::vector<std::string>{"a", "bc", ""});
  writer.set("ints", std::vector<int32_t>{1, 2}).set("bools", std::vector<bool>{true, false});
  writer.add_tensor("norm", {3}, std::vector<float>{1, 2, 3});
  writer.add_tensor("w", {32, 2}, DType::kQ8_0, std::vector<std::byte>(68));
  return writer;
}

TEST(GgufHeader, OtherFilesAreNotGguf) {
  for (const std::string text : {"", "G", "GGU", "GGML....", "ggufabcd", "PK\3\4and so on"}) {
    expect_refused(GgufBytes().put_letters(text), "is not a GGUF file");
  }
}

TEST(GgufHeader, OtherVersionsAreNamed) {
  for (const uint32_t version : {0u, 1u, 4u, 1000u, 0x80000001u}) {
    expect_refused(GgufBytes().header(version, 0, 0), "version is " + std::to_string(version));
  }
}

TEST(GgufHeader, BigEndianIsNamed) {
  expect_refused(GgufBytes().header(0x03000000, 0, 0), "big-endian");
  expect_refused(GgufBytes().header(0x02000000, 0, 0), "big-endian");
}

TEST(GgufHeader, CountsThatTheFileCannotHoldAreRefused) {
  for (const uint64_t count : {uint64_t{1}, uint64_t{1} << 32, kHuge, UINT64_MAX}) {
    expect_refused(GgufBytes().header(3, count, 0), std::to_string(count) + " tensors");
    expect_refused(GgufBytes().header(3, 0, count), std::to_string(count) + " metadata keys");
  }
}

TEST(GgufMetadata, KeysMustBeShortPrintableAndDifferent) {
  expect_refused(GgufWriter().set("a", 1.0f).set("b", true).set("a", uint8_t{1}),
                 "'a' appears twice");
  expect_refused(GgufWriter().set("", 1.0f), "name of 0 bytes");
  expect_refused(GgufWriter().set("caf\xc3\xa9\n\x1b[2J", 1.0f), "'caf\\xc3\\xa9\\x0a\\x1b[2J'");
  expect_refused(GgufWriter().set(std::string(65537, 'k'), 1.0f), "name of 65537 bytes");
  EXPECT_TRUE(parse_gguf(GgufWriter().set(std::string(65536, 'k'), 1.0f).build(), "test"));
}

TEST(GgufMetadata, LongKeysAreCutInErrors) {
  const auto bytes = GgufWriter().set_raw(std::string(5000, 'k'), 99, {}).build();
  const auto file = parse_gguf(bytes, "test");
  ASSERT_FALSE(file);
  EXPECT_LT(file.error().message.size(), 250u);
}

TEST(GgufMetadata, LengthsThatTheFileCannotHoldAreRefused) {
  for (const uint64_t size : {uint64_t{17}, uint64_t{1} << 40, kHuge, UINT64_MAX}) {
    const std::string text = std::to_string(size);
    const GgufBytes claim = GgufBytes().put(size).put(uint64_t{0}).put(uint64_t{0});
    expect_refused(GgufWriter().set_raw("s", 8, claim), "string of " + text + " bytes");
    expect_refused(GgufBytes().header(3, 0, 1).put_raw(claim.bytes()), "name of " + text);
    for (uint32_t type = 0; type <= 12; ++type) {
      if (type == 9) continue;
      const GgufBytes array = GgufBytes().put(type).put_raw(claim.bytes());
      expect_refused(GgufWriter().set_raw("a", 9, array), "claims " + text + " array elements");
    }
  }
}

TEST(GgufMetadata, StringInsideAnArrayThatLiesIsRefused) {
  const GgufBytes array =
      GgufBytes().put(uint32_t{8}).put(uint64_t{2}).put_string("fine").put(uint64_t{1} << 40);
  expect_refused(GgufWriter().set_raw("a", 9, array), "string of 1099511627776 bytes");
}

TEST(GgufMetadata, SixtyFourMebibytesAreTheLongestString) {
  std::string text(64u << 20, 'x');
  EXPECT_TRUE(parse_gguf(GgufWriter().set("s", text).build(), "test"));
  text += 'x';
  expect_refused(GgufWriter().set("s", text), "at most 64.0 MiB");
}

TEST(GgufMetadata, ArraysOfAFileAreLimitedTogether) {
  // 2^24 + 1 elements, in three arrays of 8-bit integers.
  const std::vector<uint8_t> third((1u << 24) / 3 + 1);
  const auto bytes = GgufWriter().set("a", third).set("b", third).set("c", third).build();
  const auto file = parse_gguf(bytes, "test");
  ASSERT_FALSE(file);
  EXPECT_NE(file.error().message.find("above 16777216"), std::string::npos);
}

TEST(GgufMetadata, UnknownTypesAndValuesAreRefused) {
  for (const uint32_t type : {13u, 255u, 0x80000000u, UINT32_MAX}) {
    const std::string text = std::to_string(type);
    expect_refused(GgufWriter().set_raw("x", type, GgufBytes().put(uint8_t{0})),
                   "value type " + text);
    const GgufBytes array = GgufBytes().put(type).put(uint64_t{0});
    expect_refused(GgufWriter().set_raw("x", 9, array), "array of type " + text);
  }
  expect_refused(GgufWriter().set_raw("x", 7, GgufBytes().put(uint8_t{2})), "2 as a boolean");
  const GgufBytes bools = GgufBytes().put(uint32_t{7}).put(uint64_t{1}).put(uint8_t{255});
  expect_refused(GgufWriter().set_raw("x", 9, bools), "255 as a boolean");
  const uint64_t too_large = uint64_t{1} << 63;
  expect_refused(GgufWriter().set("x", too_large), "holds 9223372036854775808");
  expect_refused(GgufWriter().set("x", std::vector<uint64_t>{too_large}),
                 "holds 9223372036854775808");
}

TEST(GgufMetadata, ArraysOfArraysAreRefused) {
  const GgufBytes nested = GgufBytes().put(uint32_t{9}).put(uint64_t{0});
  expect_refused(GgufWriter().set_raw("x", 9, nested), "array of arrays");
}

TEST(GgufMetadata, AlignmentMustBeAPowerOfTwoInRange) {
  for (const int64_t alignment : {INT64_MIN, int64_t{-32}, int64_t{0}, int64_t{1}, int64_t{4},
                                  int64_t{12}, int64_t{33}, int64_t{1} << 21, INT64_MAX}) {
    expect_refused(GgufWriter().set("general.alignment", alignment),
                   "general.alignment is " + std::to_string(alignment));
  }
  expect_refused(GgufWriter().set("general.alignment", 32.0f), "must be an integer");
}

GgufWriter one_entry(const std::vector<int64_t>& dims, int32_t type, uint64_t offset) {
  GgufWriter writer;
  writer.add_tensor_entry("t", dims, type, offset).add_data(256);
  return writer;
}

TEST(GgufTensors, NamesMustDiffer) {
  GgufWriter writer = small_file();
  writer.add_tensor("norm", {1}, std::vector<float>{1});
  expect_refused(writer, "tensor 'norm' appears twice");
  expect_refused(GgufWriter().add_tensor("", {1}, std::vector<float>{1}), "name of 0 bytes");
}

TEST(GgufTensors, ForeignBytesInNamesAreEscaped) {
  expect_refused(GgufWriter().add_tensor_entry("\x1b]0;\x07", {1}, 99, 0),
                 "tensor '\\x1b]0;\\x07'");
}

TEST(GgufTensors, DimensionsMustBeOneToFourPositiveNumbers) {
  expect_refused(one_entry({}, 0, 0), "0 dimensions");
  expect_refused(one_entry({1, 1, 1, 1, 1}, 0, 0), "5 dimensions");
  expect_refused(one_entry({0}, 0, 0), "dimension of 0");
  expect_refused(one_entry({4, 0}, 0, 0), "dimension of 0");
  expect_refused(one_entry({4, -1}, 0, 0), "dimension of 18446744073709551615");
}

TEST(GgufTensors, NumberOfDimensionsThatWouldOverrunIsRefused) {
  GgufBytes bytes;
  bytes.header(3, 1, 0).put_string("t").put(UINT32_MAX).pad_to(256);
  expect_refused(bytes, "4294967295 dimensions");
}

TEST(GgufTensors, ProductsThatOverflowAreRefused) {
  const int64_t k32 = int64_t{1} << 32;
  for (const auto& dims : std::vector<std::vector<int64_t>>{{k32, k32},
                                                            {INT64_MAX, 2},
                                                            {INT64_MAX},
                                                            {k32, k32 / 2},
                                                            {1 << 16, 1 << 16, 1 << 16, 1 << 16},
                                                            {4, INT64_MAX, INT64_MAX, INT64_MAX}}) {
    expect_refused(one_entry(dims, 0, 0), "no possible size");
  }
  // Fits 64 bits, but not the file.
  expect_refused(one_entry({int64_t{1} << 40}, 0, 0), "outside the");
}

TEST(GgufTensors, TypesMustBeKnownAndRowsWholeBlocks) {
  for (const int32_t type : {-1, 4, 5, 99, INT32_MAX, INT32_MIN}) {  // 4, 5: dropped by ggml
    expect_refused(one_entry({32}, type, 0), "type " + std::to_string(type));
  }
  expect_refused(one_entry({33}, 8, 0), "multiple of 32");
  expect_refused(one_entry({16, 2}, 8, 0), "multiple of 32");  // two rows of half a block
}

TEST(GgufTensors, DataMustBeAlignedAndInsideTheFile) {
  EXPECT_TRUE(parse_gguf(one_entry({64}, 0, 0).build(), "test"));
  expect_refused(one_entry({4}, 0, 4), "multiple of 32");
  expect_refused(one_entry({65}, 0, 0), "outside the");
  expect_refused(one_entry({64}, 0, 32), "outside the");
  expect_refused(one_entry({1}, 0, 256), "outside the");
  for (const uint64_t offset : {kHuge, UINT64_MAX - 31, uint64_t{1} << 63}) {
    expect_refused(one_entry({1}, 0, offset), "outside the");
  }
}

TEST(GgufTensors, DataMustNotOverlap) {
  GgufWriter writer;
  writer.add_tensor_entry("b", {8}, 0, 64).add_tensor_entry("a", {17}, 0, 0).add_data(128);
  expect_refused(writer, "tensor 'a' and of tensor 'b' overlap");
  GgufWriter same;
  same.add_tensor_entry("a", {8}, 0, 0).add_tensor_entry("b", {8}, 0, 0).add_data(128);
  expect_refused(same, "overlap");
}

TEST(GgufDamage, EveryTruncationIsRefused) {
  const auto whole = small_file().build();
  ASSERT_TRUE(parse_gguf(whole, "test"));
  for (size_t size = 0; size < whole.size(); ++size) {
    // A copy of its own, so that the sanitizer sees a read behind the end.
    const std::vector<std::byte> cut(whole.begin(), whole.begin() + static_cast<long>(size));
    expect_refused(cut, "");
  }
}

// Reads all that a parsed file points at.
uint64_t touch(const ParsedGguf& file) {
  uint64_t sum = 0;
  const auto add = [&](std::string_view text) {
    for (const char c : text) sum += static_cast<unsigned char>(c);
  };
  for (const auto& [key, value] : file.metadata) {
    add(key);
    if (const auto* text = std::get_if<std::string_view>(&value)) add(*text);
    const auto* array = std::get_if<MetaArray>(&value);
    if (array == nullptr) continue;
    const auto* texts = std::get_if<std::vector<std::string_view>>(&array->items);
    if (texts == nullptr) continue;
    for (const std::string_view text : *texts) add(text);
  }
  for (const TensorInfo& tensor : file.tensors) {
    const Weight weight = tensor.weight();
    EXPECT_EQ(static_cast<uint64_t>(weight.rows * weight.row_bytes), tensor.data.size());
    for (const std::byte b : tensor.data) sum += static_cast<unsigned char>(b);
  }
  return sum;
}

TEST(GgufDamage, RandomChangesGiveAFileOrASentence) {
  const auto whole = small_file().build();
  std::mt19937 random(42);
  int accepted = 0;
  uint64_t sum = 0;
  for (int i = 0; i < 20000; ++i) {
    std::vector<std::byte> bytes = whole;
    for (uint32_t n = random() % 3 + 1; n > 0; --n) {
      bytes[random() % bytes.size()] ^= std::byte(1u << (random() % 8));
    }
    allocated_bytes = 0;
    const auto file = parse_gguf(bytes, "test");
    ASSERT_LT(allocated_bytes, 64u << 10);
    if (!file) continue;
    ++accepted;
    sum += touch(*file);
  }
  EXPECT_GT(accepted, 0);  // a flip inside data or a string is no damage
  EXPECT_GT(sum, 0u);
}

TEST(GgufDamage, SmallFileThatAsksForAGigabyteGetsNoMemory) {
  for (const uint64_t count : {uint64_t{1} << 27, uint64_t{1} << 30, kHuge}) {
    const std::string text = std::to_string(count);
    GgufBytes array;
    array.put(uint32_t{11}).put(count).pad_to(100);
    GgufWriter writer;
    expect_refused(writer.set_raw("a", 9, array), "claims " + text);
    ASSERT_LE(writer.build().size(), 160u);
    GgufBytes tensors;
    expect_refused(tensors.header(3, count, 0).pad_to(160), "claims " + text);
    GgufBytes keys;
    expect_refused(keys.header(3, 0, count).pad_to(160), "claims " + text);
  }
}

}  // namespace
}  // namespace banyan
