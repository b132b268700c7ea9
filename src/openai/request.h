// SPDX-License-Identifier: Apache-2.0
#pragma once
// The bodies of OpenAI's requests, read as claims: each field checked, errors that name it.

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/request.h"
#include "text/chat_template.h"

namespace banyan {

enum class ApiRoute { kChat, kCompletions };
// Of "/v1/chat/completions" and "/v1/completions".
std::optional<ApiRoute> find_route(std::string_view path);

// A refusal, as HTTP and OpenAI's error object say it.
struct ApiError {
  int status = 400;     // of HTTP
  std::string message;  // one sentence
  std::string param;    // the field that is wrong; may be empty
};

struct ApiRequest {
  ApiRoute route = ApiRoute::kChat;
  std::string model;                                       // as asked for; any name is answered
  std::vector<ChatMessage> messages;                       // kChat
  std::variant<std::string, std::vector<TokenId>> prompt;  // kCompletions: raw text, or tokens
  Request request;                                         // all but its prompt and salt
  std::string cache_salt;                                  // not empty, or none
  bool logprobs = false;                                   // are to be reported
};

// Numbers for Request::salt, counted up; 0 for none.
class SaltNumbers {
 public:
  uint64_t of(const std::string& cache_salt) {
    if (cache_salt.empty()) return 0;
    return numbers_.try_emplace(cache_salt, numbers_.size() + 1).first->second;
  }

 private:
  std::map<std::string, uint64_t> numbers_;
};

// Fields that are unknown, or null, are passed over. Where a field is left out OpenAI's default
// holds (temperature and top_p 1, an answer as long as the context, or 16 tokens for completions),
// and what OpenAI has not (top_k, min_p, ..) is off; without a seed a new one is drawn. The numbers
// are in the ranges that Engine::submit() asks for.
std::variant<ApiRequest, ApiError> read_request(ApiRoute route, const nlohmann::json& body,
                                                int32_t vocabulary_size);

}  // namespace banyan
