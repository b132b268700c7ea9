// SPDX-License-Identifier: Apache-2.0
#include "openai/batch_line.h"

#include <fmt/format.h>

#include "base/json.h"
#include "base/printable.h"

namespace banyan {
namespace {

using nlohmann::json;

constexpr std::string_view kBegin = R"({"id":"batch_req_)";

std::optional<std::string> custom_id_of(const json& line) {
  if (!line.is_object() || !line.contains("custom_id")) return std::nullopt;
  const json& id = line["custom_id"];
  return id.is_string() ? std::optional(id.get<std::string>()) : std::nullopt;
}

}  // namespace

BatchLine read_batch_line(std::string_view text, int32_t vocabulary_size) {
  if (text.size() > kMostLineBytes) {
    return {{}, ApiError{400, fmt::format("the line has more than {} bytes", kMostLineBytes), ""}};
  }
  const auto parsed = parse_json(text);
  if (!parsed) {
    return {{}, ApiError{400, "the line cannot be read: " + parsed.error().message, ""}};
  }
  const json& line = *parsed;
  BatchLine read{custom_id_of(line), ApiError{}};
  const auto refuse = [&](int status, const char* param, std::string_view expected) {
    const std::string value =
        line.is_object() && line.contains(param) ? "is " + line[param].dump() : "is missing";
    read.asked = ApiError{
        status, fmt::format("\"{}\" {}, expected {}", param, printable(value, 40), expected),
        param};
    return read;
  };
  if (!read.custom_id) return refuse(400, "custom_id", "a string");
  if (line.value("method", json("POST")) != "POST") return refuse(400, "method", "\"POST\"");
  const json url = line.value("url", json());
  const auto route = url.is_string() ? find_route(url.get_ref<const std::string&>()) : std::nullopt;
  if (!route) return refuse(404, "url", "/v1/chat/completions or /v1/completions");
  if (!line.contains("body") || !line["body"].is_object()) {
    return refuse(400, "body", "a JSON object");
  }
  read.asked = read_request(*route, line["body"], vocabulary_size);
  return read;
}

std::string batch_result(size_t number, const std::optional<std::string>& custom_id, int status,
                         std::string_view body) {
  return fmt::format(
      R"({}{}","custom_id":{},"response":{{"status_code":{},"request_id":"req_{}","body":{}}},"error":null}})"
      "\n",
      kBegin, number, custom_id ? json(*custom_id).dump() : "null", status, number, body);
}

bool may_begin_result(std::string_view text) {
  const size_t n = std::min(text.size(), kBegin.size());
  return text.substr(0, n) == kBegin.substr(0, n);
}

std::optional<BatchResult> read_batch_result(std::string_view text) {
  const auto parsed = parse_json(text);
  if (!parsed || !parsed->is_object() || !parsed->contains("response")) return std::nullopt;
  const json& response = (*parsed)["response"];
  const bool done = response.is_object() && response.value("status_code", json()) == 200;
  return BatchResult{custom_id_of(*parsed), !done};
}

}  // namespace banyan
