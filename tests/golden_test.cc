// SPDX-License-Identifier: Apache-2.0
// The whole engine against logits that another implementation computed (Hugging Face transformers
// in float32; tests/data/golden says how).
#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>

#include "engine/search_policies.h"
#include "golden.h"

namespace banyan {
namespace {

TEST(Golden, LogitsInAnyPieces) {
  const std::string folder = test_data("golden/llama");
  const json golden = read_json(folder + "/golden.json");
  const auto engine = open_or_fail(exact_options(folder + "/model.gguf"));
  ASSERT_NE(engine, nullptr);
  for (const json& test_case : golden["cases"]) {
    for (const int piece : kPieces) {
      expect_logits(*engine, test_case, piece, folder + " in pieces of " + std::to_string(piece));
    }
  }
}

TEST(Golden, LogitsThroughTheReferenceExecutorAndTheDensePlan) {
  EngineOptions options = exact_options(test_data("golden/llama/model.gguf"));
  options.attention = AttentionDevice::kReference;
  options.plan_method = PlanMethod::kDense;
  const auto engine = open_or_fail(options);
  ASSERT_NE(engine, nullptr);
  const json golden = read_json(test_data("golden/llama/golden.json"));
  for (const json& test_case : golden["cases"]) expect_logits(*engine, test_case, 0, "reference");
}

TEST(Golden, NegativeLogLikelihood) {
  const std::string folder = test_data("golden/llama");
  const json golden = read_json(folder + "/golden.json");
  const auto engine = open_or_fail(exact_options(folder + "/model.gguf"));
  ASSERT_NE(engine, nullptr);
  for (const json& test_case : golden["cases"]) {
    const std::vector<TokenId> tokens = test_case["tokens"];
    std::vector<int> positions(tokens.size() - 1);
    std::iota(positions.begin(), positions.end(), 0);
    const auto found = evaluate_logits(*engine, tokens, positions);
    ASSERT_TRUE(found.has_value()) << found.error().message;
    double nll = 0;
    for (size_t i = 0; i < found->size(); ++i) {
      const auto& logits = (*found)[i].logits;
      double sum = 0;
      for (const float logit : logits) sum += std::exp(double(logit));
      nll += std::log(sum) - logits[tokens[i + 1]];
    }
    const double want = test_case["nll"];
    EXPECT_NEAR(nll / want, 1, 1e-4) << folder;
  }
}

TEST(Golden, GreedyContinuations) {
  const std::string folder = test_data("golden/llama");
  const json golden = read_json(folder + "/golden.json");
  const auto engine = open_or_fail(exact_options(folder + "/model.gguf"));
  ASSERT_NE(engine, nullptr);
  for (const json& test_case : golden["cases"]) {
    Request request;
    request.prompt = test_case["tokens"].get<std::vector<TokenId>>();
    request.sampler.temperature = 0;
    request.max_tokens = static_cast<int>(test_case["greedy"].size());
    const auto reply = engine->generate(request);
    ASSERT_TRUE(reply.has_value()) << reply.error().message;
    EXPECT_EQ(reply->tokens, test_case["greedy"].get<std::vector<TokenId>>()) << folder;
  }
}

TEST(Golden, DefaultModelInFullPrecision) {
  const std::string model = default_model();
  if (model.empty()) GTEST_SKIP() << "the default model is not on this machine: make test";
  const json golden = read_json(test_data("golden/default-model.json"));
  const auto engine = open_or_fail(exact_options(model));
  ASSERT_NE(engine, nullptr);
  for (const json& test_case : golden["cases"]) {
    const std::vector<TokenId> tokens = test_case["tokens"];
    const std::vector<ChatMessage> messages = {{"user", test_case["question"]}};
    const auto prompt = engine->encode_chat(messages);
    ASSERT_TRUE(prompt.has_value()) << prompt.error().message;
    EXPECT_EQ(*prompt, tokens);
    const int last = static_cast<int>(tokens.size()) - 1;
    const auto found = evaluate_logits(*engine, tokens, {&last, 1});
    ASSERT_TRUE(found.has_value()) << found.error().message;
    for (const json& top : test_case["top_logits"]) {
      EXPECT_NEAR((*found)[0].logits[top[0].get<int>()], top[1].get<float>(), 5e-3);
    }
  }
}

// As it runs unless asked otherwise: products rounded, KV in f16. In the prompt the error is that
// of bf16 at most (0.03 for each logit), an answer's tokens are computed one by one.
TEST(Golden, DefaultModelAsItRunsByDefault) {
  const std::string model = default_model();
  if (model.empty()) GTEST_SKIP() << "the default model is not on this machine: make test";
  const json golden = read_json(test_data("golden/default-model.json"));
  for (const bool deterministic : {false, true}) {
    EngineOptions options;
    options.model_path = model;
    options.n_threads = 2;
    options.isa = test_isa();
    options.deterministic = deterministic;
    const auto engine = open_or_fail(options);
    ASSERT_NE(engine, nullptr);
    for (const json& test_case : golden["cases"]) {
      Request request;
      request.prompt = test_case["tokens"].get<std::vector<TokenId>>();
      request.sampler.temperature = 0;
      request.ignore_eos = true;
      request.max_tokens = static_cast<int>(test_case["greedy"].size());
      const int last = static_cast<int>(request.prompt.size()) - 1;
      const auto found = evaluate_logits(*engine, request.prompt, {&last, 1});
      ASSERT_TRUE(found.has_value()) << found.error().message;
      for (const json& top : test_case["top_logits"]) {
        EXPECT_NEAR((*found)[0].logits[top[0].get<int>()], top[1].get<float>(),
                    deterministic ? 0.02 : 0.15);
      }
      // Greedy tokens are those of exact arithmetic as long as none was a matter of rounding.
      const std::vector<float> margins = test_case["greedy_margins"];
      const auto sure =
          std::find_if(margins.begin(), margins.end(), [](float margin) { return margin < 0.3F; }) -
          margins.begin();
      const auto reply = engine->generate(request);
      ASSERT_TRUE(reply.has_value()) << reply.error().message;
      const std::vector<TokenId> want = test_case["greedy"];
      for (std::ptrdiff_t i = 0; i < sure && want[i] != 2; ++i) {
        EXPECT_EQ(reply->tokens[i], want[i]) << test_case["question"] << ", token " << i;
      }
    }
  }
}

TEST(Golden, StoriesGreedyTextByteForByte) {
  const std::string folder = shared_data("models/stories260K/");
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "stories260K is not on this machine";
  std::ifstream file(folder + "stories260K.greedy.txt");
  const std::string want((std::istreambuf_iterator<char>(file)), {});
  const auto engine = open_or_fail(exact_options(folder + "stories260K.gguf"));
  ASSERT_NE(engine, nullptr);
  Request request;
  request.prompt = *engine->encode_raw("Once upon a time");
  request.sampler.temperature = 0;
  request.max_tokens = 200;
  request.ignore_eos = true;
  const auto reply = engine->generate(request);
  ASSERT_TRUE(reply.has_value()) << reply.error().message;
  EXPECT_EQ(("Once upon a time" + reply->text).substr(0, want.size()), want);
}

TEST(Golden, BeamsAreThoseOfTransformers) {
  const json golden = read_json(test_data("golden/llama/beams.json"));
  const auto engine = open_or_fail(exact_options(test_data("golden/llama/model.gguf")));
  ASSERT_NE(engine, nullptr);
  int n_ended = 0;
  for (const json& test_case : golden["cases"]) {
    BeamParams params;
    params.width = test_case["beams"];
    params.length_penalty = test_case["length_penalty"];
    params.max_tokens = test_case["max_tokens"];
    const std::string early_stop = test_case["early_stop"];
    params.early_stop = early_stop == "at-once" ? EarlyStop::kAtOnce
                        : early_stop == "never" ? EarlyStop::kNever
                                                : EarlyStop::kHopeless;
    const std::vector<TokenId> prompt = test_case["prompt"];
    auto search = Search::open(*engine, prompt);
    ASSERT_TRUE(search.has_value()) << search.error().message;
    const auto found = beam_search(*search, params, /*ignore_eos=*/false);
    ASSERT_TRUE(found.has_value()) << found.error().message;
    const json& want = test_case["hypotheses"];
    ASSERT_EQ(found->size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) {
      std::vector<TokenId> tokens = want[i]["tokens"];
      if (engine->tokenizer().is_end(tokens.back())) {
        tokens.pop_back();
        ++n_ended;
      }
      EXPECT_EQ((*found)[i].tokens, tokens) << test_case["prompt"] << ", hypothesis " << i;
      EXPECT_NEAR((*found)[i].score, want[i]["score"].get<double>(), 1e-4);
    }
  }
  EXPECT_GE(n_ended, 10);
}

}  // namespace
}  // namespace banyan
