// SPDX-License-Identifier: Apache-2.0
#include "openai/batch_line.h"

#include <gtest/gtest.h>

namespace banyan {
namespace {

using nlohmann::json;

constexpr int32_t kVocabulary = 100;

json good_line() {
  return json::parse(R"({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
                         "body": {"messages": [{"role": "user", "content": "Hi"}]}})");
}

TEST(BatchLine, ReadsBothRoutes) {
  const BatchLine chat = read_batch_line(good_line().dump(), kVocabulary);
  EXPECT_EQ(chat.custom_id, "a");
  EXPECT_EQ(std::get<ApiRequest>(chat.asked).messages.at(0).content, "Hi");
  const BatchLine text = read_batch_line(
      R"({"custom_id": "", "url": "/v1/completions", "body": {"prompt": [1, 2]}})", kVocabulary);
  EXPECT_EQ(text.custom_id, "");
  EXPECT_EQ(std::get<ApiRequest>(text.asked).route, ApiRoute::kCompletions);
}

TEST(BatchLine, WrongLinesKeepTheirIdWhereItCanBeRead) {
  const auto refuses = [](const std::string& line, const std::optional<std::string>& id, int status,
                          const std::string& place) {
    const BatchLine read = read_batch_line(line, kVocabulary);
    EXPECT_EQ(read.custom_id, id) << line.substr(0, 80);
    const auto* error = std::get_if<ApiError>(&read.asked);
    ASSERT_NE(error, nullptr) << line.substr(0, 80);
    EXPECT_EQ(error->status, status);
    EXPECT_NE(error->message.find(place), std::string::npos) << error->message;
  };
  refuses("", std::nullopt, 400, "JSON");
  refuses("{broken", std::nullopt, 400, "JSON");
  refuses("{\"custom_id\": \"\xff\"}", std::nullopt, 400, "JSON");
  refuses("[1]", std::nullopt, 400, "custom_id");
  const auto with = [](const char* name, const char* value) {
    json line = good_line();
    line[name] = json::parse(value);
    return line.dump();
  };
  refuses(with("custom_id", "5"), std::nullopt, 400, "\"custom_id\" is 5");
  refuses(with("method", "\"GET\""), "a", 400, "GET");
  refuses(with("url", "\"/v1/embeddings\""), "a", 404, "/v1/embeddings");
  refuses(with("url", "[]"), "a", 404, "/v1/completions");
  refuses(with("body", "\"text\""), "a", 400, "body");
  refuses(with("body", R"({"messages": "no"})"), "a", 400, "messages");
  json without = good_line();
  without.erase("url");
  refuses(without.dump(), "a", 404, "\"url\" is missing");
  refuses(std::string(kMostLineBytes + 1, ' '), std::nullopt, 400, "bytes");
}

TEST(BatchLine, ResultsAreReadBack) {
  const std::string id = "quotes \" and \\ and \n and ü";
  const std::string line = batch_result(12, id, 200, R"({"choices":[]})");
  EXPECT_EQ(line.find('\n'), line.size() - 1) << "one line";
  const json result = json::parse(line);
  EXPECT_EQ(result["id"], "batch_req_12");
  EXPECT_EQ(result["custom_id"], id);
  EXPECT_EQ(result["error"], nullptr);
  EXPECT_EQ(result["response"]["body"], json::parse(R"({"choices":[]})"));
  const auto read = read_batch_result(line);
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->custom_id, id);
  EXPECT_FALSE(read->failed);
  const auto bad = read_batch_result(batch_result(1, std::nullopt, 400, "{}"));
  ASSERT_TRUE(bad.has_value());
  EXPECT_EQ(bad->custom_id, std::nullopt);
  EXPECT_TRUE(bad->failed);
  EXPECT_FALSE(read_batch_result(good_line().dump()).has_value()) << "a request is no result";
  EXPECT_FALSE(read_batch_result(line.substr(0, line.size() / 2)).has_value());
  for (size_t n = 0; n < line.size(); ++n) EXPECT_TRUE(may_begin_result(line.substr(0, n)));
  EXPECT_FALSE(may_begin_result(good_line().dump()));
  EXPECT_FALSE(may_begin_result("some text"));
}

}  // namespace
}  // namespace banyan
