// SPDX-License-Identifier: Apache-2.0
#pragma once
// Tokenizers as Hugging Face folders keep them: tokenizer.json
// (https://huggingface.co/docs/tokenizers), and what tokenizer_config.json and
// generation_config.json add to it; vocab.json and merges.txt where there is no tokenizer.json.

#include <string_view>

#include "base/result.h"
#include "text/tokenizer.h"

namespace banyan {

// All errors are kBadInput, in a sentence without a file name (the caller adds it). Requires
// nothing of the bytes; memory is in proportion to them.

// The whole tokenizer. BOS and EOS are those that its post-processor adds, if it does.
Result<Vocabulary> parse_tokenizer_json(std::string_view json);

// GPT-2's older pair of files: byte-level BPE with GPT-2's expression.
Result<Vocabulary> parse_vocab_and_merges(std::string_view vocab_json, std::string_view merges_txt);

// tokenizer_config.json or special_tokens_map.json: special tokens by name, whether BOS and EOS are
// added, the chat template ("default" where there are several). What it does not say stays.
Result<void> apply_tokenizer_config(std::string_view json, Vocabulary& vocabulary);

// chat_template.json: {"chat_template": ..}.
Result<void> apply_chat_template_json(std::string_view json, Vocabulary& vocabulary);

// generation_config.json or config.json: the tokens that end generation, and BOS where there is
// none.
Result<void> apply_generation_config(std::string_view json, Vocabulary& vocabulary);

// config.json: tokens beyond its vocab_size, which have no row in the model's embedding, are left
// out.
Result<void> apply_model_config(std::string_view json, Vocabulary& vocabulary);

}  // namespace banyan
