// SPDX-License-Identifier: Apache-2.0
// Tokenizers of Hugging Face folders.

#include <filesystem>
#include <optional>

#include "base/buffer.h"
#include "engine/vocabulary.h"
#include "text/tokenizer_json.h"

namespace banyan {
namespace {

namespace fs = std::filesystem;

std::string_view text_of(const MappedFile& file) {
  const auto bytes = file.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Error in_file(const fs::path& path, const Error& error) {
  return {error.code, path.string() + ": " + error.message};
}

// Hands the text of a file to `apply`, if there is such a file; whether there was one.
template <class F>
Result<bool> with_file(const fs::path& path, F apply) {
  if (!is_there(path.string())) return false;
  auto file = MappedFile::open(path.string());
  if (!file) return file.error();
  const Result<void> applied = apply(text_of(*file));
  if (!applied) return in_file(path, applied.error());
  return true;
}

Result<Vocabulary> read_vocab_and_merges(const fs::path& folder) {
  auto vocab = MappedFile::open((folder / "vocab.json").string());
  if (!vocab) return vocab.error();
  auto merges = MappedFile::open((folder / "merges.txt").string());
  if (!merges) return merges.error();
  auto vocabulary = parse_vocab_and_merges(text_of(*vocab), text_of(*merges));
  if (!vocabulary) return in_file(folder / "vocab.json", vocabulary.error());
  return vocabulary;
}

Result<Vocabulary> read_tokenizer(const fs::path& folder) {
  const fs::path path = folder / "tokenizer.json";
  if (is_there(path.string())) {
    auto file = MappedFile::open(path.string());
    if (!file) return file.error();
    auto vocabulary = parse_tokenizer_json(text_of(*file));
    if (!vocabulary) return in_file(path, vocabulary.error());
    return vocabulary;
  }
  if (is_there((folder / "vocab.json").string()) && is_there((folder / "merges.txt").string())) {
    return read_vocab_and_merges(folder);
  }
  if (is_there((folder / "tokenizer.model").string())) {
    return bad_input(folder.string() +
                     ": the folder has a tokenizer.model but no tokenizer.json, which is needed; "
                     "transformers writes one with AutoTokenizer's save_pretrained()");
  }
  return bad_input(folder.string() +
                   ": the folder has no tokenizer.json, nor vocab.json and merges.txt");
}

// The later one wins.
Result<void> apply_configs(const fs::path& folder, Vocabulary& vocabulary) {
  for (const char* name : {"special_tokens_map.json", "tokenizer_config.json"}) {
    auto done = with_file(folder / name, [&](std::string_view text) {
      return apply_tokenizer_config(text, vocabulary);
    });
    if (!done) return done.error();
  }
  return {};
}

Result<void> read_chat_template(const fs::path& folder, Vocabulary& vocabulary) {
  auto jinja = with_file(folder / "chat_template.jinja", [&](std::string_view text) {
    vocabulary.chat_template = text;
    return Result<void>();
  });
  if (!jinja) return jinja.error();
  if (*jinja) return {};
  auto boxed = with_file(folder / "chat_template.json", [&](std::string_view text) {
    return apply_chat_template_json(text, vocabulary);
  });
  if (!boxed) return boxed.error();
  return {};
}

}  // namespace

Result<Vocabulary> read_folder_vocabulary(const std::string& given) {
  const fs::path folder(given);
  auto vocabulary = read_tokenizer(folder);
  if (!vocabulary) return vocabulary;
  BANYAN_TRY(apply_configs(folder, *vocabulary));
  for (const char* name : {"generation_config.json", "config.json"}) {
    auto done = with_file(folder / name, [&](std::string_view text) {
      return apply_generation_config(text, *vocabulary);
    });
    if (!done) return done.error();
    if (*done) break;
  }
  auto cut = with_file(folder / "config.json", [&](std::string_view text) {
    return apply_model_config(text, *vocabulary);
  });
  if (!cut) return cut.error();
  BANYAN_TRY(read_chat_template(folder, *vocabulary));
  return vocabulary;
}

Result<std::string> read_folder_chat_template(const std::string& folder) {
  Vocabulary without_tokens;
  BANYAN_TRY(apply_configs(folder, without_tokens));
  BANYAN_TRY(read_chat_template(folder, without_tokens));
  return std::move(without_tokens.chat_template);
}

Result<Tokenizer> load_folder_tokenizer(const std::string& folder, size_t most) {
  auto vocabulary = read_folder_vocabulary(folder);
  if (!vocabulary) return vocabulary.error();
  keep_first_tokens(*vocabulary, most);
  auto tokenizer = Tokenizer::create(*std::move(vocabulary));
  if (!tokenizer) return in_file(folder, tokenizer.error());
  return tokenizer;
}

Result<Tokenizer> load_tokenizer_file(const std::string& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) return load_folder_tokenizer(path);
  if (path.ends_with(".json")) {
    if (fs::path(path).filename() == "tokenizer.json" && is_there(path)) {
      const fs::path folder = fs::path(path).parent_path();
      return load_folder_tokenizer(folder.empty() ? "." : folder.string());
    }
    auto file = MappedFile::open(path);
    if (!file) return file.error();
    auto vocabulary = parse_tokenizer_json(text_of(*file));
    if (!vocabulary) return in_file(path, vocabulary.error());
    auto tokenizer = Tokenizer::create(*std::move(vocabulary));
    if (!tokenizer) return in_file(path, tokenizer.error());
    return tokenizer;
  }
  auto file = ModelFile::open_gguf(path);
  if (!file) return file.error();
  return load_tokenizer(*file);
}

}  // namespace banyan
