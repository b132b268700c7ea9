// SPDX-License-Identifier: Apache-2.0
#include "text/json_reader.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/json.h"

namespace banyan {
namespace {

constexpr size_t kMaxValues = size_t{1} << 20;
constexpr size_t kMaxEntries = size_t{1} << 24;

// Takes the two tables out of the events.
class Reader final : public JsonBuilder {
 public:
  Reader() : JsonBuilder(kMaxValues) {}

  TokenizerJson out;

  bool null() override { return in_ == kNowhere ? JsonBuilder::null() : wrong_entry(); }
  bool boolean(bool b) override {
    return in_ == kNowhere ? JsonBuilder::boolean(b) : wrong_entry();
  }
  bool number_integer(int64_t n) override {
    if (in_ == kNowhere) return JsonBuilder::number_integer(n);
    return entry_number(n, static_cast<double>(n));
  }
  bool number_unsigned(uint64_t n) override {
    constexpr uint64_t kMax = std::numeric_limits<int64_t>::max();
    const auto clamped = static_cast<int64_t>(std::min(n, kMax));
    if (in_ == kNowhere) return JsonBuilder::number_integer(clamped);
    return entry_number(clamped, static_cast<double>(n));
  }
  bool number_float(double x, const std::string& text) override {
    if (in_ == kNowhere) return JsonBuilder::number_float(x, text);
    return in_ == kVocab ? entry_score(x) : wrong_entry();
  }
  bool string(std::string& text) override {
    return in_ == kNowhere ? JsonBuilder::string(text) : entry_text(text);
  }

  bool start_object(size_t size) override {
    if (in_ != kNowhere) return wrong_entry();
    return next_ == kVocab ? enter(/*object=*/true) : JsonBuilder::start_object(size);
  }
  bool start_array(size_t size) override {
    if (in_ == kNowhere) {
      return next_ != kNowhere ? enter(/*object=*/false) : JsonBuilder::start_array(size);
    }
    if (object_ || in_entry_) return wrong_entry();
    in_entry_ = true;
    n_in_entry_ = 0;
    return true;
  }
  bool key(std::string& text) override {
    if (in_ == kVocab) {
      if (out.vocab.size() == kMaxEntries) return fail("its vocabulary has more than 2^24 tokens");
      out.vocab.emplace_back(std::move(text), -1);
      return true;
    }
    if (depth() == 1) in_model_ = text == "model";
    next_ = kNowhere;
    if (depth() == 2 && in_model_ && text == "vocab") next_ = kVocab;
    if (depth() == 2 && in_model_ && text == "merges") next_ = kMerges;
    return JsonBuilder::key(text);
  }
  bool end_object() override { return in_ == kNowhere ? JsonBuilder::end_object() : leave(); }
  bool end_array() override {
    if (in_ == kNowhere) return JsonBuilder::end_array();
    if (!in_entry_) return leave();
    in_entry_ = false;
    return n_in_entry_ == 2 || wrong_entry();
  }

 private:
  enum Table { kNowhere, kVocab, kMerges };

  bool wrong_entry() {
    return fail(in_ == kVocab
                    ? "its vocabulary has an entry that is neither \"text\": id nor [text, score]"
                    : "its merges have an entry that is neither \"left right\" nor [left, right]");
  }

  bool enter(bool object) {
    in_ = next_;
    if (in_ == kMerges) out.has_merges = !object;
    object_ = object;
    return true;
  }
  bool leave() {
    in_ = kNowhere;
    return true;
  }

  bool entry_number(int64_t n, double x) {
    if (in_ == kMerges) return wrong_entry();
    if (!object_) return entry_score(x);
    out.vocab.back().second = n;
    return true;
  }
  bool entry_score(double x) {
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

  bool in_model_ = false;  // under the key "model" of the whole
  Table next_ = kNowhere;  // what the key just read names
  Table in_ = kNowhere;
  bool object_ = false;  // the table is {..}, not [..]
  bool in_entry_ = false;
  int n_in_entry_ = 0;
};

}  // namespace

Result<TokenizerJson> read_tokenizer_json(std::string_view text) {
  Reader reader;
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &reader)) return bad_input(reader.error);
  if (!reader.root.is_object()) return bad_input("it is not a JSON object");
  reader.out.tree = std::move(reader.root);
  return std::move(reader.out);
}

Result<nlohmann::json> read_small_json(std::string_view text) {
  auto document = parse_json(text, kMaxValues);
  if (document && !document->is_object()) return bad_input("it is not a JSON object");
  return document;
}

}  // namespace banyan
