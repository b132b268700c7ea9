// SPDX-License-Identifier: Apache-2.0
// Every family in every format it comes in, against logits of transformers: GGUF, and Hugging Face
// folders with config.json as transformers 5 writes it and as published checkpoints have it.
#include <filesystem>
#include <numeric>
#include <random>

#include "base/testing_temp_folder.h"
#include "files/testing_safetensors_writer.h"
#include "golden.h"

namespace banyan {
namespace {

constexpr const char* kNames[] = {"llama",
                                  "llama_bf16",
                                  "llama_rope_llama3",
                                  "llama_rope_yarn",
                                  "llama_tied",
                                  "mistral",
                                  "mixtral",
                                  "qwen2",
                                  "qwen3",
                                  "phi3",
                                  "phi3_longrope",
                                  "gpt_neox",
                                  "opt",
                                  "glm",
                                  "glm4",
                                  "gemma2",
                                  "gemma3"};

// The golden folder of that name, from the tests' own data where it is whole; empty if nowhere.
std::string golden_folder(const std::string& name) {
  for (const std::string& folder : {test_data("golden/" + name), shared_data("golden/" + name)}) {
    if (std::filesystem::exists(folder + "/config.json")) return folder;
  }
  return "";
}

// The same folder as published checkpoints look: links to all but the new config.json.
void link_as_published(const std::string& folder, const TempFolder& to) {
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::string name = entry.path().filename().string();
    if (name == "config.json") continue;
    if (name == "config_legacy.json") name = "config.json";
    std::filesystem::create_symlink(std::filesystem::absolute(entry.path()), to.path() / name);
  }
}

std::vector<TokenId> greedy(Engine& engine, const std::vector<TokenId>& prompt, size_t n) {
  std::vector<TokenId> chosen;
  KvTree& tree = engine.tree();
  const SeqId seq = tree.open({}, 0).seq;
  std::vector<TokenId> next = prompt;
  while (chosen.size() < n) {
    const std::vector<uint32_t> last = {static_cast<uint32_t>(next.size() - 1)};
    const Piece piece{seq, next, last};
    const auto stepped = engine.steps().run({&piece, 1});
    EXPECT_TRUE(stepped.has_value()) << stepped.error().message;
    const auto logits = engine.steps().logits(0, 0);
    chosen.push_back(
        static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    next = {chosen.back()};
  }
  tree.truncate(seq, 0);
  tree.close(seq);
  return chosen;
}

double negative_log_likelihood(Engine& engine, const std::vector<TokenId>& tokens) {
  std::vector<int> positions(tokens.size() - 1);
  std::iota(positions.begin(), positions.end(), 0);
  const auto found = evaluate_logits(engine, tokens, positions);
  EXPECT_TRUE(found.has_value()) << found.error().message;
  double nll = 0;
  for (size_t i = 0; found && i < found->size(); ++i) {
    const auto& logits = (*found)[i].logits;
    double sum = 0;
    for (const float logit : logits) sum += std::exp(double(logit));
    nll += std::log(sum) - logits[tokens[i + 1]];
  }
  return nll;
}

class Family : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    folder_ = golden_folder(GetParam());
    if (folder_.empty()) GTEST_SKIP() << "the golden model " << GetParam() << " is not here";
    golden_ = read_json(folder_ + "/golden.json");
  }

  // LongRoPE takes its divisors by the context asked for, and keys once turned are not turned anew:
  // short prompts are for contexts that stay short.
  bool is_longrope() const { return std::string(GetParam()) == "phi3_longrope"; }
  bool stays_short(const json& test_case) const {
    return is_longrope() && test_case["tokens"].size() <= 64;
  }

  EngineOptions options(const std::string& model, const json& test_case) const {
    EngineOptions options = exact_options(model);
    options.with_tokenizer = false;
    if (stays_short(test_case)) options.context = 64;
    return options;
  }

  void expect_golden(const std::string& model) {
    for (const json& test_case : golden_["cases"]) {
      const auto engine = open_or_fail(options(model, test_case));
      ASSERT_NE(engine, nullptr);
      for (const int piece : kPieces) {
        expect_logits(*engine, test_case, piece, model + " in pieces of " + std::to_string(piece));
      }
      const std::vector<TokenId> tokens = test_case["tokens"];
      EXPECT_NEAR(negative_log_likelihood(*engine, tokens) / test_case["nll"].get<double>(), 1,
                  1e-4);
      // Written with the whole sequence computed anew for each token, so with long divisors from
      // the 65th on.
      const std::vector<TokenId> want = test_case["greedy"];
      if (is_longrope() && tokens.size() <= 64 && tokens.size() + want.size() > 65) continue;
      EXPECT_EQ(greedy(*engine, tokens, want.size()), want) << model;
    }
  }

  std::string folder_;
  json golden_;
};

TEST_P(Family, FolderWithNewConfig) { expect_golden(folder_); }

TEST_P(Family, FolderWithPublishedConfig) {
  const TempFolder published;
  link_as_published(folder_, published);
  expect_golden(published.path().string());
}

TEST_P(Family, Gguf) {
  std::string file = folder_ + "/model.gguf";
  if (!std::filesystem::exists(file)) {
    file = shared_data("golden/") + GetParam() + "/model.gguf";
  }
  if (!std::filesystem::exists(file)) GTEST_SKIP() << "there is no GGUF of " << GetParam();
  expect_golden(file);
}

TEST_P(Family, ReferenceAttention) {
  const json& test_case = golden_["cases"].back();
  EngineOptions reference = options(folder_, test_case);
  reference.attention = AttentionDevice::kReference;
  reference.plan_method = PlanMethod::kDense;
  const auto engine = open_or_fail(reference);
  ASSERT_NE(engine, nullptr);
  expect_logits(*engine, test_case, 0, "reference");
}

// Everything else that is promised of a model holds for all families: equal bits for any number of
// threads and any cutting of the prompt.
TEST_P(Family, DeterministicInAnyPieces) {
  const json& test_case = golden_["cases"].back();
  const std::vector<TokenId> tokens = test_case["tokens"];
  const int last = static_cast<int>(tokens.size()) - 1;
  std::vector<float> first;
  for (const int threads : {1, 3}) {
    EngineOptions deterministic = options(folder_, test_case);
    deterministic.deterministic = true;
    deterministic.n_threads = threads;
    const auto engine = open_or_fail(deterministic);
    ASSERT_NE(engine, nullptr);
    for (const int piece : kPieces) {
      const auto found = evaluate_logits(*engine, tokens, {&last, 1}, piece);
      ASSERT_TRUE(found.has_value()) << found.error().message;
      if (first.empty()) first = (*found)[0].logits;
      EXPECT_EQ((*found)[0].logits, first) << threads << " threads, pieces of " << piece;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, Family, testing::ValuesIn(kNames),
                         [](const auto& test) { return std::string(test.param); });

// The window of a model is not the context, and what a layer does not see it does not need: far
// behind a window the first tokens change nothing.
TEST(Window, TokensBehindEveryWindowChangeNothing) {
  const std::string folder = golden_folder("mistral");
  if (folder.empty()) GTEST_SKIP() << "the golden model mistral is not here";
  EngineOptions options = exact_options(folder);
  options.with_tokenizer = false;
  options.deterministic = true;
  const auto engine = open_or_fail(options);
  ASSERT_NE(engine, nullptr);
  // Three layers of 32: a token reaches 93 positions ahead.
  std::vector<TokenId> tokens(120);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<TokenId>(3 + i * 37 % 300);
  const int last = 119;
  const auto one = evaluate_logits(*engine, tokens, {&last, 1});
  ASSERT_TRUE(one.has_value()) << one.error().message;
  tokens[26] = 5;  // 93 before the last
  const auto reached = evaluate_logits(*engine, tokens, {&last, 1});
  tokens[26] = static_cast<TokenId>(3 + 26 * 37 % 300);
  tokens[25] = 5;
  const auto behind = evaluate_logits(*engine, tokens, {&last, 1});
  EXPECT_NE((*one)[0].logits, (*reached)[0].logits);
  EXPECT_EQ((*one)[0].logits, (*behind)[0].logits);
}

TEST(Positions, LearnedOnesEndWithASentence) {
  const std::string folder = golden_folder("opt");
  if (folder.empty()) GTEST_SKIP() << "the golden model opt is not here";
  EngineOptions options = exact_options(folder);
  options.with_tokenizer = false;
  options.context = 2049;
  const auto engine = Engine::open(options);
  ASSERT_FALSE(engine.has_value());
  EXPECT_NE(engine.error().message.find("2048 positions"), std::string::npos)
      << engine.error().message;
  options.context = 0;
  const auto whole = open_or_fail(options);
  ASSERT_NE(whole, nullptr);
  const std::vector<TokenId> tokens(2048, 7);
  const int last = 2047;
  EXPECT_TRUE(evaluate_logits(*whole, tokens, {&last, 1}).has_value());
}

// --- layers of different sizes -------------------------------------------------------------------

struct Numbers {
  int64_t rows;
  int64_t cols;
  std::vector<float> values;
};

Numbers random_matrix(int64_t rows, int64_t cols, std::mt19937& random) {
  std::normal_distribution<float> normal(0, 0.3F);
  Numbers m{rows, cols, std::vector<float>(static_cast<size_t>(rows * cols))};
  for (float& value : m.values) value = normal(random);
  return m;
}

// Rows below are random, columns to the right zero.
Numbers padded(const Numbers& m, int64_t rows, int64_t cols, std::mt19937& random) {
  Numbers out = random_matrix(rows, cols, random);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      float& to = out.values[r * cols + c];
      if (c >= m.cols) to = 0;
      if (r < m.rows && c < m.cols) to = m.values[r * m.cols + c];
    }
  }
  return out;
}

// Heads and columns that meet zeros alone add nothing: a model whose second layer is smaller equals
// one where it is filled up.
TEST(LayerSizes, SmallerLayersEqualPaddedOnes) {
  constexpr int64_t kHidden = 32, kDim = 8, kVocab = 50;
  std::mt19937 random(11);
  SafetensorsWriter small;
  SafetensorsWriter full;
  const auto add_both = [&](const std::string& name, const std::vector<int64_t>& shape,
                            const std::vector<float>& values) {
    small.add(name, shape, values);
    full.add(name, shape, values);
  };
  const Numbers embedding = random_matrix(kVocab, kHidden, random);
  add_both("model.embed_tokens.weight", {kVocab, kHidden}, embedding.values);
  add_both("model.norm.weight", {kHidden}, std::vector<float>(kHidden, 1));
  for (int layer = 0; layer < 2; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    const int64_t heads = layer == 0 ? 4 : 2;
    const int64_t kv_heads = heads / 2;
    const int64_t ffn = layer == 0 ? 48 : 17;
    for (const char* norm : {"input_layernorm.weight", "post_attention_layernorm.weight"}) {
      add_both(prefix + norm, {kHidden}, std::vector<float>(kHidden, 1));
    }
    const auto add = [&](const std::string& name, int64_t rows, int64_t cols, int64_t full_rows,
                         int64_t full_cols) {
      const Numbers m = random_matrix(rows, cols, random);
      const Numbers p = padded(m, full_rows, full_cols, random);
      small.add(prefix + name + ".weight", {rows, cols}, m.values);
      full.add(prefix + name + ".weight", {full_rows, full_cols}, p.values);
    };
    add("self_attn.q_proj", heads * kDim, kHidden, 4 * kDim, kHidden);
    add("self_attn.k_proj", kv_heads * kDim, kHidden, 2 * kDim, kHidden);
    add("self_attn.v_proj", kv_heads * kDim, kHidden, 2 * kDim, kHidden);
    add("self_attn.o_proj", kHidden, heads * kDim, kHidden, 4 * kDim);
    add("mlp.gate_proj", ffn, kHidden, 48, kHidden);
    add("mlp.up_proj", ffn, kHidden, 48, kHidden);
    add("mlp.down_proj", kHidden, ffn, kHidden, 48);
  }
  const auto logits_of = [&](const SafetensorsWriter& weights, const std::string& sizes) {
    const TempFolder folder;
    folder.write("model.safetensors", weights.build());
    folder.write("config.json", R"({"model_type":"llama","num_hidden_layers":2,"hidden_size":32,
        "head_dim":8,"tie_word_embeddings":true,)" +
                                    sizes + "}");
    EngineOptions options = exact_options(folder.path().string());
    options.with_tokenizer = false;
    const auto engine = open_or_fail(options);
    if (engine == nullptr) return std::vector<LogitsAt>();
    std::vector<TokenId> tokens(70);
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<TokenId>(i * 7 % kVocab);
    const std::vector<int> positions = {0, 33, 69};
    auto found = evaluate_logits(*engine, tokens, positions, 19);
    EXPECT_TRUE(found.has_value()) << found.error().message;
    return found ? *found : std::vector<LogitsAt>();
  };
  const auto a = logits_of(small, R"("num_attention_heads":[4,2],"num_key_value_heads":[2,1],
                                     "intermediate_size":[48,17])");
  const auto b = logits_of(full, R"("num_attention_heads":4,"num_key_value_heads":2,
                                    "intermediate_size":48)");
  ASSERT_EQ(a.size(), 3U);
  ASSERT_EQ(b.size(), 3U);
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t v = 0; v < kVocab; ++v) EXPECT_NEAR(a[i].logits[v], b[i].logits[v], 1e-4);
  }
}

}  // namespace
}  // namespace banyan
