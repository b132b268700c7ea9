// SPDX-License-Identifier: Apache-2.0
#include "files/safetensors.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "files/testing_safetensors_writer.h"

namespace banyan {
namespace {

using namespace std::string_literals;

TEST(Safetensors, NamesTypesAndShapesItsTensors) {
  SafetensorsWriter writer;
  writer.add("b", {2, 3}, {1, 2, 3, 4, 5, 6});
  writer.add("a", "BF16", {1, 2, 2, 1}, std::string(8, '\1'));
  writer.add("c", "F16", {}, "xy");
  const std::string image = writer.build();
  const auto parsed = parse_safetensors(bytes_of(image), "name");
  ASSERT_TRUE(parsed) << parsed.error().message;
  ASSERT_EQ(parsed->tensors.size(), 3U);
  EXPECT_EQ(parsed->tensors[0].name, "a");
  EXPECT_EQ(parsed->tensors[0].type, DType::kBF16);
  EXPECT_EQ(parsed->tensors[0].dims, (std::vector<int64_t>{1, 2, 2, 1}));
  EXPECT_EQ(parsed->tensors[1].dims, (std::vector<int64_t>{3, 2})) << "the row length first";
  float third = 0;
  std::memcpy(&third, parsed->tensors[1].data.data() + 8, sizeof(third));
  EXPECT_EQ(third, 3);
  EXPECT_EQ(parsed->tensors[2].dims, (std::vector<int64_t>{1}));
}

TEST(Safetensors, TypesThatNoWeightHasAreListedApart) {
  SafetensorsWriter writer;
  writer.add("i", "I64", {1}, std::string(8, '\0'));
  writer.add("q", "F8_E4M3", {3}, "abc");
  writer.add("new", "F4\x1b", {3}, "abc");
  writer.add("none", "F32", {0, 4}, "");
  writer.add("deep", "U8", {1, 1, 1, 1, 1}, "a");
  const std::string image = writer.build();
  const auto parsed = parse_safetensors(bytes_of(image), "name");
  ASSERT_FALSE(parsed) << "an escape is no JSON";
  SafetensorsWriter good;
  good.add("i", "I64", {1}, std::string(8, '\0')).add("q", "F8_E4M3", {3}, "abc");
  good.add("new", "F4", {3}, "abc")
      .add("none", "F32", {0, 4}, "")
      .add("deep", "F32", {1, 1, 1, 1, 1}, "abcd");
  const std::string better = good.build();
  const auto apart = parse_safetensors(bytes_of(better), "name");
  ASSERT_TRUE(apart) << apart.error().message;
  EXPECT_TRUE(apart->tensors.empty());
  EXPECT_EQ(apart->foreign.size(), 5U);
  EXPECT_EQ(apart->foreign.at("q"), "F8_E4M3");
  EXPECT_EQ(apart->foreign.at("new"), "F4");
}

TEST(Safetensors, FreeTextOfTheHeaderIsPassedOver) {
  const std::string image = safetensors_image(R"({"__metadata__":{"format":"pt"}})", "");
  const auto parsed = parse_safetensors(bytes_of(image), "name");
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_TRUE(parsed->tensors.empty());
}

void expect_refused(const std::string& image, const std::string& why) {
  const auto parsed = parse_safetensors(bytes_of(image), "some/model.safetensors");
  ASSERT_FALSE(parsed) << why;
  EXPECT_EQ(parsed.error().code, ErrorCode::kBadInput);
  EXPECT_NE(parsed.error().message.find("some/model.safetensors"), std::string::npos);
  EXPECT_NE(parsed.error().message.find(why), std::string::npos) << parsed.error().message;
  for (const char c : parsed.error().message) {
    EXPECT_TRUE(c >= 0x20 && c < 0x7f) << parsed.error().message;
  }
}

// One tensor as the header says it, over 8 bytes of data.
void expect_entry_refused(const std::string& entry, const std::string& why) {
  expect_refused(safetensors_image(fmt::format("{{\"t\":{}}}", entry), std::string(8, '\0')), why);
}

TEST(Safetensors, HeadersThatLieAreRefused) {
  expect_refused("", "too short");
  expect_refused("1234567", "too short");
  expect_refused("\xff\xff\xff\xff\xff\xff\xff\x7f{}", "header of 9223372036854775807 bytes");
  expect_refused("\0\0\0\0\0\0\0\x40{}"s, "header of 4611686018427387904 bytes");
  expect_refused("\3\0\0\0\0\0\0\0{}"s, "header of 3 bytes");
  expect_refused("\0\0\0\0\0\0\0\0"s, "not valid JSON at byte");
  expect_refused(safetensors_image("[]", ""), "no JSON object");
  expect_refused(safetensors_image("{\"a\":", ""), "not valid JSON at byte");
  expect_refused(safetensors_image("{\"\xff\":{}}", ""), "not valid JSON at byte");
  std::string deep = "{\"t\":";
  for (int i = 0; i < 1000000; ++i) deep += '[';
  expect_refused(safetensors_image(deep, ""), "deeper than 64");
  expect_refused(safetensors_image(R"({"t":{},"t":{}})", ""), "has the key 't' twice");
}

TEST(Safetensors, EntriesOfOtherFormsAreRefused) {
  const std::string form = "is not described by a dtype";
  for (const std::string entry : {"7", "{}", "null", R"({"dtype":"F32","shape":[2]})",
                                  R"({"dtype":32,"shape":[2],"data_offsets":[0,8]})",
                                  R"({"dtype":"F32","shape":2,"data_offsets":[0,8]})",
                                  R"({"dtype":"F32","shape":[2],"data_offsets":[0]})",
                                  R"({"dtype":"F32","shape":[2],"data_offsets":[0,8,9]})",
                                  R"({"dtype":"F32","shape":[2],"data_offsets":[0,8.0]})",
                                  R"({"dtype":"F32","shape":[2],"data_offsets":[-8,0]})",
                                  R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})",
                                  R"({"dtype":"F32","shape":["2"],"data_offsets":[0,8]})",
                                  R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})"}) {
    expect_entry_refused(entry, form);
  }
}

TEST(Safetensors, SizesThatCannotBeAreRefused) {
  expect_entry_refused(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})",
                       "claims bytes 8 to 0");
  expect_entry_refused(R"({"dtype":"F32","shape":[3],"data_offsets":[0,12]})",
                       "claims bytes 0 to 12 of the 8");
  expect_entry_refused(R"({"dtype":"F32","shape":[2],"data_offsets":[0,4611686018427387904]})",
                       "claims bytes 0 to 4611686018427387904");
  expect_entry_refused(
      R"({"dtype":"F32","shape":[2],"data_offsets":[18446744073709551608,18446744073709551615]})",
      "claims bytes");
  expect_entry_refused(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})", "which is not what");
  expect_entry_refused(R"({"dtype":"F16","shape":[2],"data_offsets":[0,8]})", "which is not what");
  // Products that wrap around to what is there.
  expect_entry_refused(R"({"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]})",
                       "which is not what");
  expect_entry_refused(R"({"dtype":"F64","shape":[2305843009213693953],"data_offsets":[0,8]})",
                       "which is not what");
}

TEST(Safetensors, DataTileTheFile) {
  const auto two = [](const std::string& a, const std::string& b, size_t bytes) {
    const auto entry = [](const std::string& offsets) {
      return fmt::format(R"({{"dtype":"F32","shape":[2],"data_offsets":{}}})", offsets);
    };
    return safetensors_image(fmt::format("{{\"a\":{},\"b\":{}}}", entry(a), entry(b)),
                             std::string(bytes, '\0'));
  };
  EXPECT_TRUE(parse_safetensors(bytes_of(two("[8,16]", "[0,8]", 16)), "name"));
  expect_refused(two("[0,8]", "[0,8]", 16), "overlaps");
  expect_refused(two("[0,8]", "[4,12]", 12), "overlaps");
  expect_refused(two("[0,8]", "[12,20]", 20), "begins at byte 12 of the data, where 8");
  expect_refused(two("[4,12]", "[12,20]", 20), "begins at byte 4 of the data, where 0");
  expect_refused(two("[0,8]", "[8,16]", 17), "take 16 of 17 bytes");
}

// Whatever is flipped or cut: parsed or refused, and what is parsed can be read.
TEST(Safetensors, DamagedFilesAreParsedOrRefused) {
  SafetensorsWriter writer;
  writer.add("model.norm.weight", {4}, {1, 2, 3, 4});
  writer.add("lm_head.weight", "BF16", {2, 2}, "abcdefgh");
  const std::string good = writer.build();
  std::mt19937 random(3);
  int parsed_ones = 0;
  for (int trial = 0; trial < 20000; ++trial) {
    std::string image = good.substr(0, trial % 3 == 0 ? random() % (good.size() + 1) : good.size());
    for (uint32_t flips = random() % 4; flips > 0 && !image.empty(); --flips) {
      image[random() % image.size()] = static_cast<char>(random());
    }
    const auto parsed = parse_safetensors(bytes_of(image), "name");
    if (!parsed) continue;
    ++parsed_ones;
    for (const TensorInfo& tensor : parsed->tensors) {
      const Weight weight = tensor.weight();
      EXPECT_EQ(static_cast<uint64_t>(weight.rows * weight.row_bytes), tensor.data.size());
      EXPECT_GE(tensor.data.data(), bytes_of(image).data());
      EXPECT_LE(tensor.data.data() + tensor.data.size(), bytes_of(image).data() + image.size());
    }
  }
  EXPECT_GT(parsed_ones, 100);
}

}  // namespace
}  // namespace banyan
