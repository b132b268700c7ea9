// SPDX-License-Identifier: Apache-2.0
// --deterministic: logits are bit-equal whatever the number of threads and however a prompt is cut.
#include <cstring>

#include "engine/evaluate.h"
#include "support.h"

namespace banyan {
namespace {

// Tokens that differ from each other, from a fixed recipe.
std::vector<TokenId> some_tokens(int n, int vocab) {
  std::vector<TokenId> tokens(n);
  uint32_t state = 7;
  for (TokenId& token : tokens) {
    state = state * 1664525 + 1013904223;
    token = 3 + static_cast<TokenId>((state >> 8) % uint32_t(vocab - 3));
  }
  return tokens;
}

std::vector<std::vector<float>> logits_of(const EngineOptions& options, int n,
                                          const std::vector<int>& positions, int piece) {
  const auto engine = open_or_fail(options);
  if (engine == nullptr) return {};
  const auto found = evaluate_logits(*engine, some_tokens(n, 300), positions, piece);
  EXPECT_TRUE(found.has_value()) << found.error().message;
  std::vector<std::vector<float>> logits;
  for (const LogitsAt& at : *found) logits.push_back(at.logits);
  return logits;
}

void expect_bit_equal(const std::vector<std::vector<float>>& a,
                      const std::vector<std::vector<float>>& b, const std::string& what) {
  ASSERT_EQ(a.size(), b.size());
  ASSERT_FALSE(a.empty());
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i].size(), b[i].size());
    EXPECT_EQ(std::memcmp(a[i].data(), b[i].data(), a[i].size() * sizeof(float)), 0)
        << what << ", logits " << i;
  }
}

// A prompt long enough to pass two segment borders of the attention plan.
void check_model(EngineOptions options, int n, const std::vector<int>& pieces) {
  options.deterministic = true;
  options.context = n;
  options.n_threads = 1;
  const std::vector<int> positions = {n / 3, n / 2, n - 1};
  const auto want = logits_of(options, n, positions, 0);
  for (const int threads : {1, 2, 3}) {
    for (const int piece : pieces) {
      options.n_threads = threads;
      expect_bit_equal(want, logits_of(options, n, positions, piece),
                       std::to_string(threads) + " threads, pieces of " + std::to_string(piece));
    }
  }
}

TEST(Deterministic, ThreadsAndPiecesInFullPrecision) {
  check_model(exact_options(test_data("golden/llama/model.gguf")), 2300, {0, 1, 7, 64, 333});
}

TEST(Deterministic, ThreadsAndPiecesWithHalfPrecisionKv) {
  EngineOptions options = exact_options(test_data("golden/llama/model.gguf"));
  options.k_type = DType::kF16;
  options.v_type = DType::kBF16;
  options.compute = Compute::kAuto;
  check_model(options, 1100, {0, 1, 17});
}

TEST(Deterministic, ThreadsAndPiecesWithKvOf8Bits) {
  EngineOptions options = exact_options(test_data("golden/llama/model.gguf"));
  options.k_type = DType::kQ8_0;
  options.v_type = DType::kQ8_0;
  check_model(options, 1100, {0, 1, 17});
}

TEST(Deterministic, ThreadsAndPiecesOfTheDefaultModel) {
  const std::string model = default_model();
  if (model.empty()) GTEST_SKIP() << "the default model is not on this machine";
  EngineOptions options;
  options.model_path = model;
  options.kv_budget_bytes = uint64_t{64} << 20;
  options.isa = test_isa();
  check_model(options, 150, {0, 1, 7, 64});
}

TEST(Deterministic, AReusedPrefixChangesNothing) {
  EngineOptions options = exact_options(test_data("golden/llama/model.gguf"));
  options.deterministic = true;
  const auto engine = open_or_fail(options);
  ASSERT_NE(engine, nullptr);
  Request request;
  request.prompt = some_tokens(1500, 300);
  request.sampler.temperature = 0;
  request.max_tokens = 24;
  const auto cold = engine->generate(request);
  const auto warm = engine->generate(request);
  ASSERT_TRUE(cold.has_value() && warm.has_value());
  EXPECT_EQ(cold->cached_tokens, 0);
  EXPECT_EQ(warm->cached_tokens, 1499);
  EXPECT_EQ(cold->tokens, warm->tokens);
  EXPECT_EQ(cold->logprobs, warm->logprobs);
}

}  // namespace
}  // namespace banyan
