// SPDX-License-Identifier: Apache-2.0
#pragma once
// From a model file's metadata, or the files of a Hugging Face folder, to what text/ makes a
// tokenizer of.

#include <cstdint>
#include <string>

#include "base/result.h"
#include "files/model_file.h"
#include "text/tokenizer.h"

namespace banyan {

// kBadInput names the file and the key that is missing or of a wrong type or length.
Result<Vocabulary> read_vocabulary(const ModelFile& file);

// read_vocabulary (of a folder read_folder_vocabulary) and Tokenizer::create, the file's name in
// every error. Of a folder's tokens, the first `most` are taken.
Result<Tokenizer> load_tokenizer(const ModelFile& file, size_t most = SIZE_MAX);

// The vocabulary of a Hugging Face folder, its chat template included: tokenizer.json (or
// vocab.json and merges.txt, as GPT-2 and OPT have them) and, where they are there,
// special_tokens_map.json, tokenizer_config.json, generation_config.json or else config.json, and
// chat_template.jinja or chat_template.json. Tokens beyond config.json's vocab_size are left out.
// kBadInput names the file that is wrong or missing.
Result<Vocabulary> read_folder_vocabulary(const std::string& folder);

// The chat template alone, whether or not the folder has a tokenizer; empty: none. kBadInput names
// the file that is wrong.
Result<std::string> read_folder_chat_template(const std::string& folder);

// read_folder_vocabulary and Tokenizer::create, with the folder's name in every error. Of its
// tokens, the first `most` are taken.
Result<Tokenizer> load_folder_tokenizer(const std::string& folder, size_t most = SIZE_MAX);

// From a path: a Hugging Face folder, a tokenizer.json, or a GGUF file, for which its vocabulary is
// enough. A tokenizer.json brings what lies beside it along.
Result<Tokenizer> load_tokenizer_file(const std::string& path);

}  // namespace banyan
