// SPDX-License-Identifier: Apache-2.0
// The C++ header, without any of the engine's own.
#include <gtest/gtest.h>

#include <cmath>

#include "banyan/banyan.hpp"

namespace {

const std::string kTinyModel = std::string(BANYAN_TEST_DATA) + "/golden/llama/model.gguf";

banyan::Model load() {
  banyan::ModelOptions options;
  options.n_threads = 2;
  options.kv_budget_bytes = 16 << 20;
  auto model = banyan::Model::load(kTinyModel, options);
  EXPECT_TRUE(model) << model.error().message;
  return *std::move(model);
}

TEST(Cpp, StreamsWhatItReplies) {
  banyan::Model model = load();
  const auto prompt = model.tokenize("Once upon a time", BANYAN_ADD_BOS);
  ASSERT_TRUE(prompt);
  EXPECT_EQ(*model.detokenize(*prompt), "Once upon a time");
  banyan::GenerateOptions options;
  options.max_tokens = 30;
  options.ignore_eos = 1;
  std::vector<banyan::Token> tokens;
  std::string text;
  const auto hear = [&](banyan::Token token, std::string_view piece) {
    if (token >= 0) tokens.push_back(token);
    text += piece;
    return true;
  };
  const auto reply = model.generate(*prompt, options, hear);
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_EQ(tokens.size(), 30U);
  EXPECT_EQ(tokens, std::vector((*reply)->tokens, (*reply)->tokens + (*reply)->n_tokens));
  EXPECT_EQ(text, (*reply)->text);

  const auto again = model.generate(*prompt, options);
  ASSERT_TRUE(again);
  EXPECT_EQ(text, (*again)->text);
  const auto one =
      model.generate(*prompt, options, [](banyan::Token, std::string_view) { return false; });
  EXPECT_EQ((*one)->n_tokens, 1U);
  EXPECT_EQ((*one)->finish_reason, BANYAN_FINISH_CANCELLED);
}

TEST(Cpp, ExplainsTheCache) {
  banyan::Model model = load();
  EXPECT_STREQ((*model.explain({3, 4, 5}))->why, "empty");
  ASSERT_TRUE(model.generate({3, 4, 5}));
  EXPECT_STREQ((*model.explain({3, 4, 5}))->why, "hit");
  EXPECT_FALSE(model.explain({-1}));
  banyan::GenerateOptions tenant;
  EXPECT_STREQ((*model.explain({3, 4, 5}, tenant))->why, "hit");
  tenant.salt = 1;
  EXPECT_STREQ((*model.explain({3, 4, 5}, tenant))->why, "other_tenant");
  EXPECT_FALSE(model.explain({-1}, tenant));
}

TEST(Cpp, EmbedsAtLengthOne) {
  banyan::Model model = load();
  const auto embedding = model.embed({3, 4, 5});
  ASSERT_TRUE(embedding);
  double squares = 0;
  for (const float x : *embedding) squares += double(x) * x;
  EXPECT_NEAR(squares, 1, 1e-6);
}

TEST(Cpp, ErrorsAreValues) {
  const auto none = banyan::Model::load("/no/such/model.gguf");
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, BANYAN_BAD_INPUT);
  EXPECT_NE(none.error().message.find("/no/such/model.gguf"), std::string::npos);
  banyan::Model model = load();
  EXPECT_NE(model.generate({}).error().message.find("prompt is empty"), std::string::npos);
  EXPECT_NE(model.embed({-1}).error().message.find("token -1"), std::string::npos);
  EXPECT_NE(model.detokenize({-1}).error().message.find("token is -1"), std::string::npos);
  EXPECT_EQ(model.apply_chat_template({{"user", "Hello"}}).error().code, BANYAN_BAD_INPUT);
  EXPECT_THROW(static_cast<void>(*model.generate({})), std::bad_variant_access);
}

}  // namespace
