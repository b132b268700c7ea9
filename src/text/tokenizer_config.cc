// SPDX-License-Identifier: Apache-2.0
// The files beside a tokenizer.json, and those that older folders have instead of it.

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/printable.h"
#include "text/json_reader.h"
#include "text/pre_tokenizer_rules.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_json_rules.h"

namespace banyan {
namespace {

using nlohmann::json;

constexpr size_t kMaxUnused = size_t{1} << 20;  // ids without a token

TokenId find_token(const Vocabulary& vocabulary, std::string_view text) {
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const bool taken = vocabulary.types.empty() || vocabulary.types[id] != TokenType::kUnused;
    if (taken && vocabulary.tokens[id] == text) return static_cast<TokenId>(id);
  }
  return -1;
}

bool is_token(const json& id, const Vocabulary& vocabulary) {
  return id.is_number_integer() && id.get<int64_t>() >= 0 &&
         id.get<int64_t>() < static_cast<int64_t>(vocabulary.tokens.size());
}

// The text of a token that is given as it is or as {"content": ..}; empty: none.
Result<std::string> token_text(const json& config, const char* key) {
  const auto found = config.find(key);
  if (found != config.end() && found->is_object()) return text_member(*found, "content", "");
  return text_member(config, key, "");
}

// {"<id>": {"content": .., "special": ..}, ..}: older folders have tokens only here.
Result<void> add_decoder_tokens(const json& config, Vocabulary& vocabulary) {
  const auto found = config.find("added_tokens_decoder");
  if (found == config.end() || found->is_null()) return {};
  if (!found->is_object()) return bad_input("its \"added_tokens_decoder\" is not an object");
  for (const auto& [key, entry] : found->items()) {
    uint32_t id = 0;
    const char* end = key.data() + key.size();
    const auto parsed = std::from_chars(key.data(), end, id);
    if (parsed.ec != std::errc() || parsed.ptr != end || !entry.is_object()) {
      return bad_input("its \"added_tokens_decoder\" has an entry that is not \"id\": {..}");
    }
    if (id >= vocabulary.tokens.size() + kMaxUnused) {
      return bad_input("its \"added_tokens_decoder\" has the id " + std::to_string(id) +
                       " for a vocabulary of " + std::to_string(vocabulary.tokens.size()));
    }
    auto text = text_member(entry, "content", "");
    if (!text) return text.error();
    auto special = flag_member(entry, "special", false);
    if (!special) return special.error();
    if (id >= vocabulary.tokens.size()) {
      vocabulary.tokens.resize(id + 1);
      vocabulary.types.resize(id + 1, TokenType::kUnused);
      if (!vocabulary.scores.empty()) vocabulary.scores.resize(id + 1);
    }
    // What tokenizer.json says about a token holds.
    const bool unused = vocabulary.types[id] == TokenType::kUnused;
    if (!unused && vocabulary.tokens[id] != *text) continue;
    if (unused || vocabulary.types[id] == TokenType::kNormal) {
      vocabulary.tokens[id] = *std::move(text);
      vocabulary.types[id] = *special ? TokenType::kControl : TokenType::kUserDefined;
    }
  }
  return {};
}

Result<void> apply_chat_template(const json& config, Vocabulary& vocabulary) {
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return {};
  if (found->is_string()) {
    vocabulary.chat_template = found->get<std::string>();
    return {};
  }
  if (!found->is_array()) return bad_input("its \"chat_template\" is neither a text nor a list");
  for (const json& entry : *found) {
    if (!entry.is_object()) return bad_input("its \"chat_template\" has an entry without a name");
    auto name = text_member(entry, "name", "");
    if (!name) return name.error();
    auto source = text_member(entry, "template", "");
    if (!source) return source.error();
    if (*name == "default") vocabulary.chat_template = *std::move(source);
  }
  return {};
}

}  // namespace

Result<void> apply_tokenizer_config(std::string_view text, Vocabulary& vocabulary) {
  auto config = read_small_json(text);
  if (!config) return config.error();
  if (vocabulary.types.empty()) {
    vocabulary.types.assign(vocabulary.tokens.size(), TokenType::kNormal);
  }
  BANYAN_TRY(add_decoder_tokens(*config, vocabulary));
  for (const char* key : {"bos_token", "eos_token", "unk_token", "pad_token"}) {
    auto token = token_text(*config, key);
    if (!token) return token.error();
    if (token->empty()) continue;
    const TokenId id = find_token(vocabulary, *token);
    if (id < 0) continue;  // some folders name tokens that their vocabulary lacks
    if (vocabulary.types[id] == TokenType::kNormal) vocabulary.types[id] = TokenType::kControl;
    if (key[0] == 'b' && !vocabulary.add_bos) vocabulary.bos = id;
    if (key[0] == 'e') vocabulary.eos = id;
  }
  auto add_bos = flag_member(*config, "add_bos_token", vocabulary.add_bos);
  if (!add_bos) return add_bos.error();
  auto add_eos = flag_member(*config, "add_eos_token", vocabulary.add_eos);
  if (!add_eos) return add_eos.error();
  vocabulary.add_bos = *add_bos && vocabulary.bos >= 0;
  vocabulary.add_eos = *add_eos && vocabulary.eos >= 0;
  return apply_chat_template(*config, vocabulary);
}

Result<void> apply_chat_template_json(std::string_view text, Vocabulary& vocabulary) {
  auto config = read_small_json(text);
  if (!config) return config.error();
  return apply_chat_template(*config, vocabulary);
}

Result<void> apply_generation_config(std::string_view text, Vocabulary& vocabulary) {
  auto config = read_small_json(text);
  if (!config) return config.error();
  const auto bos = config->find("bos_token_id");
  if (bos != config->end() && vocabulary.bos < 0 && is_token(*bos, vocabulary)) {
    vocabulary.bos = static_cast<TokenId>(bos->get<int64_t>());
  }
  const auto eos = config->find("eos_token_id");
  if (eos == config->end()) return {};
  const json list = eos->is_array() ? *eos : json::array({*eos});
  for (const json& id : list) {
    if (id.is_null()) continue;
    if (!id.is_number_integer()) {
      return bad_input("its \"eos_token_id\" is neither a number nor a list of numbers");
    }
    if (!is_token(id, vocabulary)) continue;  // of a model with a larger vocabulary
    const auto token = static_cast<TokenId>(id.get<int64_t>());
    if (vocabulary.eos < 0) vocabulary.eos = token;
    if (vocabulary.eos != token) vocabulary.more_ends.push_back(token);
  }
  return {};
}

Result<void> apply_model_config(std::string_view text, Vocabulary& vocabulary) {
  auto config = read_small_json(text);
  if (!config) return config.error();
  const auto size = config->find("vocab_size");
  if (size == config->end() || size->is_null()) return {};
  if (!size->is_number_unsigned()) return bad_input("its \"vocab_size\" is not a number of tokens");
  keep_first_tokens(vocabulary, size->get<uint64_t>());
  return {};
}

Result<Vocabulary> parse_vocab_and_merges(std::string_view vocab_json,
                                          std::string_view merges_txt) {
  auto read_json = read_small_json(vocab_json);
  if (!read_json) return read_json.error();
  Vocabulary v;
  v.tokens.resize(read_json->size());
  v.types.assign(read_json->size(), TokenType::kUnused);
  for (const auto& [text, id] : read_json->items()) {
    if (!is_token(id, v)) {
      return bad_input("the id of its token '" + printable(text) + "' is not between 0 and " +
                       std::to_string(v.tokens.size() - 1));
    }
    const auto at = id.get<size_t>();
    if (v.types[at] != TokenType::kUnused) {
      return bad_input("its tokens '" + printable(v.tokens[at]) + "' and '" + printable(text) +
                       "' have the same id " + std::to_string(at));
    }
    v.tokens[at] = text;
    v.types[at] = TokenType::kNormal;
  }
  bool first = true;
  while (!merges_txt.empty()) {
    const size_t end = std::min(merges_txt.find('\n'), merges_txt.size());
    std::string_view line = merges_txt.substr(0, end);
    merges_txt.remove_prefix(std::min(end + 1, merges_txt.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    const bool comment = first && line.starts_with("#version");
    first = false;
    if (!comment && !line.empty()) v.merges.emplace_back(line);
  }
  TextRules rules;
  SplitStep step;
  step.pattern = kGpt2Expression;
  rules.splits.push_back(std::move(step));
  v.rules = std::move(rules);
  return v;
}

}  // namespace banyan
