// SPDX-License-Identifier: Apache-2.0
#include "files/model_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "base/testing_temp_folder.h"
#include "files/testing_gguf_writer.h"

namespace banyan {
namespace {

ModelFile open_file(const TempFolder& folder, const GgufWriter& writer) {
  const std::string path = (folder.path() / "model.gguf").string();
  EXPECT_TRUE(writer.write(path));
  auto file = ModelFile::open_gguf(path);
  EXPECT_TRUE(file) << file.error().message;
  return std::move(*file);
}

TEST(ModelFile, LooksUpByKeyAndName) {
  const TempFolder folder;
  GgufWriter writer;
  writer.set("llama.block_count", uint32_t{3}).set("name", "tiny");
  writer.add_tensor("a", {2}, std::vector<float>{1, 2}).add_tensor("b", {1}, std::vector<float>{3});
  const ModelFile file = open_file(folder, writer);
  EXPECT_EQ(file.path(), (folder.path() / "model.gguf").string());
  EXPECT_EQ(file.file_bytes(), writer.build().size());
  EXPECT_EQ(std::get<int64_t>(*file.find("llama.block_count")), 3);
  EXPECT_EQ(file.find("llama.block"), nullptr);
  ASSERT_NE(file.tensor("b"), nullptr);
  EXPECT_EQ(*reinterpret_cast<const float*>(file.tensor("b")->data.data()), 3);
  EXPECT_EQ(file.tensor("c"), nullptr);
  EXPECT_EQ(file.tensors()[0].name, "a");
}

TEST(ModelFile, MovesWithItsViews) {
  const TempFolder folder;
  ModelFile first = open_file(folder, GgufWriter().set("name", "tiny"));
  const ModelFile second = std::move(first);
  EXPECT_EQ(**second.string("name"), "tiny");
}

TEST(ModelFile, TypedLookupsGiveTheValueOrNothing) {
  const TempFolder folder;
  GgufWriter writer;
  writer.set("i", int8_t{-5}).set("f", 0.5f).set("b", true).set("s", "text");
  const ModelFile file = open_file(folder, writer);
  EXPECT_EQ(*file.integer("i"), -5);
  EXPECT_EQ(*file.number("i"), -5.0);
  EXPECT_EQ(*file.number("f"), 0.5);
  EXPECT_EQ(*file.boolean("b"), true);
  EXPECT_EQ(*file.string("s"), "text");
  EXPECT_EQ(*file.integer("none"), std::nullopt);
  EXPECT_EQ(*file.number("none"), std::nullopt);
  EXPECT_EQ(*file.boolean("none"), std::nullopt);
  EXPECT_EQ(*file.string("none"), std::nullopt);
}

TEST(ModelFile, TypedLookupsOfAnotherTypeNameKeyAndFile) {
  const TempFolder folder;
  GgufWriter writer;
  writer.set("i", int8_t{1}).set("f", 0.5f).set("b", true).set("s", "text");
  writer.set("a", std::vector<int32_t>{1});
  const ModelFile file = open_file(folder, writer);
  const auto expect_wrong = [&](const auto& result, const std::string& key) {
    ASSERT_FALSE(result) << key;
    EXPECT_EQ(result.error().code, ErrorCode::kBadInput);
    EXPECT_NE(result.error().message.find("'" + key + "'"), std::string::npos);
    EXPECT_NE(result.error().message.find(file.path()), std::string::npos);
  };
  for (const std::string key : {"f", "b", "s", "a"}) expect_wrong(file.integer(key), key);
  for (const std::string key : {"b", "s", "a"}) expect_wrong(file.number(key), key);
  for (const std::string key : {"i", "f", "s", "a"}) expect_wrong(file.boolean(key), key);
  for (const std::string key : {"i", "f", "b", "a"}) expect_wrong(file.string(key), key);
}

TEST(ModelFile, BadPathsAndFilesAreNamedAsGiven) {
  const TempFolder folder;
  for (const std::string& path : {(folder.path() / "absent.gguf").string(), folder.path().string(),
                                  folder.write("empty.gguf", ""), folder.write("x.gguf", "hello"),
                                  folder.write("short.gguf", "GGUF\3")}) {
    const auto file = ModelFile::open_gguf(path);
    ASSERT_FALSE(file) << path;
    EXPECT_EQ(file.error().code, ErrorCode::kBadInput);
    EXPECT_NE(file.error().message.find("'" + path + "'"), std::string::npos)
        << file.error().message;
  }
}

class RealFiles : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(kFolder)) GTEST_SKIP() << "the collection of models is not here";
  }
  static constexpr const char* kFolder = BANYAN_SHARED_DATA;
};

TEST_F(RealFiles, AllOpen) {
  int n_files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(kFolder)) {
    if (entry.path().extension() != ".gguf") continue;
    const auto file = ModelFile::open_gguf(entry.path().string());
    ASSERT_TRUE(file) << file.error().message;
    ++n_files;
    const auto architecture = file->string("general.architecture");
    ASSERT_TRUE(architecture) << architecture.error().message;
    EXPECT_TRUE(architecture->has_value()) << entry.path();
    uint64_t tensor_bytes = 0;
    for (const TensorInfo& tensor : file->tensors()) tensor_bytes += tensor.data.size();
    EXPECT_LT(tensor_bytes, file->file_bytes());
  }
  EXPECT_GT(n_files, 0);
}

TEST_F(RealFiles, StoriesModelIsASmallLlama) {
  const auto file =
      ModelFile::open_gguf(std::string(kFolder) + "/models/stories260K/stories260K.gguf");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(*file->string("general.architecture"), "llama");
  EXPECT_EQ(*file->integer("llama.block_count"), 5);
  EXPECT_EQ(*file->integer("llama.embedding_length"), 64);
  const auto* tokens = std::get_if<MetaArray>(file->find("tokenizer.ggml.tokens"));
  ASSERT_NE(tokens, nullptr);
  EXPECT_EQ(std::get<std::vector<std::string_view>>(tokens->items).size(), 512u);
  const TensorInfo* embedding = file->tensor("token_embd.weight");
  ASSERT_NE(embedding, nullptr);
  EXPECT_EQ(embedding->dims, (std::vector<int64_t>{64, 512}));
}

TEST_F(RealFiles, VocabularyFilesHaveTokensAndNoTensors) {
  const auto file = ModelFile::open_gguf(std::string(kFolder) +
                                         "/tokenizers/llama.cpp-vectors/ggml-vocab-gpt-2.gguf");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_TRUE(file->tensors().empty());
  EXPECT_EQ(*file->string("tokenizer.ggml.model"), "gpt2");
  const auto* tokens = std::get_if<MetaArray>(file->find("tokenizer.ggml.tokens"));
  ASSERT_NE(tokens, nullptr);
  EXPECT_EQ(std::get<std::vector<std::string_view>>(tokens->items).size(), 50257u);
}

}  // namespace
}  // namespace banyan
