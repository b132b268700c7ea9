// SPDX-License-Identifier: Apache-2.0
#pragma once
// JSON from outside, read as a claim: bounded, without duplicate keys, UTF-8 throughout. No
// recursion, whatever the text.

#include <cstddef>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace banyan {

// The document in `text`. kBadInput, in a sentence without a file name, for text that is not JSON
// or not UTF-8, nests deeper than 64 levels, names a key twice in one object or has more than
// `max_values` values. Memory is in proportion to the text.
Result<nlohmann::json> parse_json(std::string_view text,
                                  size_t max_values = std::numeric_limits<size_t>::max());

// Builds such a document from the events of nlohmann::json::sax_parse(). A reader that wants some
// of the values elsewhere derives from it and passes the others on.
class JsonBuilder : public nlohmann::json::json_sax_t {
 public:
  explicit JsonBuilder(size_t max_values) : max_values_(max_values) {}

  bool null() override { return put(nullptr) != nullptr; }
  bool boolean(bool value) override { return put(value) != nullptr; }
  bool number_integer(number_integer_t value) override { return put(value) != nullptr; }
  bool number_unsigned(number_unsigned_t value) override { return put(value) != nullptr; }
  bool number_float(number_float_t value, const string_t& /*text*/) override {
    return put(value) != nullptr;
  }
  bool string(string_t& value) override { return put(std::move(value)) != nullptr; }
  bool binary(binary_t& bytes) override;
  bool start_object(size_t /*size*/) override { return open(nlohmann::json::object()); }
  bool start_array(size_t /*size*/) override { return open(nlohmann::json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  // The value is null until one is passed on.
  bool key(string_t& text) override;
  bool parse_error(size_t position, const std::string& token,
                   const nlohmann::detail::exception& error) override;

  nlohmann::json root;
  std::string error;  // why an event returned false: a sentence

 protected:
  bool fail(std::string sentence);
  size_t depth() const { return open_.size(); }  // of objects and arrays around the current place

 private:
  nlohmann::json* put(nlohmann::json&& value);  // its place, nullptr if there are too many
  bool open(nlohmann::json&& container);
  bool close();

  size_t max_values_;
  size_t n_values_ = 0;
  std::vector<nlohmann::json*> open_;  // only the last one grows
  nlohmann::json* slot_ = nullptr;     // of the key just read
};

}  // namespace banyan
