// SPDX-License-Identifier: Apache-2.0
#include "openai/request.h"

#include <gtest/gtest.h>

namespace banyan {
namespace {

using nlohmann::json;

constexpr int32_t kVocabulary = 100;

const json kChat = json::parse(R"({"messages": [{"role": "user", "content": "Hi"}]})");
const json kCompletion = json::parse(R"({"prompt": "Hi"})");

std::variant<ApiRequest, ApiError> read(const json& body) {
  const bool is_chat = body.is_object() && body.contains("messages");
  return read_request(is_chat ? ApiRoute::kChat : ApiRoute::kCompletions, body, kVocabulary);
}

ApiRequest accepted(const json& body) {
  auto read_body = read(body);
  const auto* error = std::get_if<ApiError>(&read_body);
  EXPECT_EQ(error, nullptr) << error->message;
  return error == nullptr ? std::get<ApiRequest>(read_body) : ApiRequest();
}

// `body` with the field `name` set to what `value` says as JSON.
json with(json body, const std::string& name, const std::string& value) {
  body[name] = json::parse(value);
  return body;
}

TEST(OpenAiRequest, LeftOutAndNullFieldsHaveOpenAisDefaults) {
  const ApiRequest chat = accepted(kChat);
  EXPECT_EQ(chat.request.max_tokens, -1);
  EXPECT_EQ(chat.request.sampler.temperature, 1);
  EXPECT_EQ(chat.request.sampler.top_p, 1);
  EXPECT_EQ(chat.request.sampler.top_k, 0);
  EXPECT_EQ(chat.request.sampler.min_p, 0);
  EXPECT_EQ(chat.request.n, 1);
  EXPECT_FALSE(chat.logprobs);
  EXPECT_NE(chat.request.sampler.seed, accepted(kChat).request.sampler.seed);
  EXPECT_EQ(accepted(kCompletion).request.max_tokens, 16);
  json nulls = kCompletion;
  for (const char* name : {"model", "max_tokens", "temperature", "n", "stop", "logprobs",
                           "logit_bias", "ignore_eos"}) {
    nulls[name] = nullptr;
  }
  EXPECT_EQ(accepted(nulls).request.max_tokens, 16);
  EXPECT_FALSE(accepted(nulls).logprobs);
}

TEST(OpenAiRequest, SaltsAreCountedUp) {
  SaltNumbers numbers;
  EXPECT_EQ(numbers.of(""), 0U);
  EXPECT_EQ(numbers.of("a"), 1U);
  EXPECT_EQ(numbers.of("b"), 2U);
  EXPECT_EQ(numbers.of("a"), 1U);
}

TEST(OpenAiRequest, ReadsEveryField) {
  const ApiRequest chat = accepted(json::parse(R"({
    "model": "m", "max_tokens": 5, "max_completion_tokens": 7.0, "temperature": 0.5, "top_p": 0.25,
    "top_k": 3, "min_p": 0.125, "presence_penalty": -2, "frequency_penalty": 2, "seed": -1,
    "stop": ["a", "b"], "n": 2, "best_of": 3, "logprobs": true, "top_logprobs": 4,
    "ignore_eos": true, "cache_salt": "ours", "logit_bias": {"7": -100, "8": 1.5}, "stream": false, "anything": [{}],
    "messages": [{"role": "system", "content": "Be brief."},
                 {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"text": "lo"}]}]})"));
  EXPECT_EQ(chat.model, "m");
  ASSERT_EQ(chat.messages.size(), 2U);
  EXPECT_EQ(chat.messages[0].role, "system");
  EXPECT_EQ(chat.messages[1].content, "Hello");
  const Request& request = chat.request;
  EXPECT_EQ(request.max_tokens, 7);
  EXPECT_EQ(request.n, 2);
  EXPECT_EQ(request.best_of, 3);
  EXPECT_TRUE(request.ignore_eos);
  EXPECT_EQ(chat.cache_salt, "ours");
  EXPECT_EQ(request.stop, (std::vector<std::string>{"a", "b"}));
  const SamplerParams& sampler = request.sampler;
  EXPECT_EQ(sampler.temperature, 0.5F);
  EXPECT_EQ(sampler.top_p, 0.25F);
  EXPECT_EQ(sampler.top_k, 3);
  EXPECT_EQ(sampler.min_p, 0.125F);
  EXPECT_EQ(sampler.presence_penalty, -2);
  EXPECT_EQ(sampler.frequency_penalty, 2);
  EXPECT_EQ(sampler.seed, ~uint64_t{0});
  EXPECT_EQ(sampler.top_logprobs, 4);
  EXPECT_TRUE(chat.logprobs);
  EXPECT_EQ(sampler.logit_bias, (std::vector<std::pair<TokenId, float>>{{7, -100.0F}, {8, 1.5F}}));
  EXPECT_TRUE(validate(sampler, kVocabulary).has_value());

  EXPECT_EQ(accepted(with(kChat, "stop", R"("x")")).request.stop.size(), 1U);
  EXPECT_EQ(accepted(with(kChat, "seed", "18446744073709551615")).request.sampler.seed,
            ~uint64_t{0});
  const ApiRequest tokens = accepted(json::parse(R"({"prompt": [1, 99, 0], "logprobs": 0})"));
  EXPECT_EQ(std::get<1>(tokens.prompt), (std::vector<TokenId>{1, 99, 0}));
  EXPECT_TRUE(tokens.logprobs);
  EXPECT_EQ(tokens.request.sampler.top_logprobs, 0);
}

TEST(OpenAiRequest, WrongFieldsAreNamed) {
  const auto refuses = [](const json& body, const std::string& param) {
    const auto read_body = read(body);
    const auto* error = std::get_if<ApiError>(&read_body);
    ASSERT_NE(error, nullptr) << body;
    EXPECT_EQ(error->status, 400);
    EXPECT_EQ(error->param, param) << body;
    EXPECT_EQ(error->message.find("\"" + param + "\" is "), 0U) << error->message;
    EXPECT_NE(error->message.find("expected"), std::string::npos) << error->message;
  };
  const std::pair<const char*, std::vector<const char*>> wrong[] = {
      {"max_tokens", {"0", "-1", "1.5", "\"4\"", "true", "1e10", "[]", "{}"}},
      {"max_completion_tokens", {"0"}},
      {"temperature", {"-0.1", "1e300", "\"hot\""}},
      {"top_p", {"0", "1e-300", "1.01"}},
      {"top_k", {"-1", "0.5"}},
      {"min_p", {"-0.5", "2"}},
      {"presence_penalty", {"-3"}},
      {"frequency_penalty", {"2.5"}},
      {"seed", {"1.5", "\"1\""}},
      {"stop", {"\"\"", "[\"a\", \"\"]", "1", "{}"}},
      {"n", {"0", "129"}},
      {"best_of", {"0", "129"}},
      {"ignore_eos", {"1"}},
      {"logit_bias",
       {"[]", "{\"100\": 1}", "{\"-1\": 1}", "{\"x\": 1}", "{\"1\": 101}", "{\"1\": true}",
        "{\"99999999999999999999\": 1}"}},
      {"model", {"1"}},
      {"cache_salt", {"\"\"", "7"}},
  };
  for (const auto& [name, values] : wrong) {
    for (const char* value : values) {
      refuses(with(kChat, name, value), name);
      refuses(with(kCompletion, name, value), name);
    }
  }
  refuses(with(with(kChat, "n", "3"), "best_of", "2"), "best_of");
  refuses(with(kChat, "logprobs", "2"), "logprobs");
  refuses(with(with(kChat, "logprobs", "true"), "top_logprobs", "21"), "top_logprobs");
  refuses(with(kCompletion, "logprobs", "21"), "logprobs");
  refuses(json::parse(R"({"messages": "no"})"), "messages");
  refuses(json::parse(R"({"messages": []})"), "messages");
  refuses(json::parse(R"({"messages": null})"), "messages");
  refuses(json::parse(R"({"messages": ["no"]})"), "messages[0]");
  refuses(json::parse(R"({"messages": [{"content": "a"}]})"), "messages[0].role");
  refuses(json::parse(R"({"messages": [{"role": "user"}]})"), "messages[0].content");
  refuses(json::parse(R"({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})"),
          "messages[0].content");
  refuses(json::object(), "prompt");
  refuses(json::parse(R"({"prompt": 5})"), "prompt");
  refuses(json::parse(R"({"prompt": [1, 100]})"), "prompt[1]");
  refuses(json::parse(R"({"prompt": ["two", "prompts"]})"), "prompt[0]");
  EXPECT_TRUE(std::holds_alternative<ApiError>(read(json::array())));
}

}  // namespace
}  // namespace banyan
