// SPDX-License-Identifier: Apache-2.0
#include "base/json.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>

namespace banyan {
namespace {

void expect_refused(const std::string& text, const std::string& why) {
  const auto parsed = parse_json(text);
  ASSERT_FALSE(parsed) << why;
  EXPECT_EQ(parsed.error().code, ErrorCode::kBadInput);
  EXPECT_NE(parsed.error().message.find(why), std::string::npos) << parsed.error().message;
  for (const char c : parsed.error().message) EXPECT_TRUE(c >= 0x20 && c < 0x7f);
}

TEST(Json, BecomesWhatItSays) {
  const std::string text =
      R"({"a":[1,-2,3.5,true,null,"x"],"b":{"c":{"d":[[],{}]}},"e":"\u00e9","f":[]})";
  const auto parsed = parse_json(text);
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(parsed->dump(), nlohmann::json::parse(text).dump());
}

TEST(Json, ScalarsAreDocumentsToo) {
  EXPECT_EQ(*parse_json(" 7 "), 7);
  EXPECT_EQ(*parse_json("\"x\""), "x");
}

TEST(Json, DepthIsBoundedWithoutRecursion) {
  for (const std::string open : {"[", "{\"a\":", "[{\"a\":"}) {
    std::string deep;
    for (int i = 0; i < 1000000; ++i) deep += open;
    expect_refused(deep, "deeper than 64");
  }
  EXPECT_TRUE(parse_json(std::string(64, '[') + std::string(64, ']')));
  expect_refused(std::string(65, '[') + std::string(65, ']'), "deeper than 64");
}

TEST(Json, AKeyStandsOnce) {
  expect_refused(R"({"a":1,"b":2,"a":3})", "has the key 'a' twice");
  expect_refused(R"({"x":{"\u001b":1,"\u001b":1}})", "has the key '\\x1b' twice");
  EXPECT_TRUE(parse_json(R"({"a":{"a":1},"b":{"a":2}})"));
}

TEST(Json, WhatIsNoJsonIsRefused) {
  for (const std::string text :
       {"", " ", "{", "{\"a\"", "{\"a\":}", "[1,]", "nul", "NaN", "[Infinity]", "{} {}", "{'a':1}",
        "\"a", "1e999", "// x\n{}", "\xef\xbb", "\"\x01\""}) {
    expect_refused(text, "not valid JSON at byte");
  }
}

TEST(Json, ErrorsSayWhichByte) {
  expect_refused("", "at byte 1");
  expect_refused("{\"model\": ", "at byte 11");
  expect_refused("{\"a\xFF\": 1}", "at byte 4");
  expect_refused(R"({"a": 1e999})", "at byte 11");
}

TEST(Json, NumberOfValuesIsBoundedWhereAsked) {
  EXPECT_TRUE(parse_json("[1,{\"a\":2}]", 4));
  for (const char* four : {"[1,{\"a\":2}]", "[[],[],[]]", "{\"a\":[{\"b\":\"c\"}]}"}) {
    const auto parsed = parse_json(four, 3);
    ASSERT_FALSE(parsed);
    EXPECT_EQ(parsed.error().message, "it has more than 3 values");
  }
}

TEST(Json, TextMustBeUtf8) {
  for (const std::string bytes : {"\xff", "\xc0\xaf", "\xed\xa0\x80", "\xf5\x80\x80\x80", "\x80"}) {
    expect_refused(fmt::format("{{\"a\":\"{}\"}}", bytes), "not valid JSON at byte");
    expect_refused(fmt::format("{{\"{}\":1}}", bytes), "not valid JSON at byte");
  }
  expect_refused("\"\\ud800\"", "not valid JSON at byte");
}

}  // namespace
}  // namespace banyan
