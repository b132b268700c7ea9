// SPDX-License-Identifier: Apache-2.0
#pragma once
// OpenAI's batch files: a request on each line, and a result on each line.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "openai/request.h"

namespace banyan {

constexpr size_t kMostLineBytes = 64 << 20;  // longer lines are refused

struct BatchLine {
  std::optional<std::string> custom_id;  // none where none can be read
  std::variant<ApiRequest, ApiError> asked;
};
// {custom_id, method, url, body}, without the line's end.
BatchLine read_batch_line(std::string_view line, int32_t vocabulary_size);

// {id, custom_id, response: {status_code, request_id, body}, error: null} with its end, where
// `number` is the line's, from 1, and `body` is JSON.
std::string batch_result(size_t number, const std::optional<std::string>& custom_id, int status,
                         std::string_view body);
// Whether a text without an end may be the beginning of a result.
bool may_begin_result(std::string_view text);

struct BatchResult {
  std::optional<std::string> custom_id;
  bool failed = false;
};
// What a line, without its end, says of itself; none if it is no result.
std::optional<BatchResult> read_batch_result(std::string_view line);

}  // namespace banyan
