// SPDX-License-Identifier: Apache-2.0
#include "files/product_paths_file.h"

#include <gtest/gtest.h>

#include <random>

namespace banyan {
namespace {

const PathsKey kKey = {"Some CPU \"x\"", "avx2", "1, oneDNN 2", 4};

MeasuredPaths random_paths(uint32_t seed) {
  std::mt19937 random(seed);
  MeasuredPaths measured;
  for (int w = 0; w < kWeightClasses; ++w) {
    for (int r = 0; r < kRowClasses; ++r) {
      measured.paths.path[w][r] = ProductPath{static_cast<uint8_t>(random() % kProductPaths)};
      for (double& rate : measured.gflops[w][r]) rate = static_cast<double>(random() % 9) / 2;
    }
  }
  return measured;
}

TEST(ProductPathsFile, ComesBackAsItWasWritten) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const MeasuredPaths measured = random_paths(seed);
    const auto read = read_product_paths(write_product_paths(measured, kKey), "f", kKey);
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(read->paths, measured.paths);
    EXPECT_EQ(read->gflops, measured.gflops);
  }
}

TEST(ProductPathsFile, IsForItsKeyOnly) {
  const std::string text = write_product_paths(random_paths(1), kKey);
  for (const PathsKey& other : {PathsKey{"Another", "avx2", "1, oneDNN 2", 4},
                                PathsKey{kKey.cpu, "avx512", "1, oneDNN 2", 4},
                                PathsKey{kKey.cpu, "avx2", "2, oneDNN 2", 4},
                                PathsKey{kKey.cpu, "avx2", "1, oneDNN 2", 8}}) {
    const auto read = read_product_paths(text, "some/file", other);
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().message.find("'some/file': its "), 0U) << read.error().message;
  }
}

TEST(ProductPathsFile, IsRefusedWhereItIsDamaged) {
  const std::string text = write_product_paths(random_paths(2), kKey);
  const size_t whole = text.rfind('}');
  for (size_t size = 0; size <= whole; ++size) {
    EXPECT_FALSE(read_product_paths(text.substr(0, size), "f", kKey)) << size;
  }
  std::mt19937 random(3);
  for (int trial = 0; trial < 2000; ++trial) {
    std::string flipped = text;
    for (int i = 0; i < 3; ++i) flipped[random() % whole] = static_cast<char>(random() % 128);
    const auto read = read_product_paths(flipped, "f", kKey);
    if (!read) {
      EXPECT_EQ(read.error().code, ErrorCode::kBadInput);
    }
  }
  for (const char* other : {"[]", "7", "{}", R"({"paths":[]})"}) {
    EXPECT_FALSE(read_product_paths(other, "f", kKey)) << other;
  }
}

}  // namespace
}  // namespace banyan
