// SPDX-License-Identifier: Apache-2.0
#pragma once
// From OpenAI's request to the engine's, and from its reply to OpenAI's.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"
#include "engine/engine.h"
#include "openai/request.h"

namespace banyan {

using Json = nlohmann::ordered_json;

// With its prompt in tokens. kBadInput where the chat template or the tokenizer refuses.
Result<Request> engine_request(const Engine& engine, const ApiRequest& asked);

// `id`: of the reply; `created`: seconds since 1970. A chat.completion or text_completion object,
// with `cache` and `compute` beside OpenAI's fields, and in a choice that ended before it was asked
// to `note`, which says why.
Json reply_json(const Engine& engine, const ApiRequest& asked, const Reply& reply,
                const std::string& id, int64_t created);
// {"error": {message, type, param, code}}
Json error_json(const ApiError& error);
// What the engine says of a request, as a status and a sentence.
ApiError api_error(const Error& error);

Json usage_json(const Reply& reply);
Json cache_json(const CacheFacts& facts);
Json speculation_json(const SpeculationFacts& facts);

// On one line, without its end. Text that is not UTF-8 gets U+FFFD.
std::string to_line(const Json& json);

}  // namespace banyan
