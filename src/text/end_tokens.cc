// SPDX-License-Identifier: Apache-2.0
#include "text/end_tokens.h"

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <string_view>

namespace banyan {
namespace {

bool is_one_of(std::string_view text, std::initializer_list<std::string_view> list) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

// Texts of tokens that end an answer, or the part of it that a program must look at. GGUF files
// name one or two of them; models emit others too (llama.cpp's list).
bool names_an_end(std::string_view text) {
  return is_one_of(text, {"<|eot_id|>",
                          "<|im_end|>",
                          "<|end|>",
                          "<|return|>",
                          "<|call|>",
                          "<|flush|>",
                          "<|calls|>",
                          "<end_of_turn>",
                          "<|endoftext|>",
                          "</s>",
                          "<|eom_id|>",
                          "<EOT>",
                          "_<EOT>",
                          "[EOT]",
                          "[EOS]",
                          "<|end_of_text|>",
                          "<end_of_utterance>",
                          "<eos>",
                          "<turn|>",
                          "<|tool_response>",
                          "<｜end▁of▁sentence｜>",
                          "[e~[",
                          "<|fim_pad|>",
                          "<|repo_name|>",
                          "<|file_sep|>"});
}

}  // namespace

std::vector<bool> find_ends(Vocabulary& vocabulary) {
  const size_t n = vocabulary.tokens.size();
  std::vector<bool> ends(n, false);
  const auto find = [&](std::string_view text) -> std::optional<size_t> {
    const auto at = std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), text);
    if (at == vocabulary.tokens.end()) return std::nullopt;
    return at - vocabulary.tokens.begin();
  };
  // Channels of gpt-oss and Solar Open close with <|end|>, their answers with <|return|> and such.
  const bool channels = find("<|call|>") ? find("<|return|>") || find("<|flush|>")
                                         : find("<|calls|>") && find("<|flush|>");
  // In these vocabularies </s> is text (Gemma 4, PLaMo).
  const bool plain_s = find("<|tool_response>") || find("<|plamo:eos|>");
  for (size_t token = 0; token < n; ++token) {
    const std::string& text = vocabulary.tokens[token];
    if (!names_an_end(text) || (channels && text == "<|end|>") || (plain_s && text == "</s>")) {
      continue;
    }
    const bool is_control =
        !vocabulary.types.empty() && vocabulary.types[token] == TokenType::kControl;
    if (vocabulary.rules && !is_control) continue;  // such files say what is text
    ends[token] = true;
    if (vocabulary.types.empty()) vocabulary.types.assign(n, TokenType::kNormal);
    vocabulary.types[token] = TokenType::kControl;
  }
  for (const TokenId token : {vocabulary.eos, vocabulary.eot}) {
    if (token >= 0) ends[token] = true;
  }
  for (const TokenId token : vocabulary.more_ends) ends[token] = true;
  return ends;
}

}  // namespace banyan
