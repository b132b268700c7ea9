// SPDX-License-Identifier: Apache-2.0
#include "base/json.h"

#include <fmt/format.h>

#include <utility>

#include "base/printable.h"

namespace banyan {
namespace {

using nlohmann::json;

constexpr size_t kMaxDepth = 64;  // real files have 9 levels; recursion over a value stays shallow

}  // namespace

bool JsonBuilder::fail(std::string sentence) {
  error = std::move(sentence);
  return false;
}

bool JsonBuilder::binary(binary_t& /*bytes*/) {
  return fail("it holds binary data, which JSON has not");
}

bool JsonBuilder::parse_error(size_t position, const std::string& /*token*/,
                              const nlohmann::detail::exception& /*error*/) {
  return fail(fmt::format("it is not valid JSON at byte {}", position));
}

bool JsonBuilder::key(string_t& text) {
  auto [entry, is_new] = open_.back()->emplace(text, nullptr);
  if (!is_new) return fail(fmt::format("it has the key '{}' twice", printable(text)));
  slot_ = &*entry;
  return true;
}

json* JsonBuilder::put(json&& value) {
  if (n_values_++ == max_values_) {
    fail(fmt::format("it has more than {} values", max_values_));
    return nullptr;
  }
  json* place = &root;
  if (!open_.empty() && open_.back()->is_array()) {
    open_.back()->push_back(nullptr);
    place = &open_.back()->back();
  } else if (!open_.empty()) {
    place = slot_;
  }
  *place = std::move(value);
  return place;
}

bool JsonBuilder::open(json&& container) {
  if (open_.size() == kMaxDepth) {
    return fail(fmt::format("it nests deeper than {} levels", kMaxDepth));
  }
  json* place = put(std::move(container));
  if (place == nullptr) return false;
  open_.push_back(place);
  return true;
}

bool JsonBuilder::close() {
  open_.pop_back();
  return true;
}

Result<json> parse_json(std::string_view text, size_t max_values) {
  JsonBuilder builder(max_values);
  if (!json::sax_parse(text.begin(), text.end(), &builder)) return bad_input(builder.error);
  return std::move(builder.root);
}

}  // namespace banyan
