// SPDX-License-Identifier: Apache-2.0
// Tokenizers and chat templates of Hugging Face folders.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "base/testing_temp_folder.h"
#include "engine/vocabulary.h"
#include "text/chat_template.h"

namespace banyan {
namespace {

namespace fs = std::filesystem;

void write(const fs::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// A folder with one of the golden tokenizers.
class FolderVocabulary : public testing::Test {
 protected:
  void SetUp() override { use("byte_level"); }
  void use(const std::string& kind) {
    fs::copy(std::string(BANYAN_TEST_DATA "/tokenizers/") + kind + ".json", path("tokenizer.json"),
             fs::copy_options::overwrite_existing);
  }
  fs::path path(const std::string& name) const { return fs::path(folder_.path()) / name; }
  Vocabulary read() const {
    auto vocabulary = read_folder_vocabulary(folder_.path());
    EXPECT_TRUE(vocabulary.has_value()) << vocabulary.error().message;
    return vocabulary ? *std::move(vocabulary) : Vocabulary();
  }
  static TokenId id(const Vocabulary& v, std::string_view text) {
    return static_cast<TokenId>(std::find(v.tokens.begin(), v.tokens.end(), text) -
                                v.tokens.begin());
  }
  TempFolder folder_;
};

TEST_F(FolderVocabulary, TheTokenizerAloneIsEnough) {
  const Vocabulary v = read();
  EXPECT_TRUE(v.add_bos);
  EXPECT_EQ(v.bos, id(v, "<s>"));
  EXPECT_EQ(v.eos, -1);
  EXPECT_TRUE(v.chat_template.empty());
  EXPECT_TRUE(load_folder_tokenizer(folder_.path()).has_value());
}

TEST_F(FolderVocabulary, LaterFilesWin) {
  write(path("special_tokens_map.json"), R"({"eos_token": "<mask>"})");
  EXPECT_EQ(read().eos, id(read(), "<mask>"));
  write(path("tokenizer_config.json"),
        R"({"eos_token": "</s>", "chat_template": "old", "add_bos_token": false})");
  EXPECT_EQ(read().eos, id(read(), "</s>"));
  EXPECT_FALSE(read().add_bos);
  EXPECT_EQ(read().chat_template, "old");
  write(path("chat_template.json"), R"({"chat_template": "middle"})");
  EXPECT_EQ(read().chat_template, "middle");
  write(path("chat_template.jinja"), "new {{ eos_token }}");
  EXPECT_EQ(read().chat_template, "new {{ eos_token }}");
}

TEST_F(FolderVocabulary, EndsAreThoseOfTheGenerationConfigOrElseOfTheConfig) {
  const Vocabulary v = read();
  const auto eos = [&](const char* text) {
    return "{\"eos_token_id\": [" + std::to_string(id(v, text)) + "]}";
  };
  write(path("config.json"), eos("</s>"));
  EXPECT_EQ(read().eos, id(v, "</s>"));
  write(path("generation_config.json"), eos("<mask>"));
  EXPECT_EQ(read().eos, id(v, "<mask>"));
}

TEST_F(FolderVocabulary, ItsChatTemplateRendersItsOwnTokens) {
  write(path("tokenizer_config.json"),
        R"({"bos_token": {"content": "<s>"}, "eos_token": {"content": "</s>"}})");
  write(path("chat_template.jinja"),
        "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}"
        "{% endfor %}");
  auto tokenizer = load_folder_tokenizer(folder_.path());
  ASSERT_TRUE(tokenizer.has_value()) << tokenizer.error().message;
  const Vocabulary& v = tokenizer->vocabulary();
  auto chat = ChatTemplate::create(v.chat_template, v.tokens[v.bos], v.tokens[v.eos]);
  ASSERT_TRUE(chat.has_value());
  const std::vector<ChatMessage> messages = {{"user", "the tree"}};
  const std::string text = *chat->render(messages, true);
  EXPECT_EQ(text, "<s>user: the tree</s>");
  const auto tokens = *tokenizer->encode(text, Special::kParse);
  EXPECT_EQ(tokens.front(), v.bos);
  EXPECT_TRUE(tokenizer->is_end(tokens.back()));
}

TEST_F(FolderVocabulary, OlderFoldersHaveVocabAndMerges) {
  fs::remove(path("tokenizer.json"));
  write(path("vocab.json"), R"({"a": 0, "b": 1, "ab": 2, "<s>": 3})");
  const auto lacking = read_folder_vocabulary(folder_.path());
  ASSERT_FALSE(lacking.has_value());
  EXPECT_EQ(lacking.error().message,
            folder_.path().string() +
                ": the folder has no tokenizer.json, nor vocab.json and merges.txt");
  write(path("merges.txt"), "#version: 0.2\na b\n");
  write(path("tokenizer_config.json"), R"({"bos_token": "<s>", "add_bos_token": true})");
  auto tokenizer = load_folder_tokenizer(folder_.path());
  ASSERT_TRUE(tokenizer.has_value()) << tokenizer.error().message;
  EXPECT_EQ(*tokenizer->encode("ab<s>", Special::kParse), (std::vector<TokenId>{2, 3}));
}

TEST_F(FolderVocabulary, TokensWithoutARowInTheEmbeddingAreLeftOut) {
  const size_t n_tokens = read().tokens.size();
  write(path("config.json"), R"({"vocab_size": 400})");
  EXPECT_EQ(read().tokens.size(), 400U);
  for (const char* more :
       {"{}", R"({"vocab_size": null})", R"({"vocab_size": 9223372036854775808})"}) {
    write(path("config.json"), more);
    EXPECT_EQ(read().tokens.size(), n_tokens) << more;
  }
  for (const char* wrong : {R"({"vocab_size": -1})", R"({"vocab_size": "400"})"}) {
    write(path("config.json"), wrong);
    const auto made = read_folder_vocabulary(folder_.path());
    ASSERT_FALSE(made.has_value()) << wrong;
    EXPECT_EQ(made.error().message,
              path("config.json").string() + ": its \"vocab_size\" is not a number of tokens");
  }
}

// Each is there, but not to be read; as if it were absent, others or defaults would take its place.
TEST_F(FolderVocabulary, WhatIsThereButIsNoFileIsRefused) {
  for (const char* name :
       {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
        "generation_config.json", "config.json", "chat_template.json", "chat_template.jinja"}) {
    const auto expect_refused = [&](const char* why) {
      const auto made = read_folder_vocabulary(folder_.path());
      ASSERT_FALSE(made.has_value()) << name;
      EXPECT_NE(made.error().message.find(path(name).string()), std::string::npos);
      EXPECT_NE(made.error().message.find(why), std::string::npos) << made.error().message;
      fs::remove(path(name));
    };
    fs::remove(path(name));
    fs::create_directory(path(name));
    expect_refused("is a directory");
    fs::create_symlink(name, path(name));
    expect_refused("symbolic links");
    fs::create_symlink("nowhere", path(name));
    expect_refused("No such file");
    if (std::string(name) == "tokenizer.json") use("byte_level");
  }
}

TEST_F(FolderVocabulary, EveryErrorNamesItsFile) {
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                           "generation_config.json", "config.json", "chat_template.json"}) {
    if (std::string(name) != "tokenizer.json") use("byte_level");
    write(path(name), "{\"a\": [}");
    const auto made = read_folder_vocabulary(folder_.path());
    ASSERT_FALSE(made.has_value()) << name;
    EXPECT_EQ(made.error().code, ErrorCode::kBadInput);
    EXPECT_NE(made.error().message.find(path(name).string()), std::string::npos)
        << made.error().message;
    fs::remove(path(name));
  }
}

}  // namespace
}  // namespace banyan
