// SPDX-License-Identifier: Apache-2.0
#pragma once
// Reads a tokenizer.json in one pass: its vocabulary and merges, which are nearly all of it,
// straight into vectors, the rest into a small tree.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace banyan {

struct TokenizerJson {  // NOLINT(bugprone-exception-escape): of the library's own assertions
  nlohmann::json tree;  // with null for model.vocab and model.merges
  std::vector<std::pair<std::string, int64_t>> vocab;  // {"text": id, ..}
  std::vector<std::pair<std::string, float>> scored;   // or [["text", score], ..], ids in order
  std::vector<std::string> merges;                     // "left right"
  bool has_merges = false;           // there is a list of them, which may be empty
  std::vector<uint32_t> merge_cuts;  // where the left sides end; empty for merges of old style
};

// kBadInput, in a sentence without a file name, for what parse_json() refuses, more than 2^20
// values outside vocabulary and merges, or entries there that are of a wrong type. Memory is in
// proportion to the text.
Result<TokenizerJson> read_tokenizer_json(std::string_view text);

// Any other small JSON document, within the same bounds.
Result<nlohmann::json> read_small_json(std::string_view text);

}  // namespace banyan
