// SPDX-License-Identifier: Apache-2.0
#pragma once
// JSON of model folders, read as a claim like any other file: bounded in depth, without duplicate
// keys, UTF-8 throughout.

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

namespace banyan {

// The document in `text`. kBadInput: "'name': what", for text that is no JSON or not UTF-8, nests
// deeper than 64 levels or names a key twice in one object. No recursion, whatever the text.
Result<nlohmann::json> parse_json(std::string_view text, const std::string& name);

}  // namespace banyan
