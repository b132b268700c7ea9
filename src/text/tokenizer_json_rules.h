// SPDX-License-Identifier: Apache-2.0
#pragma once
// The parts of a tokenizer.json that say what happens to a text, as rules.

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "text/text_rules.h"

namespace banyan {

// From "normalizer", "pre_tokenizer", "decoder" and "model" of a whole tokenizer.json. kBadInput,
// in a sentence without a file name, for parts that are malformed or not supported; those are
// named.
Result<TextRules> read_text_rules(const nlohmann::json& tokenizer);

// Members of an object, with a fallback where there is none or it is null. kBadInput if of another
// type.
Result<std::string> text_member(const nlohmann::json& object, const char* key,
                                const std::string& fallback);
Result<bool> flag_member(const nlohmann::json& object, const char* key, bool fallback);

}  // namespace banyan
