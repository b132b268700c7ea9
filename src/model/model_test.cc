// SPDX-License-Identifier: Apache-2.0
// Loading: what a file must hold, and what is said when it does not.
#include "model/model.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <functional>
#include <limits>

#include "base/testing_temp_folder.h"
#include "files/testing_gguf_writer.h"

namespace banyan {
namespace {

// A llama of two layers, every entry of which a test can change or leave out.
struct Recipe {
  std::string architecture = "llama";
  uint32_t layers = 2, hidden = 32, ffn = 48, heads = 4, kv_heads = 2, context = 100;
  float eps = 1e-5F;
  std::string skip_key;
  std::string skip_tensor;
  std::string odd_tensor;  // gets one row more than it should have
  std::string q8_tensor;   // stored as Q8_0
  bool output = true;
  std::function<void(GgufWriter&)> more = [](GgufWriter&) {};
};

constexpr int64_t kVocab = 40;

GgufWriter image(const Recipe& r) {
  GgufWriter w;
  const auto set = [&](const std::string& key, auto value) {
    if (key != r.skip_key) w.set(key, value);
  };
  set("general.architecture", std::string_view(r.architecture));
  set("llama.block_count", r.layers);
  set("llama.embedding_length", r.hidden);
  set("llama.feed_forward_length", r.ffn);
  set("llama.attention.head_count", r.heads);
  set("llama.attention.head_count_kv", r.kv_heads);
  set("llama.context_length", r.context);
  set("llama.attention.layer_norm_rms_epsilon", r.eps);
  r.more(w);
  const auto tensor = [&](const std::string& name, std::vector<int64_t> dims) {
    if (name == r.skip_tensor) return;
    if (name == r.odd_tensor) ++dims.back();
    int64_t n = 1;
    for (const int64_t dim : dims) n *= dim;
    if (name == r.q8_tensor) {
      w.add_tensor(name, dims, DType::kQ8_0, std::vector<std::byte>(n / 32 * 34));
    } else {
      w.add_tensor(name, dims, std::vector<float>(n, 0.5F));
    }
  };
  const int64_t hidden = 32;
  const int64_t kv = 16;
  const int64_t ffn = 48;
  tensor("token_embd.weight", {hidden, kVocab});
  tensor("output_norm.weight", {hidden});
  if (r.output) tensor("output.weight", {hidden, kVocab});
  for (int layer = 0; layer < 2; ++layer) {
    const std::string blk = "blk." + std::to_string(layer) + ".";
    tensor(blk + "attn_norm.weight", {hidden});
    tensor(blk + "attn_q.weight", {hidden, hidden});
    tensor(blk + "attn_k.weight", {hidden, kv});
    tensor(blk + "attn_v.weight", {hidden, kv});
    tensor(blk + "attn_output.weight", {hidden, hidden});
    tensor(blk + "ffn_norm.weight", {hidden});
    tensor(blk + "ffn_gate.weight", {hidden, ffn});
    tensor(blk + "ffn_up.weight", {hidden, ffn});
    tensor(blk + "ffn_down.weight", {ffn, hidden});
  }
  return w;
}

class Load : public testing::Test {
 protected:
  Result<Model> load(const Recipe& recipe, const RopeOverrides& overrides = {}) {
    EXPECT_TRUE(image(recipe).write(path_));
    auto file = ModelFile::open_gguf(path_);
    if (!file) return file.error();
    file_ = *std::move(file);
    return load_model(file_, overrides);
  }

  // The error names the file and `what`.
  void expect_refused(const Recipe& recipe, const std::string& what) {
    const auto model = load(recipe);
    ASSERT_FALSE(model.has_value()) << what;
    EXPECT_EQ(model.error().code, ErrorCode::kBadInput);
    EXPECT_NE(model.error().message.find("model.gguf"), std::string::npos) << model.error().message;
    EXPECT_NE(model.error().message.find(what), std::string::npos) << model.error().message;
  }

  TempFolder folder_;
  std::string path_ = (folder_.path() / "model.gguf").string();
  ModelFile file_;
};

TEST_F(Load, BindsEveryTensorToItsRole) {
  const auto model = load({});
  ASSERT_TRUE(model.has_value()) << model.error().message;
  EXPECT_EQ(model->hp.n_layers, 2);
  EXPECT_EQ(model->hp.head_dim, 8);
  EXPECT_EQ(model->hp.vocab, kVocab);
  EXPECT_EQ(model->ropes[0].settings().rot_dim, 8);
  EXPECT_TRUE(model->ropes[0].settings().interleaved);
  EXPECT_NE(model->output.weight.data, model->token_embedding.data);
  ASSERT_EQ(model->layers.size(), 2U);
  for (const LayerWeights& layer : model->layers) {
    EXPECT_EQ(layer.q.weight.rows, 32);
    EXPECT_EQ(layer.k.weight.rows, 16);
    EXPECT_EQ(layer.v.weight.rows, 16);
    EXPECT_EQ(layer.ffn.gate.weight.rows, 48);
    EXPECT_EQ(layer.ffn.up.weight.rows, 48);
    EXPECT_EQ(layer.ffn.down.weight.rows, 32);
    EXPECT_EQ(layer.ffn.down.weight.cols, 48);
    EXPECT_EQ(layer.attention_norm.weight[31], 0.5F);
    EXPECT_EQ(layer.ffn_norm.weight[0], 0.5F);
  }
  EXPECT_NE(model->layers[0].q.weight.data, model->layers[1].q.weight.data);
}

TEST_F(Load, TiesTheOutputToTheEmbeddingWhereTheFileHasNone) {
  Recipe recipe;
  recipe.output = false;
  const auto model = load(recipe);
  ASSERT_TRUE(model.has_value()) << model.error().message;
  EXPECT_EQ(model->output.weight.data, model->token_embedding.data);
}

TEST_F(Load, NamesWhatIsMissing) {
  for (const char* key : {"general.architecture", "llama.block_count", "llama.embedding_length",
                          "llama.feed_forward_length", "llama.attention.head_count",
                          "llama.context_length", "llama.attention.layer_norm_rms_epsilon"}) {
    Recipe recipe;
    recipe.skip_key = key;
    expect_refused(recipe, key);
  }
  for (const char* name : {"token_embd.weight", "output_norm.weight", "blk.0.attn_q.weight",
                           "blk.1.ffn_down.weight", "blk.1.attn_norm.weight"}) {
    Recipe recipe;
    recipe.skip_tensor = name;
    expect_refused(recipe, name);
  }
}

TEST_F(Load, NamesTensorsOfAWrongShapeOrType) {
  for (const char* name : {"output_norm.weight", "blk.0.attn_k.weight", "blk.1.ffn_up.weight",
                           "blk.0.attn_output.weight", "output.weight"}) {
    Recipe recipe;
    recipe.odd_tensor = name;
    expect_refused(recipe, name);
  }
  Recipe rounded;
  rounded.q8_tensor = "blk.1.ffn_norm.weight";
  expect_refused(rounded, "expected F32");
}

TEST_F(Load, RefusesSizesThatCannotBe) {
  const auto refuse = [&](auto change, const std::string& what) {
    Recipe recipe;
    change(recipe);
    expect_refused(recipe, what);
  };
  refuse([](Recipe& r) { r.architecture = "mystery\x1b[31m"; }, "mystery\\x1b");
  refuse([](Recipe& r) { r.layers = 0; }, "block_count");
  refuse([](Recipe& r) { r.layers = 3; }, "blk.2");
  refuse([](Recipe& r) { r.layers = 4000000000; }, "block_count");
  refuse([](Recipe& r) { r.heads = 0; }, "head_count");
  refuse(
      [](Recipe& r) {
        r.heads = 3;
        r.kv_heads = 2;
      },
      "cannot share");
  refuse([](Recipe& r) { r.kv_heads = 0; }, "head_count_kv");
  refuse([](Recipe& r) { r.kv_heads = 8; }, "head_count_kv");
  refuse([](Recipe& r) { r.heads = 64; }, "key_length");
  refuse([](Recipe& r) { r.context = 0; }, "context_length");
  refuse([](Recipe& r) { r.hidden = 64; }, "shape");
  refuse([](Recipe& r) { r.eps = std::numeric_limits<float>::quiet_NaN(); }, "epsilon");
  refuse(
      [](Recipe& r) {
        r.more = [](GgufWriter& w) { w.set("llama.attention.value_length", uint32_t{4}); };
      },
      "differ");
  refuse(
      [](Recipe& r) {
        r.more = [](GgufWriter& w) { w.set("llama.rope.dimension_count", uint32_t{7}); };
      },
      "even");
  refuse(
      [](Recipe& r) {
        r.more = [](GgufWriter& w) { w.set("llama.rope.dimension_count", uint32_t{10}); };
      },
      "dimension_count");
  refuse([](Recipe& r) { r.more = [](GgufWriter& w) { w.set("llama.rope.freq_base", -1.0F); }; },
         "frequency base");
  refuse(
      [](Recipe& r) { r.more = [](GgufWriter& w) { w.set("llama.rope.scaling.type", "spiral"); }; },
      "spiral");
  refuse(
      [](Recipe& r) {
        r.more = [](GgufWriter& w) { w.set("llama.rope.freq_base", "ten thousand"); };
      },
      "freq_base");
}

TEST_F(Load, RefusesRopeFactorsThatWouldDivideByNothing) {
  for (const float bad : {0.0F, -1.0F, std::numeric_limits<float>::infinity()}) {
    Recipe recipe;
    recipe.more = [bad](GgufWriter& w) {
      w.add_tensor("rope_freqs.weight", {4}, std::vector<float>{1, 1, bad, 1});
    };
    expect_refused(recipe, "rope_freqs.weight");
  }
}

TEST_F(Load, OverridesReplaceTheFilesWord) {
  Recipe recipe;
  recipe.more = [](GgufWriter& w) {
    w.set("llama.rope.scaling.type", "linear").set("llama.rope.scaling.factor", 2.0F);
  };
  RopeOverrides overrides;
  overrides.scaling = RopeScaling::kYarn;
  overrides.freq_base = 5000.0;
  overrides.original_context = 64;
  const auto model = load(recipe, overrides);
  ASSERT_TRUE(model.has_value()) << model.error().message;
  const RopeSettings& rope = model->ropes[0].settings();
  EXPECT_EQ(rope.scaling, RopeScaling::kYarn);
  EXPECT_EQ(rope.factor, 2.0);
  EXPECT_EQ(rope.freq_base, 5000.0);
  EXPECT_EQ(rope.original_context, 64);
}

}  // namespace
}  // namespace banyan
