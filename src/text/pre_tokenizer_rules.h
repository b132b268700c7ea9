// SPDX-License-Identifier: Apache-2.0
#pragma once
// How a pre-tokenizer that GGUF files name cuts a text.

#include <optional>
#include <string_view>
#include <vector>

#include "text/text_rules.h"

namespace banyan {

struct PreTokenizerRule {
  std::vector<std::string_view> names;  // as GGUF's tokenizer.ggml.pre has them
  std::vector<SplitStep> splits;
  bool takes_whole_words = false;  // a word that is a token is taken as it is
};

// GPT-2's expression, which byte-level pre-tokenizers use unless told otherwise.
extern const char* const kGpt2Expression;

std::optional<PreTokenizerRule> find_pre_tokenizer_rule(std::string_view name);

}  // namespace banyan
