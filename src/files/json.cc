// SPDX-License-Identifier: Apache-2.0
#include "files/json.h"

#include <fmt/format.h>

#include <utility>
#include <vector>

#include "base/printable.h"

namespace banyan {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxDepth = 64;  // real files have 4 levels; recursion over a value stays shallow

// Builds the document event by event. The parser keeps its own stack of brackets on the heap, so
// the depth that is refused here never was a depth of calls.
class Builder final : public Json::json_sax_t {
 public:
  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t&) override { return put(value); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { return fail("it holds binary data, which JSON has not"); }

  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& value) override {
    auto [entry, is_new] = open_.back()->emplace(value, nullptr);
    if (!is_new) return fail(fmt::format("it names '{}' twice in one object", printable(value)));
    slot_ = &*entry;
    return true;
  }

  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    return fail(fmt::format("it is no JSON at byte {}", position));
  }

  Json root;
  std::string what;  // is wrong, if anything is

 private:
  bool fail(std::string text) {
    what = std::move(text);
    return false;
  }

  // Where the next value goes: the root, the end of an array, or behind the key just read.
  Json& place(Json&& value) {
    if (open_.empty()) return root = std::move(value);
    if (open_.back()->is_array()) {
      open_.back()->push_back(std::move(value));
      return open_.back()->back();
    }
    return *slot_ = std::move(value);
  }

  bool put(Json&& value) {
    place(std::move(value));
    return true;
  }

  bool open(Json&& value) {
    if (open_.size() == kMaxDepth) {
      return fail(fmt::format("it nests deeper than {} levels", kMaxDepth));
    }
    open_.push_back(&place(std::move(value)));
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  std::vector<Json*> open_;  // objects and arrays around the current place; only the last one grows
  Json* slot_ = nullptr;
};

}  // namespace

Result<Json> parse_json(std::string_view text, const std::string& name) {
  Builder builder;
  if (!Json::sax_parse(text.begin(), text.end(), &builder)) {
    return bad_input(fmt::format("'{}': {}", name, builder.what));
  }
  return std::move(builder.root);
}

}  // namespace banyan
