// SPDX-License-Identifier: Apache-2.0
#pragma once
// Which regular expressions a pre-tokenizer's name stands for.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace banyan {

struct PreTokenizerRule {
  std::vector<std::string_view> names;   // as GGUF's tokenizer.ggml.pre has them
  std::vector<std::string> expressions;  // in PCRE2's syntax; none matches nothing
  bool takes_whole_words = false;        // a word that is a token is taken as it is
};

std::optional<PreTokenizerRule> find_pre_tokenizer_rule(std::string_view name);

}  // namespace banyan
