// SPDX-License-Identifier: Apache-2.0
#include "openai/reply.h"

#include <fmt/format.h>

#include <filesystem>

namespace banyan {
namespace {

std::string text_of(const Engine& engine, TokenId token) {
  return std::string(engine.tokenizer().piece(token, Special::kParse));
}

// The token's text; of parts of characters, which would all be U+FFFD, its id, as vLLM writes it.
std::string key_of(const Engine& engine, TokenId token) {
  const std::string text = text_of(engine, token);
  const bool is_utf8 = to_line(text).find("\xEF\xBF\xBD") == std::string::npos;
  return is_utf8 ? text : fmt::format("token_id:{}", token);
}

Json chat_logprobs(const Engine& engine, const Sample& sample) {
  const auto entry = [&](TokenId token, float logprob) {
    const std::string text = text_of(engine, token);
    return Json{{"token", text},
                {"logprob", logprob},
                {"bytes", std::vector<uint8_t>(text.begin(), text.end())}};
  };
  Json content = Json::array();
  for (size_t i = 0; i < sample.tokens.size(); ++i) {
    Json item = entry(sample.tokens[i], sample.logprobs[i]);
    item["top_logprobs"] = Json::array();
    if (i < sample.top_logprobs.size()) {
      for (const TokenLogprob& top : sample.top_logprobs[i]) {
        item["top_logprobs"].push_back(entry(top.token, top.logprob));
      }
    }
    content.push_back(std::move(item));
  }
  return {{"content", std::move(content)}};
}

Json completion_logprobs(const Engine& engine, const Sample& sample) {
  Json tokens = Json::array();
  Json tops = Json::array();
  Json offsets = Json::array();
  size_t offset = 0;
  for (size_t i = 0; i < sample.tokens.size(); ++i) {
    const std::string text = text_of(engine, sample.tokens[i]);
    tokens.push_back(text);
    offsets.push_back(offset);
    offset += text.size();
    if (i >= sample.top_logprobs.size()) continue;
    Json top = Json::object();
    for (const TokenLogprob& one : sample.top_logprobs[i]) {
      top[key_of(engine, one.token)] = one.logprob;
    }
    tops.push_back(std::move(top));
  }
  return {{"tokens", std::move(tokens)},
          {"token_logprobs", sample.logprobs},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

}  // namespace

Result<Request> engine_request(const Engine& engine, const ApiRequest& asked) {
  Request request = asked.request;
  if (const auto* tokens = std::get_if<std::vector<TokenId>>(&asked.prompt)) {
    request.prompt = *tokens;
    return request;
  }
  auto prompt = asked.route == ApiRoute::kChat
                    ? engine.encode_chat(asked.messages)
                    : engine.encode_raw(std::get<std::string>(asked.prompt));
  if (!prompt) return prompt.error();
  request.prompt = *std::move(prompt);
  return request;
}

Json reply_json(const Engine& engine, const ApiRequest& asked, const Reply& reply,
                const std::string& id, int64_t created) {
  const bool is_chat = asked.route == ApiRoute::kChat;
  Json choices = Json::array();
  for (const Sample& sample : reply.samples) {
    Json choice = {{"index", choices.size()}};
    if (is_chat) {
      choice["message"] = {{"role", "assistant"}, {"content", sample.text}, {"refusal", nullptr}};
    } else {
      choice["text"] = sample.text;
    }
    choice["logprobs"] = !asked.logprobs ? Json()
                         : is_chat       ? chat_logprobs(engine, sample)
                                         : completion_logprobs(engine, sample);
    choice["finish_reason"] = name(sample.finish);
    if (!sample.note.empty()) choice["note"] = sample.note;
    choices.push_back(std::move(choice));
  }
  const EngineOptions& options = engine.options();
  return {
      {"id", (is_chat ? "chatcmpl-" : "cmpl-") + id},
      {"object", is_chat ? "chat.completion" : "text_completion"},
      {"created", created},
      {"model", asked.model.empty() ? std::filesystem::path(options.model_path).filename().string()
                                    : asked.model},
      {"choices", std::move(choices)},
      {"usage", usage_json(reply)},
      {"cache", cache_json(reply.cache)},
      {"speculation", speculation_json(reply.speculation)},
      {"compute", options.compute == Compute::kF32 ? "f32" : "auto"}};
}

Json error_json(const ApiError& error) {
  const char* type = error.status < 500 ? "invalid_request_error" : "server_error";
  return {{"error",
           {{"message", error.message},
            {"type", type},
            {"param", error.param.empty() ? Json() : Json(error.param)},
            {"code", nullptr}}}};
}

ApiError api_error(const Error& error) {
  return {error.code == ErrorCode::kBadInput ? 400 : 500, error.message, ""};
}

Json usage_json(const Reply& reply) {
  size_t n_generated = 0;
  for (const Sample& sample : reply.samples) n_generated += sample.tokens.size();
  return {{"prompt_tokens", reply.prompt_tokens},
          {"completion_tokens", n_generated},
          {"total_tokens", reply.prompt_tokens + n_generated},
          {"prompt_tokens_details", {{"cached_tokens", reply.cached_tokens}}}};
}

Json cache_json(const CacheFacts& facts) {
  Json json = {{"reused_tokens", facts.reused_tokens},
               {"computed_tokens", facts.computed_tokens},
               {"from",
                {{"memory", facts.from.memory},
                 {"compressed", facts.from.compressed},
                 {"disk", facts.from.disk}}},
               {"exact", facts.exact},
               {"why", name(facts.why)}};
  if (facts.why == CacheWhy::kDiverged) {
    json["position"] = facts.position;
    json["before"] = facts.before;
    json["had"] = facts.had;
    json["got"] = facts.got;
  }
  return json;
}

Json speculation_json(const SpeculationFacts& facts) {
  return {{"drafted", facts.drafted},
          {"accepted", facts.accepted},
          {"accepted_off_chain", facts.accepted_off_chain},
          {"steps", facts.steps}};
}

std::string to_line(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace banyan
