// SPDX-License-Identifier: Apache-2.0
#include "text/json_reader.h"

#include <limits>

#include "base/printable.h"

namespace banyan {
namespace {

using nlohmann::json;

constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxValues = size_t{1} << 20;
constexpr size_t kMaxEntries = size_t{1} << 24;

// The events of nlohmann's parser, whose own stack is the heap. An event that returns false ends
// it.
class Reader {
 public:
  explicit Reader(bool is_tokenizer) : is_tokenizer_(is_tokenizer) {}

  TokenizerJson out;
  std::string error;

  bool null() { return value(nullptr); }
  bool boolean(bool b) { return value(b); }
  bool number_integer(int64_t n) { return number(n, static_cast<double>(n)); }
  bool number_unsigned(uint64_t n) {
    constexpr uint64_t kMax = std::numeric_limits<int64_t>::max();
    return number(static_cast<int64_t>(std::min(n, kMax)), static_cast<double>(n));
  }
  bool number_float(double x, const std::string& /*text*/) {
    if (in_ == kNowhere) return value(x);
    return in_ == kVocab ? scored_number(x) : wrong_entry();
  }
  bool string(std::string& text) {
    if (in_ == kNowhere) return value(std::move(text));
    return entry_text(text);
  }
  bool binary(json::binary_t& /*bytes*/) { return false; }

  bool start_object(size_t /*size*/) {
    if (in_ != kNowhere) return wrong_entry();
    if (begins_table(kVocab)) return enter(kVocab, /*object=*/true);
    return open(json::object());
  }
  bool start_array(size_t /*size*/) {
    if (in_ != kNowhere) {
      if (object_ || in_entry_) return wrong_entry();
      in_entry_ = true;
      n_in_entry_ = 0;
      return true;
    }
    if (begins_table(kVocab)) return enter(kVocab, /*object=*/false);
    if (begins_table(kMerges)) return enter(kMerges, /*object=*/false);
    return open(json::array());
  }
  bool key(std::string& text) {
    if (in_ == kVocab) {
      if (out.vocab.size() == kMaxEntries) return fail("its vocabulary has more than 2^24 tokens");
      out.vocab.emplace_back(std::move(text), -1);
      return true;
    }
    key_ = std::move(text);
    if (stack_.back()->contains(key_) || (in_model() && is_table_seen(key_))) {
      return fail("it has the key '" + printable(key_) + "' twice");
    }
    return true;
  }
  bool end_object() { return end(); }
  bool end_array() {
    if (in_entry_) {
      in_entry_ = false;
      return n_in_entry_ == 2 || wrong_entry();
    }
    return end();
  }
  bool parse_error(size_t position, const std::string& /*token*/,
                   const json::exception& /*error*/) {
    return fail("it is not valid JSON at byte " + std::to_string(position));
  }

 private:
  enum Table { kNowhere, kVocab, kMerges };

  bool fail(std::string sentence) {
    error = std::move(sentence);
    return false;
  }
  bool wrong_entry() {
    return fail(in_ == kVocab
                    ? "its vocabulary has an entry that is neither \"text\": id nor [text, score]"
                    : "its merges have an entry that is neither \"left right\" nor [left, right]");
  }

  bool in_model() const { return is_tokenizer_ && stack_.size() == 2 && top_key_ == "model"; }
  bool is_table_seen(const std::string& key) const {
    return (key == "vocab" && seen_vocab_) || (key == "merges" && seen_merges_);
  }
  bool begins_table(Table table) const {
    return in_model() && stack_.back()->is_object() &&
           key_ == (table == kVocab ? "vocab" : "merges");
  }
  bool enter(Table table, bool object) {
    in_ = table;
    object_ = object;
    (table == kVocab ? seen_vocab_ : seen_merges_) = true;
    return true;
  }

  bool end() {
    if (in_ != kNowhere) {
      in_ = kNowhere;
    } else {
      stack_.pop_back();
    }
    return true;
  }

  // Puts a value into the tree and returns its place, nullptr where there is no room.
  json* put(json&& v) {
    if (++n_values_ > kMaxValues) {
      fail("it has more than 2^20 values");
      return nullptr;
    }
    if (stack_.empty()) {
      out.tree = std::move(v);
      return &out.tree;
    }
    json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(v));
      return &parent.back();
    }
    json& place = parent[key_];
    place = std::move(v);
    return &place;
  }
  bool value(json&& v) {
    if (in_ != kNowhere) return wrong_entry();
    return put(std::move(v)) != nullptr;
  }
  bool open(json&& container) {
    if (stack_.size() == kMaxDepth) return fail("it nests deeper than 64 levels");
    if (stack_.size() == 1) top_key_ = stack_[0]->is_object() ? key_ : "";
    json* place = put(std::move(container));
    if (place == nullptr) return false;
    stack_.push_back(place);
    return true;
  }

  bool number(int64_t n, double x) {
    if (in_ == kNowhere) return value(n);
    if (in_ == kVocab && object_) {
      out.vocab.back().second = n;
      return true;
    }
    return in_ == kVocab ? scored_number(x) : wrong_entry();
  }
  bool scored_number(double x) {
    if (object_ || !in_entry_ || n_in_entry_++ != 1) return wrong_entry();
    out.scored.back().second = static_cast<float>(x);
    return true;
  }

  bool entry_text(std::string& text) {
    if (object_) return wrong_entry();
    if (in_ == kVocab) {
      if (!in_entry_ || n_in_entry_++ != 0) return wrong_entry();
      if (out.scored.size() == kMaxEntries) return fail("its vocabulary has more than 2^24 tokens");
      out.scored.emplace_back(std::move(text), 0.0F);
      return true;
    }
    if (!in_entry_) {
      if (out.merges.size() == kMaxEntries) return fail("it has more than 2^24 merges");
      if (!out.merge_cuts.empty()) return wrong_entry();
      out.merges.push_back(std::move(text));
      return true;
    }
    if (n_in_entry_ == 0) {
      if (out.merges.size() == kMaxEntries) return fail("it has more than 2^24 merges");
      if (out.merge_cuts.size() != out.merges.size()) return wrong_entry();
      out.merge_cuts.push_back(static_cast<uint32_t>(text.size()));
      out.merges.push_back(std::move(text));
    } else if (n_in_entry_ == 1) {
      out.merges.back().append(1, ' ').append(text);
    }
    ++n_in_entry_;
    return true;
  }

  bool is_tokenizer_;
  std::vector<json*> stack_;  // open containers of the tree
  std::string key_;           // of the next value
  std::string top_key_;       // of the outermost object, where stack_[1] stands
  size_t n_values_ = 0;

  Table in_ = kNowhere;
  bool object_ = false;  // the table is {..}, not [..]
  bool in_entry_ = false;
  int n_in_entry_ = 0;
  bool seen_vocab_ = false, seen_merges_ = false;
};

Result<TokenizerJson> read(std::string_view text, bool is_tokenizer) {
  Reader reader(is_tokenizer);
  if (!json::sax_parse(text.begin(), text.end(), &reader)) {
    return bad_input(reader.error.empty() ? "it is not valid JSON" : reader.error);
  }
  if (!reader.out.tree.is_object()) return bad_input("it is not a JSON object");
  return std::move(reader.out);
}

}  // namespace

Result<TokenizerJson> read_tokenizer_json(std::string_view json) {
  return read(json, /*is_tokenizer=*/true);
}

Result<nlohmann::json> read_small_json(std::string_view json) {
  auto read_json = read(json, /*is_tokenizer=*/false);
  if (!read_json) return read_json.error();
  return std::move(read_json->tree);
}

}  // namespace banyan
