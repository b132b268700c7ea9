// SPDX-License-Identifier: Apache-2.0
// Embeddings against what another implementation computed: the head is linear, so the head's
// product with the hidden states after the last norm must be transformers' logits.
#include <numeric>

#include "files/model_file.h"
#include "golden.h"
#include "tensor/dtype.h"

namespace banyan {
namespace {

// head x embedding, [vocab].
std::vector<double> through_the_head(const std::string& model,
                                     const std::vector<float>& embedding) {
  const auto file = ModelFile::open(model);
  EXPECT_TRUE(file.has_value());
  const TensorInfo* head = file->tensor("output.weight");
  EXPECT_EQ(head->type, DType::kF32);
  const auto* weights = reinterpret_cast<const float*>(head->data.data());
  const size_t hidden = embedding.size();
  std::vector<double> out(head->dims[1]);
  for (size_t token = 0; token < out.size(); ++token) {
    out[token] =
        std::inner_product(embedding.begin(), embedding.end(), weights + token * hidden, 0.0);
  }
  return out;
}

// Embeddings have length 1, so what comes through the head is logits but for a factor > 0.
void expect_proportional(const std::vector<double>& found, const std::vector<double>& want) {
  ASSERT_EQ(found.size(), want.size());
  const double fw = std::inner_product(found.begin(), found.end(), want.begin(), 0.0);
  const double ff = std::inner_product(found.begin(), found.end(), found.begin(), 0.0);
  const double ww = std::inner_product(want.begin(), want.end(), want.begin(), 0.0);
  EXPECT_GT(fw, 0);
  EXPECT_NEAR(fw / std::sqrt(ff * ww), 1, 1e-9);
}

TEST(Embedding, LastPoolingIsWhatTheGoldenLogitsAreMadeOf) {
  const std::string folder = test_data("golden/llama");
  const json golden = read_json(folder + "/golden.json");
  const auto engine = open_or_fail(exact_options(folder + "/model.gguf"));
  ASSERT_NE(engine, nullptr);
  for (const json& test_case : golden["cases"]) {
    const auto found =
        embed(*engine, test_case["tokens"].get<std::vector<TokenId>>(), Pooling::kLast);
    ASSERT_TRUE(found.has_value()) << found.error().message;
    EXPECT_NEAR(std::inner_product(found->begin(), found->end(), found->begin(), 0.0), 1, 1e-6);
    expect_proportional(through_the_head(folder + "/model.gguf", *found),
                        test_case["last_logits"].get<std::vector<double>>());
  }
}

// Longer than one step, so that pieces are summed.
TEST(Embedding, MeanPoolingIsTheMeanOfWhatTheLogitsAreMadeOf) {
  const std::string model = test_data("golden/llama/model.gguf");
  const auto engine = open_or_fail(exact_options(model));
  ASSERT_NE(engine, nullptr);
  std::vector<TokenId> tokens;
  for (int i = 0; i < 700; ++i) tokens.push_back(3 + i * 7 % 300);
  std::vector<int> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), 0);
  const auto logits = evaluate_logits(*engine, tokens, positions);
  ASSERT_TRUE(logits.has_value());
  std::vector<double> sum(engine->model().hp.vocab);
  for (const LogitsAt& at : *logits) {
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += at.logits[i];
  }
  const auto found = embed(*engine, tokens, Pooling::kMean);
  ASSERT_TRUE(found.has_value()) << found.error().message;
  expect_proportional(through_the_head(model, *found), sum);
}

TEST(Embedding, LeavesTheCacheAsItWasAndCanBeCancelled) {
  const auto engine = open_or_fail(exact_options(test_data("golden/llama/model.gguf")));
  ASSERT_NE(engine, nullptr);
  const std::vector<TokenId> tokens(1200, 9);
  const uint32_t before = engine->pool().used();
  ASSERT_TRUE(embed(*engine, tokens, Pooling::kLast).has_value());
  EXPECT_EQ(engine->pool().used(), before);
  std::vector<int> heard;
  auto hear = [&](int done, int) {
    heard.push_back(done);
    return heard.size() < 2;
  };
  const FunctionRef<bool(int, int)> on_tokens = hear;
  const auto cancelled = embed(*engine, tokens, Pooling::kMean, &on_tokens);
  ASSERT_FALSE(cancelled.has_value());
  EXPECT_EQ(cancelled.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(heard, (std::vector<int>{512, 1024}));
  EXPECT_EQ(engine->pool().used(), before);
  engine->tree().check_integrity();
}

}  // namespace
}  // namespace banyan
