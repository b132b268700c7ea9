// SPDX-License-Identifier: Apache-2.0
#include "openai/request.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <random>

#include "base/printable.h"

namespace banyan {
namespace {

using nlohmann::json;

constexpr double kMost = std::numeric_limits<float>::max();
constexpr double kAboveZero = std::numeric_limits<float>::min();
constexpr double kMostInt = std::numeric_limits<int>::max();
constexpr int kMostSamples = 128;
constexpr int kMostTopLogprobs = 20;
constexpr int kCompletionTokens = 16;

// The fields of a body, read one after another until the first that is wrong.
class Fields {
 public:
  explicit Fields(const json& body) : body_(body) {}

  const std::optional<ApiError>& error() const { return error_; }

  // The value, if it is there and not null.
  const json* find(const std::string& name) const {
    if (error_) return nullptr;
    const auto found = body_.find(name);
    return found == body_.end() || found->is_null() ? nullptr : &*found;
  }

  void fail(std::string param, std::string_view what) {
    if (!error_) error_ = {400, fmt::format("\"{}\" {}", param, what), std::move(param)};
  }
  void fail(std::string param, const json& value, std::string_view expected) {
    fail(std::move(param),
         fmt::format("is {}, expected {}", printable(value.dump(), 40), expected));
  }

  // `expected` says the range, which both ends belong to.
  template <class T>
  void number(const std::string& name, double low, double high, std::string_view expected, T& out) {
    const json* value = find(name);
    if (value == nullptr) return;
    const double given = value->is_number() ? value->get<double>() : std::nan("");
    const bool fits = std::is_floating_point_v<T> || std::trunc(given) == given;
    if (!(given >= low && given <= high && fits)) return fail(name, *value, expected);
    out = static_cast<T>(given);
  }

  void flag(const std::string& name, bool& out) {
    const json* value = find(name);
    if (value == nullptr) return;
    if (!value->is_boolean()) return fail(name, *value, "true or false");
    out = value->get<bool>();
  }

 private:
  const json& body_;
  std::optional<ApiError> error_;
};

// A text, or a list of parts that are texts.
std::optional<std::string> content_of(const json& content) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) return std::nullopt;
  std::string text;
  for (const json& part : content) {
    if (!part.is_object() || !part.contains("text") || !part["text"].is_string()) {
      return std::nullopt;
    }
    text += part["text"].get_ref<const std::string&>();
  }
  return text;
}

void read_messages(Fields& fields, std::vector<ChatMessage>& messages) {
  constexpr std::string_view kExpected = "a list of messages with role and content";
  const json* list = fields.find("messages");
  if (list == nullptr)
    return fields.fail("messages", fmt::format("is missing, expected {}", kExpected));
  if (!list->is_array() || list->empty()) return fields.fail("messages", *list, kExpected);
  for (const json& message : *list) {
    const std::string place = fmt::format("messages[{}]", messages.size());
    if (!message.is_object()) return fields.fail(place, message, "an object with role and content");
    const json role = message.value("role", json());
    if (!role.is_string()) return fields.fail(place + ".role", role, "a string");
    const json content = message.value("content", json());
    auto text = content_of(content);
    if (!text) return fields.fail(place + ".content", content, "a string, or a list of text parts");
    messages.push_back({role.get<std::string>(), *std::move(text)});
  }
}

void read_prompt(Fields& fields, int32_t vocabulary_size,
                 std::variant<std::string, std::vector<TokenId>>& prompt) {
  constexpr std::string_view kExpected = "a string or a list of token ids";
  const json* value = fields.find("prompt");
  if (value == nullptr)
    return fields.fail("prompt", fmt::format("is missing, expected {}", kExpected));
  if (value->is_string()) {
    prompt = value->get<std::string>();
    return;
  }
  if (!value->is_array()) return fields.fail("prompt", *value, kExpected);
  std::vector<TokenId> tokens;
  for (const json& token : *value) {
    const bool is_token = token.is_number_integer() && token.get<double>() >= 0 &&
                          token.get<double>() < vocabulary_size;
    if (!is_token) {
      return fields.fail(
          fmt::format("prompt[{}]", tokens.size()), token,
          fmt::format("a token id below {}; a request has one prompt", vocabulary_size));
    }
    tokens.push_back(token.get<TokenId>());
  }
  prompt = std::move(tokens);
}

void read_stop(Fields& fields, std::vector<std::string>& stop) {
  const json* value = fields.find("stop");
  if (value == nullptr) return;
  const json list = value->is_array() ? *value : json::array({*value});
  for (const json& text : list) {
    if (!text.is_string() || text.get_ref<const std::string&>().empty()) {
      return fields.fail("stop", *value, "a text, or a list of texts");
    }
    stop.push_back(text.get<std::string>());
  }
}

void read_logit_bias(Fields& fields, int32_t vocabulary_size,
                     std::vector<std::pair<TokenId, float>>& biases) {
  const json* value = fields.find("logit_bias");
  if (value == nullptr) return;
  constexpr std::string_view kExpected = "an object of token ids and numbers from -100 to 100";
  if (!value->is_object()) return fields.fail("logit_bias", *value, kExpected);
  for (const auto& [key, bias] : value->items()) {
    TokenId token = -1;
    const char* end = key.data() + key.size();
    const bool is_id =
        std::from_chars(key.data(), end, token).ptr == end && token >= 0 && token < vocabulary_size;
    if (!is_id || !bias.is_number() || std::abs(bias.get<double>()) > 100) {
      return fields.fail("logit_bias", *value, kExpected);
    }
    biases.emplace_back(token, bias.get<float>());
  }
}

void read_seed(Fields& fields, uint64_t& seed) {
  const json* value = fields.find("seed");
  if (value == nullptr) {
    seed = std::random_device{}();
  } else if (!value->is_number_integer()) {
    fields.fail("seed", *value, "an integer");
  } else {
    seed = value->get<uint64_t>();
  }
}

void read_sampler(Fields& fields, int32_t vocabulary_size, SamplerParams& sampler) {
  sampler.temperature = 1;
  sampler.top_p = 1;
  sampler.top_k = 0;
  sampler.min_p = 0;
  constexpr std::string_view kFraction = "a number between 0 and 1";
  constexpr std::string_view kShare = "a number above 0 and at most 1";
  constexpr std::string_view kPenalty = "a number between -2 and 2";
  fields.number("temperature", 0, kMost, "a number that is 0 or more", sampler.temperature);
  fields.number("top_p", kAboveZero, 1, kShare, sampler.top_p);
  fields.number("top_k", 0, kMostInt, "a whole number that is 0 (all) or more", sampler.top_k);
  fields.number("min_p", 0, 1, kFraction, sampler.min_p);
  fields.number("presence_penalty", -2, 2, kPenalty, sampler.presence_penalty);
  fields.number("frequency_penalty", -2, 2, kPenalty, sampler.frequency_penalty);
  read_logit_bias(fields, vocabulary_size, sampler.logit_bias);
  read_seed(fields, sampler.seed);
}

void read_logprobs(Fields& fields, ApiRequest& asked) {
  int& top = asked.request.sampler.top_logprobs;
  const std::string expected = fmt::format("a whole number from 0 to {}", kMostTopLogprobs);
  if (asked.route == ApiRoute::kChat) {
    fields.flag("logprobs", asked.logprobs);
    if (asked.logprobs) fields.number("top_logprobs", 0, kMostTopLogprobs, expected, top);
  } else {
    asked.logprobs = fields.find("logprobs") != nullptr;
    fields.number("logprobs", 0, kMostTopLogprobs, expected, top);
  }
  asked.request.sampler.want_logprob = asked.logprobs;
}

}  // namespace

std::optional<ApiRoute> find_route(std::string_view path) {
  if (path == "/v1/chat/completions") return ApiRoute::kChat;
  if (path == "/v1/completions") return ApiRoute::kCompletions;
  return std::nullopt;
}

std::variant<ApiRequest, ApiError> read_request(ApiRoute route, const json& body,
                                                int32_t vocabulary_size) {
  if (!body.is_object()) return ApiError{400, "the body is no JSON object", ""};
  Fields fields(body);
  ApiRequest asked;
  asked.route = route;
  const bool is_chat = route == ApiRoute::kChat;
  if (is_chat) {
    read_messages(fields, asked.messages);
  } else {
    read_prompt(fields, vocabulary_size, asked.prompt);
  }
  if (const json* model = fields.find("model")) {
    if (!model->is_string())
      fields.fail("model", *model, "a string");
    else
      asked.model = model->get<std::string>();
  }
  Request& request = asked.request;
  request.max_tokens = is_chat ? -1 : kCompletionTokens;
  for (const char* name : {"max_tokens", "max_completion_tokens"}) {
    fields.number(name, 1, kMostInt, "a whole number that is 1 or more", request.max_tokens);
  }
  fields.number("n", 1, kMostSamples, fmt::format("a whole number from 1 to {}", kMostSamples),
                request.n);
  fields.number(
      "best_of", request.n, kMostSamples,
      fmt::format("a whole number from \"n\", which is {}, to {}", request.n, kMostSamples),
      request.best_of);
  fields.flag("ignore_eos", request.ignore_eos);
  if (const json* salt = fields.find("cache_salt")) {
    if (!salt->is_string() || salt->get_ref<const std::string&>().empty()) {
      fields.fail("cache_salt", *salt, "a string that is not empty");
    } else {
      asked.cache_salt = salt->get<std::string>();
    }
  }
  read_stop(fields, request.stop);
  read_sampler(fields, vocabulary_size, request.sampler);
  read_logprobs(fields, asked);
  if (fields.error()) return *fields.error();
  return asked;
}

}  // namespace banyan
