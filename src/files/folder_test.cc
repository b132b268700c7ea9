// SPDX-License-Identifier: Apache-2.0
// Hugging Face folders, whole and broken.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <utility>

#include "base/testing_temp_folder.h"
#include "files/model_file.h"
#include "files/testing_safetensors_writer.h"

namespace banyan {
namespace {

constexpr const char* kConfig = R"({"model_type":"llama","hidden_size":64})";
constexpr const char* kIndexName = "model.safetensors.index.json";

std::string norm_file(const std::string& tensor = "norm") {
  return SafetensorsWriter().add(tensor, {2}, {1, 2}).build();
}

class Folder : public testing::Test {
 protected:
  std::string path() const { return folder_.path().string(); }
  void write(const std::string& name, std::string_view text) { folder_.write(name, text); }
  void write_index(const std::string& map) {
    write(kIndexName, fmt::format(R"({{"metadata":{{"total_size":16}},"weight_map":{}}})", map));
  }

  void expect_refused(const std::string& where, const std::string& why) {
    const auto file = ModelFile::open(path());
    ASSERT_FALSE(file) << why;
    EXPECT_EQ(file.error().code, ErrorCode::kBadInput);
    EXPECT_NE(file.error().message.find(where), std::string::npos) << file.error().message;
    EXPECT_NE(file.error().message.find(why), std::string::npos) << file.error().message;
    for (const char c : file.error().message) EXPECT_TRUE(c >= 0x20 && c < 0x7f);
  }

  TempFolder folder_;
};

TEST_F(Folder, ConfigBecomesMetadata) {
  write("config.json",
        R"({"i":3,"f":0.5,"b":true,"s":"text","big":18446744073709551615,"none":null,
            "nest":{"deep":{"x":1},"gone":null},"ints":[1,2],"mixed":[1,2.5],"flags":[true,false],
            "words":["a","b"],"objects":[{"a":1}],"odd":[1,"a"],"empty":{},"list":[]})");
  write("model.safetensors", norm_file());
  auto opened = ModelFile::open(path() + "/");
  ASSERT_TRUE(opened) << opened.error().message;
  const ModelFile file = std::move(*opened);  // views move with it
  EXPECT_EQ(file.format(), ModelFormat::kFolder);
  EXPECT_EQ(*file.integer("i"), 3);
  EXPECT_EQ(*file.number("f"), 0.5);
  EXPECT_EQ(*file.boolean("b"), true);
  EXPECT_EQ(**file.string("s"), "text");
  EXPECT_FALSE(file.integer("big")) << "past what int64 holds";
  EXPECT_EQ(*file.number("big"), 18446744073709551616.0);
  EXPECT_EQ(file.find("none"), nullptr);
  EXPECT_TRUE(file.is_null("none"));
  EXPECT_TRUE(file.is_null("nest.gone"));
  EXPECT_FALSE(file.is_null("absent"));
  EXPECT_EQ(*file.integer("nest.deep.x"), 1);
  const auto items = [&](const char* key) { return std::get<MetaArray>(*file.find(key)).items; };
  EXPECT_EQ(std::get<std::vector<int64_t>>(items("ints")), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(std::get<std::vector<double>>(items("mixed")), (std::vector<double>{1, 2.5}));
  EXPECT_EQ(std::get<std::vector<bool>>(items("flags")), (std::vector<bool>{true, false}));
  EXPECT_EQ(std::get<std::vector<std::string_view>>(items("words"))[1], "b");
  using Words = std::vector<std::string_view>;
  EXPECT_EQ(std::get<Words>(items("odd")), (Words{"", "a"}));
  EXPECT_EQ(std::get<Words>(items("objects")), Words{""});
  for (const char* object : {"nest", "nest.deep", "empty"}) {
    EXPECT_EQ(std::get<Words>(items(object)), Words()) << object;
  }
  EXPECT_FALSE(std::holds_alternative<Words>(items("list")));
  ASSERT_NE(file.tensor("norm"), nullptr);
  EXPECT_EQ(file.file_bytes(), norm_file().size());
}

TEST_F(Folder, SeveralFilesBecomeOneModel) {
  write("config.json", kConfig);
  write("model-00001-of-00002.safetensors", norm_file("a"));
  write("model-00002-of-00002.safetensors", norm_file("b"));
  write_index(R"({"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"})");
  const auto file = ModelFile::open(path());
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->tensors().size(), 2U);
  EXPECT_NE(file->tensor("a"), nullptr);
  EXPECT_NE(file->tensor("b"), nullptr);
  EXPECT_EQ(file->file_bytes(), norm_file("a").size() + norm_file("b").size());
}

// Hubs' caches link names to blobs.
TEST_F(Folder, LinksAreFollowed) {
  write("blobs/1", kConfig);
  write("blobs/2", norm_file());
  std::filesystem::create_symlink("blobs/1", folder_.path() / "config.json");
  std::filesystem::create_symlink("blobs/2", folder_.path() / "model.safetensors");
  EXPECT_TRUE(ModelFile::open(path()));
}

TEST_F(Folder, DataThatDoNotLieAlignedAreReadAllTheSame) {
  write("config.json", kConfig);
  for (const std::string name : {"n", "nn", "nnn", "nnnn"}) {
    write("model.safetensors", SafetensorsWriter().add(name, {2}, {1, 2}).build(/*padded=*/false));
    const auto file = ModelFile::open(path());
    ASSERT_TRUE(file) << file.error().message;
    const TensorInfo* tensor = file->tensor(name);
    ASSERT_NE(tensor, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor->data.data()) % 4, 0U);
    EXPECT_EQ(reinterpret_cast<const float*>(tensor->data.data())[1], 2);
  }
}

TEST_F(Folder, WhatIsMissingIsNamed) {
  expect_refused(path(), "neither model.safetensors nor");
  write("pytorch_model.bin", "x");
  expect_refused("pytorch_model.bin", "weights as safetensors can be read");
  write("model.Q4_0.gguf", "x");
  std::filesystem::remove(folder_.path() / "pytorch_model.bin");
  expect_refused("model.Q4_0.gguf", "give that file itself");
  write("model.safetensors", norm_file());
  expect_refused(path(), "has no config.json");
}

TEST_F(Folder, AdaptersAreRefusedByName) {
  write("adapter_config.json", R"({"peft_type":"LORA"})");
  expect_refused("adapter_config.json", "adapter (LoRA)");
  write("config.json", kConfig);
  write("model.safetensors", norm_file());
  expect_refused("adapter_config.json", "adapter (LoRA)");
  std::filesystem::remove(folder_.path() / "adapter_config.json");
  std::filesystem::create_symlink("nowhere", folder_.path() / "adapter_config.json");
  expect_refused("adapter_config.json", "adapter (LoRA)");
}

TEST_F(Folder, ConfigsThatAreNoneAreRefused) {
  write("model.safetensors", norm_file());
  write("config.json", "");
  expect_refused("config.json", "is empty");
  write("config.json", "[1]");
  expect_refused("config.json", "no JSON object");
  write("config.json", "{\"a\":\"\xff\"}");
  expect_refused("config.json", "not valid JSON at byte");
  write("config.json", R"({"a":1,"a":2})");
  expect_refused("config.json", "twice");
  write("config.json", R"({"a.b":1,"a":{"b":2}})");
  expect_refused("config.json", "joined by dots");
  std::string deep;
  for (int i = 0; i < 700000; ++i) deep += "{\"a\":";  // 3.5 MB
  write("config.json", deep);
  expect_refused("config.json", "deeper");
  write("config.json", std::string(5 << 20, ' '));
  expect_refused("config.json", "at most 4.0 MiB");
  std::filesystem::remove(folder_.path() / "config.json");
  std::filesystem::create_directory(folder_.path() / "config.json");
  expect_refused("config.json", "directory");
  std::filesystem::remove(folder_.path() / "config.json");
  std::filesystem::create_symlink("config.json", folder_.path() / "config.json");
  expect_refused("config.json", "symbolic links");
}

TEST_F(Folder, IndexesThatLieAreRefused) {
  write("config.json", kConfig);
  write("a.safetensors", norm_file("a"));
  write("b.safetensors", norm_file("b"));
  write(kIndexName, "{}");
  expect_refused(kIndexName, "no weight_map");
  write(kIndexName, R"({"weight_map":[]})");
  expect_refused(kIndexName, "no weight_map");
  write_index("{}");
  expect_refused(kIndexName, "no weight_map");
  write_index(R"({"a":7})");
  expect_refused(kIndexName, "tensor 'a' is not in a file of this folder");
  for (const std::string out : {"../a.safetensors", "/etc/passwd", "sub/a.safetensors", "..",
                                "config.json", "", "a\\u0000.safetensors"}) {
    write_index(fmt::format(R"({{"a":"{}"}})", out));
    expect_refused(kIndexName, "is not in a file of this folder");
  }
  write_index(R"({"a":"c.safetensors"})");
  expect_refused("c.safetensors", "No such file");
  write_index(R"({"x":"a.safetensors"})");
  expect_refused("a.safetensors", "tensor 'x' is not in it");
  write_index(R"({"a":"b.safetensors"})");
  expect_refused("b.safetensors", "tensor 'a' is not in it");
  write("c.safetensors", norm_file("a"));
  write_index(R"({"a":"a.safetensors","b":"b.safetensors","a2":"c.safetensors"})");
  expect_refused("c.safetensors", "tensor 'a2' is not in it");
  write("c.safetensors", SafetensorsWriter().add("a", {1}, {1}).add("z", {1}, {1}).build());
  write_index(R"({"a":"a.safetensors","z":"c.safetensors"})");
  expect_refused("c.safetensors", "tensor 'a' is in another file");
}

TEST_F(Folder, FilesThatPointAtThemselvesAreRefused) {
  write("config.json", kConfig);
  std::filesystem::create_symlink("model.safetensors", folder_.path() / "model.safetensors");
  expect_refused("model.safetensors", "symbolic links");
  std::filesystem::remove(folder_.path() / "model.safetensors");
  write_index(R"({"a":"a.safetensors"})");
  std::filesystem::create_symlink("b.safetensors", folder_.path() / "a.safetensors");
  std::filesystem::create_symlink("a.safetensors", folder_.path() / "b.safetensors");
  expect_refused("a.safetensors", "symbolic links");
  std::filesystem::remove(folder_.path() / "a.safetensors");
  std::filesystem::create_symlink(kIndexName, folder_.path() / "a.safetensors");
  expect_refused("a.safetensors", "header of");
}

}  // namespace
}  // namespace banyan
