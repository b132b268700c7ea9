// SPDX-License-Identifier: Apache-2.0
#pragma once
// Vocabularies for tests: of GGUF files (read trustingly: tests know what they open), and small
// ones made by hand.

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "text/byte_letters.h"
#include "text/tokenizer.h"

namespace banyan {

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Where `make test` puts the default model; empty if it is not there.
inline std::string default_model_path() {
  const char* cache = std::getenv("XDG_CACHE_HOME");  // NOLINT(concurrency-mt-unsafe)
  const char* home = std::getenv("HOME");             // NOLINT(concurrency-mt-unsafe)
  std::string folder = cache != nullptr && *cache != '\0' ? cache : "";
  if (folder.empty() && home != nullptr) folder = std::string(home) + "/.cache";
  const std::string path = folder + "/banyan/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  return std::filesystem::exists(path) ? path : "";
}

// The tokenizer's keys of a GGUF file (version 2 or 3).
class GgufVocabulary {
 public:
  explicit GgufVocabulary(const std::string& path) : file_(path, std::ios::binary) {
    number<uint64_t>();  // magic, version
    number<uint64_t>();  // tensors
    vocabulary.add_space_prefix = true;
    for (auto left = number<uint64_t>(); left > 0 && file_; --left) {
      const std::string key = text();
      value(key, number<uint32_t>());
    }
  }

  Vocabulary vocabulary;

 private:
  template <class T>
  T number() {
    T value{};
    file_.read(reinterpret_cast<char*>(&value), sizeof value);
    return value;
  }

  std::string text() {
    std::string value(number<uint64_t>(), '\0');
    file_.read(value.data(), static_cast<std::streamsize>(value.size()));
    return value;
  }

  int64_t scalar(uint32_t type) {
    constexpr int kSizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    int64_t value = 0;
    file_.read(reinterpret_cast<char*>(&value), kSizes[type]);
    return value;
  }

  void value(const std::string& key, uint32_t type) {
    constexpr uint32_t kString = 8;
    constexpr uint32_t kArray = 9;
    if (type == kArray) {
      const auto of = number<uint32_t>();
      for (auto left = number<uint64_t>(); left > 0; --left) {
        of == kString ? add_text(key, text()) : add_number(key, scalar(of));
      }
    } else {
      type == kString ? add_text(key, text()) : add_number(key, scalar(type));
    }
  }

  void add_text(const std::string& key, const std::string& text) {
    if (key == "tokenizer.ggml.model") vocabulary.model = text;
    if (key == "tokenizer.ggml.pre") vocabulary.pre = text;
    if (key == "general.name") vocabulary.name = text;
    if (key == "tokenizer.chat_template") vocabulary.chat_template = text;
    if (key == "tokenizer.ggml.tokens") vocabulary.tokens.push_back(text);
    if (key == "tokenizer.ggml.merges") vocabulary.merges.push_back(text);
  }

  void add_number(const std::string& key, int64_t number) {
    if (key == "tokenizer.ggml.scores") {
      float score = 0;
      std::memcpy(&score, &number, sizeof score);
      vocabulary.scores.push_back(score);
    }
    if (key == "tokenizer.ggml.token_type") {
      vocabulary.types.push_back(static_cast<TokenType>(number));
    }
    if (key == "tokenizer.ggml.precompiled_charsmap") {
      vocabulary.charsmap += static_cast<char>(number);
    }
    if (key == "tokenizer.ggml.remove_extra_whitespaces") {
      vocabulary.remove_extra_whitespaces = number != 0;
    }
    const auto id = static_cast<TokenId>(number);
    if (key == "tokenizer.ggml.bos_token_id") vocabulary.bos = id;
    if (key == "tokenizer.ggml.eos_token_id") vocabulary.eos = id;
    if (key == "tokenizer.ggml.unknown_token_id") vocabulary.unk = id;
    if (key == "tokenizer.ggml.add_space_prefix") vocabulary.add_space_prefix = number != 0;
  }

  std::ifstream file_;
};

inline Tokenizer create_or_fail(Vocabulary vocabulary) {
  auto tokenizer = Tokenizer::create(std::move(vocabulary));
  EXPECT_TRUE(tokenizer.has_value()) << tokenizer.error().message;
  if (!tokenizer) std::abort();
  return *std::move(tokenizer);
}

// All bytes as tokens 0 to 255, then the results of `merges`, in their order, then control tokens
// "<|a|>" and "<|end|>", which ends generation, and the user-defined "<think>".
inline Vocabulary small_byte_vocabulary(const std::vector<std::string>& merges) {
  Vocabulary vocabulary;
  vocabulary.model = "gpt2";
  vocabulary.pre = "gpt-2";
  for (int byte = 0; byte < 256; ++byte) {
    vocabulary.tokens.push_back(letter_of_byte(static_cast<uint8_t>(byte)));
  }
  for (const std::string& merge : merges) {
    const size_t space = merge.find(' ');
    vocabulary.tokens.push_back(merge.substr(0, space) + merge.substr(space + 1));
  }
  vocabulary.merges = merges;
  vocabulary.types.assign(vocabulary.tokens.size(), TokenType::kNormal);
  const std::pair<const char*, TokenType> special[] = {{"<|a|>", TokenType::kControl},
                                                       {"<|end|>", TokenType::kControl},
                                                       {"<think>", TokenType::kUserDefined}};
  for (const auto& [text, type] : special) {
    vocabulary.tokens.emplace_back(text);
    vocabulary.types.push_back(type);
  }
  return vocabulary;
}

// <unk>, <s>, </s>, the bytes as <0xNN>, then `pieces` with falling scores.
inline Vocabulary small_sentencepiece_vocabulary(const std::vector<std::string>& pieces) {
  Vocabulary vocabulary;
  vocabulary.model = "llama";
  vocabulary.tokens = {"<unk>", "<s>", "</s>"};
  vocabulary.types = {TokenType::kUnknown, TokenType::kControl, TokenType::kControl};
  vocabulary.unk = 0;
  vocabulary.bos = 1;
  vocabulary.eos = 2;
  for (int byte = 0; byte < 256; ++byte) {
    constexpr char kHex[] = "0123456789ABCDEF";
    vocabulary.tokens.push_back(std::string("<0x") + kHex[byte >> 4] + kHex[byte & 15] + ">");
    vocabulary.types.push_back(TokenType::kByte);
  }
  vocabulary.scores.assign(vocabulary.tokens.size(), 0.0F);
  for (const std::string& piece : pieces) {
    vocabulary.scores.push_back(-static_cast<float>(vocabulary.scores.size()));
    vocabulary.tokens.push_back(piece);
    vocabulary.types.push_back(TokenType::kNormal);
  }
  return vocabulary;
}

}  // namespace banyan
