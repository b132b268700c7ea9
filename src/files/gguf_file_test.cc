// SPDX-License-Identifier: Apache-2.0
// Shards of GGUF models, whole and broken, and adapters.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "base/testing_temp_folder.h"
#include "files/model_file.h"
#include "files/testing_gguf_writer.h"

namespace banyan {
namespace {

class Shards : public testing::Test {
 protected:
  std::string path(int index, int count) const {
    char name[64];
    std::snprintf(name, sizeof(name), "m-%05d-of-%05d.gguf", index + 1, count);
    return (folder_.path() / name).string();
  }

  // Shard `index` of `count` as it says itself, with one tensor, under the name of shard `named`.
  GgufWriter shard(int index, int count, const std::string& tensor) {
    GgufWriter writer;
    if (index == 0) writer.set("general.architecture", "llama");
    writer.set("split.no", static_cast<uint16_t>(index));
    writer.set("split.count", static_cast<uint16_t>(count));
    writer.set("split.tensors.count", int32_t{3});
    writer.add_tensor(tensor, {2}, std::vector<float>{float(index), 7});
    return writer;
  }

  void write_three() {
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE(shard(i, 3, fmt::format("t{}", i)).write(path(i, 3)));
    }
  }

  void expect_refused(const std::string& file, const std::string& where, const std::string& why) {
    const auto opened = ModelFile::open(file);
    ASSERT_FALSE(opened) << why;
    EXPECT_EQ(opened.error().code, ErrorCode::kBadInput);
    EXPECT_NE(opened.error().message.find(where), std::string::npos) << opened.error().message;
    EXPECT_NE(opened.error().message.find(why), std::string::npos) << opened.error().message;
  }

  TempFolder folder_;
};

TEST_F(Shards, TheFirstBringsTheOthers) {
  write_three();
  const auto file = ModelFile::open(path(0, 3));
  ASSERT_TRUE(file) << file.error().message;
  ASSERT_EQ(file->tensors().size(), 3U);
  for (int i = 0; i < 3; ++i) {
    const TensorInfo* tensor = file->tensor(fmt::format("t{}", i));
    ASSERT_NE(tensor, nullptr);
    EXPECT_EQ(*reinterpret_cast<const float*>(tensor->data.data()), i);
  }
  uint64_t bytes = 0;
  for (int i = 0; i < 3; ++i) bytes += std::filesystem::file_size(path(i, 3));
  EXPECT_EQ(file->file_bytes(), bytes);
  EXPECT_EQ(*file->string("general.architecture"), "llama");
}

TEST_F(Shards, TheOnlyOneIsAWholeModel) {
  for (const uint16_t count : {uint16_t{0}, uint16_t{1}}) {
    const std::string file = (folder_.path() / "one.gguf").string();
    ASSERT_TRUE(GgufWriter().set("split.count", count).write(file));
    EXPECT_TRUE(ModelFile::open(file));
  }
}

TEST_F(Shards, AnotherThanTheFirstIsSentToTheFirst) {
  write_three();
  expect_refused(path(1, 3), path(1, 3),
                 "it is shard 2 of 3; the first, whose name ends in -00001");
}

TEST_F(Shards, MissingOnesAreNamed) {
  write_three();
  std::filesystem::remove(path(2, 3));
  expect_refused(path(0, 3), path(2, 3), "must lie beside each other");
}

TEST_F(Shards, NamesThatTellNothingAreRefused) {
  const std::string file = (folder_.path() / "renamed.gguf").string();
  ASSERT_TRUE(shard(0, 3, "t0").write(file));
  expect_refused(file, "renamed.gguf", "-00001-of-00003.gguf");
}

TEST_F(Shards, OnesThatAreOthersAreRefused) {
  write_three();
  ASSERT_TRUE(shard(0, 3, "t1").write(path(1, 3)));
  expect_refused(path(0, 3), path(1, 3), "says that it is shard 1 of 3; by its name it would be 2");
  ASSERT_TRUE(shard(1, 4, "t1").write(path(1, 3)));
  expect_refused(path(0, 3), path(1, 3), "shard 2 of 4");
  // A circle: the second is a link to the first.
  std::filesystem::remove(path(1, 3));
  std::filesystem::create_symlink(path(0, 3), path(1, 3));
  expect_refused(path(0, 3), path(1, 3), "says that it is shard 1 of 3");
}

TEST_F(Shards, ATensorStandsInOne) {
  write_three();
  ASSERT_TRUE(shard(2, 3, "t0").write(path(2, 3)));
  expect_refused(path(0, 3), path(2, 3), "tensor 't0' is in another file");
}

TEST_F(Shards, TheyHoldAllTensorsTogether) {
  write_three();
  GgufWriter writer = shard(2, 3, "t2");
  writer.add_tensor("t3", {1}, std::vector<float>{1});
  ASSERT_TRUE(writer.write(path(2, 3)));
  expect_refused(path(0, 3), path(0, 3), "its 3 shards hold 4 tensors; it says 3");
}

TEST_F(Shards, CountsThatCannotBeAreRefused) {
  const std::string file = path(0, 2);
  ASSERT_TRUE(GgufWriter().set("split.count", "three").write(file));
  expect_refused(file, file, "must be an integer");
  ASSERT_TRUE(GgufWriter().set("split.count", uint64_t{1} << 62).write(file));
  expect_refused(file, file, "4611686018427387904");
  ASSERT_TRUE(GgufWriter().set("split.count", int64_t{-2}).write(file));
  EXPECT_TRUE(ModelFile::open(file)) << "no shards are one file";
  ASSERT_TRUE(
      GgufWriter().set("split.count", uint16_t{2}).set("split.no", int64_t{-1}).write(file));
  expect_refused(file, file, "it is shard 0 of 2");
}

TEST_F(Shards, AdaptersAreRefusedByName) {
  const std::string file = (folder_.path() / "lora.gguf").string();
  ASSERT_TRUE(GgufWriter()
                  .set("general.architecture", "llama")
                  .set("general.type", "adapter")
                  .set("adapter.type", "lora")
                  .write(file));
  expect_refused(file, "lora.gguf", "adapter (LoRA)");
  ASSERT_TRUE(GgufWriter().set("general.type", "model").write(file));
  EXPECT_TRUE(ModelFile::open(file));
}

}  // namespace
}  // namespace banyan
