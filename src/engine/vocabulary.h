// SPDX-License-Identifier: Apache-2.0
#pragma once
// From a model file's metadata to what text/ makes a tokenizer of.

#include "base/result.h"
#include "files/model_file.h"
#include "text/tokenizer.h"

namespace banyan {

// kBadInput names the file and the key that is missing or of a wrong type or length.
Result<Vocabulary> read_vocabulary(const ModelFile& file);

// read_vocabulary and Tokenizer::create, the file's name in every error.
Result<Tokenizer> load_tokenizer(const ModelFile& file);

// The same from a path; a vocabulary-only file is enough.
Result<Tokenizer> load_tokenizer_file(const std::string& path);

}  // namespace banyan
