// SPDX-License-Identifier: Apache-2.0
#include "text/tokenizer_json.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <unordered_map>
#include <utility>

#include "base/printable.h"
#include "text/byte_letters.h"
#include "text/json_reader.h"
#include "text/tokenizer_json_rules.h"

namespace banyan {
namespace {

using nlohmann::json;

constexpr int64_t kMaxTokens = int64_t{1} << 24;
constexpr size_t kMaxUnused = size_t{1} << 20;  // ids without a token

// Token ids by text; the texts must stay where they are.
using IdsByText = std::unordered_map<std::string_view, TokenId>;

TokenId find_id(const IdsByText& ids, const std::string& text) {
  const auto found = ids.find(text);
  return found == ids.end() ? -1 : found->second;
}

struct AddedToken {
  std::string text;
  int64_t id = -1;
  bool special = false;
  TokenMatching matching;
};

Result<void> read(Result<bool> from, bool& out) {
  if (!from) return from.error();
  out = *from;
  return {};
}

Result<AddedToken> read_added_token(const json& entry) {
  AddedToken token;
  const auto id = entry.find("id");
  const auto text = entry.find("content");
  if (!entry.is_object() || id == entry.end() || !id->is_number_integer() || text == entry.end() ||
      !text->is_string()) {
    return bad_input("its \"added_tokens\" has an entry without an id or content");
  }
  token.id = id->get<int64_t>();
  token.text = text->get<std::string>();
  BANYAN_TRY(read(flag_member(entry, "special", false), token.special));
  BANYAN_TRY(read(flag_member(entry, "single_word", false), token.matching.single_word));
  BANYAN_TRY(read(flag_member(entry, "lstrip", false), token.matching.strip_left));
  BANYAN_TRY(read(flag_member(entry, "rstrip", false), token.matching.strip_right));
  BANYAN_TRY(read(flag_member(entry, "normalized", !token.special), token.matching.normalized));
  return token;
}

Result<std::vector<AddedToken>> read_added_tokens(const json& tokenizer) {
  std::vector<AddedToken> tokens;
  const auto found = tokenizer.find("added_tokens");
  if (found == tokenizer.end() || found->is_null()) return tokens;
  if (!found->is_array()) return bad_input("its \"added_tokens\" is not a list");
  for (const json& entry : *found) {
    auto token = read_added_token(entry);
    if (!token) return token.error();
    tokens.push_back(*std::move(token));
  }
  return tokens;
}

// Puts all tokens in the order of their ids; ids without a token are kUnused and empty.
class Table {
 public:
  Result<void> add(std::string text, int64_t id, TokenType type) {
    if (id < 0 || id >= kMaxTokens) {
      return bad_input("the id " + std::to_string(id) + " of its token '" + printable(text) +
                       "' is not between 0 and 2^24");
    }
    const auto at = static_cast<size_t>(id);
    if (at >= taken_.size()) {
      if (at > n_taken_ + kMaxUnused) {
        return bad_input("the id " + std::to_string(id) + " of its token '" + printable(text) +
                         "' leaves more than 2^20 ids without a token");
      }
      taken_.resize(at + 1);
      tokens.resize(at + 1);
      types.resize(at + 1, TokenType::kUnused);
    }
    if (taken_[at] && tokens[at] != text) {
      return bad_input("its tokens '" + printable(tokens[at]) + "' and '" + printable(text) +
                       "' have the same id " + std::to_string(id));
    }
    n_taken_ += taken_[at] ? 0 : 1;
    taken_[at] = true;
    tokens[at] = std::move(text);
    types[at] = type;
    return {};
  }

  std::vector<std::string> tokens;
  std::vector<TokenType> types;

 private:
  std::vector<bool> taken_;
  size_t n_taken_ = 0;
};

Result<void> add_vocabulary(TokenizerJson& read_json, bool unigram, Table& table) {
  const size_t n = unigram ? read_json.scored.size() : read_json.vocab.size();
  if (n == 0) {
    return bad_input(unigram ? "its \"vocab\" is not a list of [text, score]"
                             : "its \"vocab\" is not an object of \"text\": id");
  }
  if (unigram) {
    for (size_t id = 0; id < n; ++id) {
      BANYAN_TRY(table.add(std::move(read_json.scored[id].first), static_cast<int64_t>(id),
                           TokenType::kNormal));
    }
    return {};
  }
  // In the order of the ids, so that only real gaps count as gaps.
  std::sort(read_json.vocab.begin(), read_json.vocab.end(),
            [](const auto& a, const auto& b) { return a.second < b.second; });
  for (auto& [text, id] : read_json.vocab) {
    BANYAN_TRY(table.add(std::move(text), id, TokenType::kNormal));
  }
  return {};
}

Result<IdsByText> index_texts(const Table& table, bool unigram) {
  IdsByText ids;
  ids.reserve(table.tokens.size());
  for (size_t id = 0; id < table.tokens.size(); ++id) {
    if (table.types[id] == TokenType::kUnused) continue;
    const bool added = ids.emplace(table.tokens[id], static_cast<TokenId>(id)).second;
    if (!added && !unigram) {
      return bad_input("its token '" + printable(table.tokens[id]) + "' stands there twice");
    }
  }
  return ids;
}

bool is_token(const json& id, size_t n_tokens) {
  return id.is_number_integer() && id.get<int64_t>() >= 0 &&
         id.get<int64_t>() < static_cast<int64_t>(n_tokens);
}

// The id of "unk_token" (a text) or "unk_id" (a number) of the model; -1: none.
Result<TokenId> unknown_token(const json& model, const IdsByText& ids, size_t n_tokens) {
  const auto number = model.find("unk_id");
  if (number != model.end() && !number->is_null()) {
    if (!is_token(*number, n_tokens)) {
      return bad_input("its \"unk_id\" is not one of its " + std::to_string(n_tokens) + " tokens");
    }
    return static_cast<TokenId>(number->get<int64_t>());
  }
  auto text = text_member(model, "unk_token", "");
  if (!text) return text.error();
  if (text->empty()) return TokenId{-1};
  const TokenId id = find_id(ids, *text);
  if (id < 0) return bad_input("its \"unk_token\" '" + printable(*text) + "' is no token");
  return id;
}

// Which ids a post-processor puts before and after a text.
struct Surrounding {
  std::vector<TokenId> before, after;
};

Result<void> read_template(const json& post, size_t n_tokens, Surrounding& out) {
  const auto single = post.find("single");
  const auto specials = post.find("special_tokens");
  if (single == post.end() || !single->is_array()) {
    return bad_input("its \"post_processor\" has no list \"single\"");
  }
  bool before = true;
  for (const json& piece : *single) {
    if (piece.is_object() && piece.contains("Sequence")) {
      before = false;
      continue;
    }
    const auto special = piece.is_object() ? piece.find("SpecialToken") : piece.end();
    if (!piece.is_object() || special == piece.end() || !special->is_object()) {
      return bad_input("its \"post_processor\" has a piece that is neither text nor token");
    }
    auto name = text_member(*special, "id", "");
    if (!name) return name.error();
    const json* ids = nullptr;
    if (specials != post.end() && specials->is_object() && specials->contains(*name)) {
      const json& entry = (*specials)[*name];
      if (entry.is_object() && entry.contains("ids")) ids = &entry["ids"];
    }
    if (ids == nullptr || !ids->is_array()) {
      return bad_input("its \"post_processor\" does not say what '" + printable(*name) + "' is");
    }
    for (const json& id : *ids) {
      if (!is_token(id, n_tokens)) {
        return bad_input("its \"post_processor\" adds a token that is not one of its " +
                         std::to_string(n_tokens));
      }
      (before ? out.before : out.after).push_back(static_cast<TokenId>(id.get<int64_t>()));
    }
  }
  return {};
}

// RobertaProcessing and BertProcessing: "cls" before, "sep" after, each [text, id].
Result<void> read_pair(const json& post, size_t n_tokens, Surrounding& out) {
  for (const char* key : {"cls", "sep"}) {
    const auto pair = post.find(key);
    if (pair == post.end() || !pair->is_array() || pair->size() != 2 ||
        !is_token((*pair)[1], n_tokens)) {
      return bad_input(std::string("its \"post_processor\" has no token \"") + key + "\"");
    }
    const auto id = static_cast<TokenId>((*pair)[1].get<int64_t>());
    (key[0] == 'c' ? out.before : out.after).push_back(id);
  }
  return {};
}

Result<void> read_post_processor(const json& post, size_t n_tokens, Surrounding& out) {
  if (post.is_null()) return {};
  if (!post.is_object()) return bad_input("its \"post_processor\" is not an object");
  auto type = text_member(post, "type", "");
  if (!type) return type.error();
  if (*type == "Sequence") {
    const auto list = post.find("processors");
    if (list == post.end() || !list->is_array()) {
      return bad_input("its \"post_processor\" has no list \"processors\"");
    }
    for (const json& inner : *list) BANYAN_TRY(read_post_processor(inner, n_tokens, out));
    return {};
  }
  if (*type == "TemplateProcessing") return read_template(post, n_tokens, out);
  if (*type == "RobertaProcessing" || *type == "BertProcessing") {
    return read_pair(post, n_tokens, out);
  }
  if (*type == "ByteLevel") return {};
  return bad_input("its post-processor '" + printable(*type) + "' is not supported");
}

}  // namespace

Result<Vocabulary> parse_tokenizer_json(std::string_view text) {
  auto read_json = read_tokenizer_json(text);
  if (!read_json) return read_json.error();
  const json& tree = read_json->tree;
  auto rules = read_text_rules(tree);
  if (!rules) return rules.error();
  auto added = read_added_tokens(tree);
  if (!added) return added.error();

  const bool unigram = rules->subwords == Subwords::kUnigram;
  Table table;
  BANYAN_TRY(add_vocabulary(*read_json, unigram, table));
  if (!unigram && !read_json->has_merges) return bad_input("it has no merges");
  Vocabulary v;
  for (AddedToken& token : *added) {
    token.matching.token = static_cast<TokenId>(std::clamp<int64_t>(token.id, -1, kMaxTokens));
    BANYAN_TRY(table.add(token.text, token.id,
                         token.special ? TokenType::kControl : TokenType::kUserDefined));
    const TokenMatching& how = token.matching;
    if (how.single_word || how.strip_left || how.strip_right || how.normalized) {
      v.matching.push_back(how);
    }
  }
  auto ids = index_texts(table, unigram);
  if (!ids) return ids.error();
  auto unknown = unknown_token(tree.at("model"), *ids, table.tokens.size());
  if (!unknown) return unknown.error();
  v.unk = *unknown;
  if (v.unk >= 0 && table.types[v.unk] == TokenType::kControl) {
    table.types[v.unk] = TokenType::kUnknown;
  }
  if (rules->byte_fallback) {
    for (size_t id = 0; id < table.tokens.size(); ++id) {
      if (table.types[id] == TokenType::kNormal && parse_byte_token(table.tokens[id])) {
        table.types[id] = TokenType::kByte;
      }
    }
  }
  v.scores.reserve(unigram ? table.tokens.size() : 0);
  for (const auto& [moved, score] : read_json->scored) v.scores.push_back(score);
  if (unigram) v.scores.resize(table.tokens.size());  // of added tokens: 0

  Surrounding surrounding;
  const auto post = tree.find("post_processor");
  if (post != tree.end()) {
    BANYAN_TRY(read_post_processor(*post, table.tokens.size(), surrounding));
  }
  v.add_bos = !surrounding.before.empty();
  v.add_eos = !surrounding.after.empty();
  if (v.add_bos) {
    v.bos = surrounding.before.front();
    v.more_begins.assign(surrounding.before.begin() + 1, surrounding.before.end());
  }
  if (v.add_eos) v.eos = surrounding.after.back();
  v.tokens = std::move(table.tokens);
  v.types = std::move(table.types);
  v.merges = std::move(read_json->merges);
  v.merge_cuts = std::move(read_json->merge_cuts);
  v.rules = *std::move(rules);
  return v;
}

}  // namespace banyan
