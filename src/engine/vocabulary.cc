// SPDX-License-Identifier: Apache-2.0
#include "engine/vocabulary.h"

#include <fmt/format.h>

namespace banyan {
namespace {

constexpr TokenId kDefaultUnigramUnknown = 2;  // T5's, where a file does not say

Error wrong_type(const ModelFile& file, std::string_view key, std::string_view expected) {
  return bad_input(fmt::format("{}: {} is not {}", file.path(), key, expected));
}

Result<std::vector<std::string>> strings(const ModelFile& file, std::string_view key) {
  std::vector<std::string> out;
  const MetaValue* value = file.find(key);
  if (value == nullptr) return out;
  const auto* array = std::get_if<MetaArray>(value);
  if (array == nullptr) return wrong_type(file, key, "an array of strings");
  const auto* items = std::get_if<std::vector<std::string_view>>(&array->items);
  if (items == nullptr) return wrong_type(file, key, "an array of strings");
  out.assign(items->begin(), items->end());
  return out;
}

Result<std::vector<float>> floats(const ModelFile& file, std::string_view key) {
  std::vector<float> out;
  const MetaValue* value = file.find(key);
  if (value == nullptr) return out;
  const auto* array = std::get_if<MetaArray>(value);
  if (array == nullptr) return wrong_type(file, key, "an array of numbers");
  const auto* items = std::get_if<std::vector<double>>(&array->items);
  if (items == nullptr) return wrong_type(file, key, "an array of numbers");
  out.assign(items->begin(), items->end());
  return out;
}

Result<std::vector<TokenType>> token_types(const ModelFile& file, std::string_view key) {
  std::vector<TokenType> out;
  const MetaValue* value = file.find(key);
  if (value == nullptr) return out;
  const auto* array = std::get_if<MetaArray>(value);
  if (array == nullptr) return wrong_type(file, key, "an array of integers");
  const auto* items = std::get_if<std::vector<int64_t>>(&array->items);
  if (items == nullptr) return wrong_type(file, key, "an array of integers");
  for (const int64_t item : *items) {
    if (item < 1 || item > 6) {
      return bad_input(fmt::format("{}: {} holds {}, expected 1 to 6", file.path(), key, item));
    }
    out.push_back(static_cast<TokenType>(item));
  }
  return out;
}

// An array of bytes, as a string.
Result<std::string> byte_array(const ModelFile& file, std::string_view key) {
  std::string out;
  const MetaValue* value = file.find(key);
  if (value == nullptr) return out;
  const auto* array = std::get_if<MetaArray>(value);
  const auto* items = array == nullptr ? nullptr : std::get_if<std::vector<int64_t>>(&array->items);
  if (items == nullptr) return wrong_type(file, key, "an array of bytes");
  out.reserve(items->size());
  for (const int64_t item : *items) {
    if (item < -128 || item > 255) return wrong_type(file, key, "an array of bytes");
    out += static_cast<char>(item);
  }
  return out;
}

// A token id, -1 where the file has none. Some converters write "none" as the largest unsigned.
Result<TokenId> token_id(const ModelFile& file, std::string_view key, size_t vocabulary_size) {
  auto found = file.integer(key);
  if (!found) return found.error();
  if (!found->has_value() || **found == -1 || **found == 0xffffffff) return TokenId{-1};
  const int64_t id = **found;
  if (id < 0 || id >= static_cast<int64_t>(vocabulary_size)) {
    return bad_input(fmt::format("{}: {} is {}, the vocabulary has {} tokens", file.path(), key, id,
                                 vocabulary_size));
  }
  return static_cast<TokenId>(id);
}

Result<std::string> text(const ModelFile& file, std::string_view key) {
  auto found = file.string(key);
  if (!found) return found.error();
  return std::string(found->value_or(""));
}

Result<bool> flag(const ModelFile& file, std::string_view key, bool fallback) {
  auto found = file.boolean(key);
  if (!found) return found.error();
  return found->value_or(fallback);
}

// Reads into `out` or returns the error.
template <class T>
Result<void> read(Result<T> from, T& out) {
  if (!from) return from.error();
  out = *std::move(from);
  return {};
}

}  // namespace

Result<Vocabulary> read_vocabulary(const ModelFile& file) {
  Vocabulary v;
  BANYAN_TRY(read(text(file, "tokenizer.ggml.model"), v.model));
  BANYAN_TRY(read(strings(file, "tokenizer.ggml.tokens"), v.tokens));
  if (v.model.empty() || v.tokens.empty()) {
    return bad_input(fmt::format("{}: the file has no tokenizer (tokenizer.ggml.model and .tokens)",
                                 file.path()));
  }
  BANYAN_TRY(read(text(file, "tokenizer.ggml.pre"), v.pre));
  BANYAN_TRY(read(floats(file, "tokenizer.ggml.scores"), v.scores));
  BANYAN_TRY(read(token_types(file, "tokenizer.ggml.token_type"), v.types));
  BANYAN_TRY(read(strings(file, "tokenizer.ggml.merges"), v.merges));
  const size_t n = v.tokens.size();
  if ((!v.scores.empty() && v.scores.size() != n) || (!v.types.empty() && v.types.size() != n)) {
    return bad_input(
        fmt::format("{}: the vocabulary has {} tokens, {} scores and {} types, expected as many",
                    file.path(), n, v.scores.size(), v.types.size()));
  }
  BANYAN_TRY(read(token_id(file, "tokenizer.ggml.bos_token_id", n), v.bos));
  BANYAN_TRY(read(token_id(file, "tokenizer.ggml.eos_token_id", n), v.eos));
  BANYAN_TRY(read(token_id(file, "tokenizer.ggml.eot_token_id", n), v.eot));
  BANYAN_TRY(read(token_id(file, "tokenizer.ggml.unknown_token_id", n), v.unk));
  if (v.unk < 0 && v.model == "t5" && n > kDefaultUnigramUnknown) v.unk = kDefaultUnigramUnknown;
  // SentencePiece models begin a text with BOS unless their file says otherwise; others do not.
  BANYAN_TRY(read(flag(file, "tokenizer.ggml.add_bos_token", v.model == "llama"), v.add_bos));
  BANYAN_TRY(read(flag(file, "tokenizer.ggml.add_eos_token", v.model == "t5"), v.add_eos));
  BANYAN_TRY(read(flag(file, "tokenizer.ggml.add_space_prefix", true), v.add_space_prefix));
  BANYAN_TRY(read(flag(file, "tokenizer.ggml.remove_extra_whitespaces", false),
                  v.remove_extra_whitespaces));
  BANYAN_TRY(read(byte_array(file, "tokenizer.ggml.precompiled_charsmap"), v.charsmap));
  BANYAN_TRY(read(text(file, "tokenizer.chat_template"), v.chat_template));
  return v;
}

Result<Tokenizer> load_tokenizer(const ModelFile& file, size_t most) {
  if (file.format() == ModelFormat::kFolder) return load_folder_tokenizer(file.path(), most);
  auto vocabulary = read_vocabulary(file);
  if (!vocabulary) return vocabulary.error();
  auto tokenizer = Tokenizer::create(*std::move(vocabulary));
  if (!tokenizer) return bad_input(file.path() + ": " + tokenizer.error().message);
  return tokenizer;
}

}  // namespace banyan
