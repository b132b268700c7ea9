// SPDX-License-Identifier: Apache-2.0
// Models as folders: what config.json says, leaves out and gets wrong, family by family.
#include "model/family.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "base/testing_temp_folder.h"
#include "files/testing_safetensors_writer.h"
#include "model/config_reader.h"
#include "model/model.h"

namespace banyan {
namespace {

class Config : public testing::Test {
 protected:
  // Hyperparameters of a folder with that config.json.
  Result<Hyperparameters> read(const std::string& json) {
    folder_.write("config.json", json);
    folder_.write("model.safetensors", SafetensorsWriter().build());
    auto opened = ModelFile::open(folder_.path().string());
    if (!opened) return opened.error();
    file_ = *std::move(opened);
    const auto type = file_.string("model_type");
    const Family* family = find_family(ModelFormat::kFolder, type->value());
    EXPECT_NE(family, nullptr);
    return read_hyperparameters(ConfigReader(file_, *family));
  }

  Hyperparameters good(const std::string& json) {
    auto hp = read(json);
    EXPECT_TRUE(hp) << hp.error().message;
    return hp ? *hp : Hyperparameters();
  }

  void expect_refused(const std::string& json, const std::string& what) {
    const auto hp = read(json);
    ASSERT_FALSE(hp) << json;
    EXPECT_EQ(hp.error().code, ErrorCode::kBadInput);
    EXPECT_NE(hp.error().message.find("config.json"), std::string::npos) << hp.error().message;
    EXPECT_NE(hp.error().message.find(what), std::string::npos) << hp.error().message;
  }

  TempFolder folder_;
  ModelFile file_;
};

std::string with(const std::string& type, const std::string& more) {
  return R"({"model_type":")" + type +
         R"(","num_hidden_layers":4,"hidden_size":64,"num_attention_heads":8,)"
         R"("intermediate_size":96)" +
         (more.empty() ? "" : "," + more) + "}";
}

std::vector<bool> slides(const Hyperparameters& hp) {
  std::vector<bool> out;
  for (const LayerShape& layer : hp.layers) out.push_back(layer.slides);
  return out;
}

TEST_F(Config, WhatFamiliesMeanByLeavingOut) {
  Hyperparameters hp = good(with("llama", ""));
  EXPECT_EQ(hp.n_kv_heads, 8);
  EXPECT_EQ(hp.head_dim, 8);
  EXPECT_FLOAT_EQ(hp.norm_eps, 1e-6F);
  EXPECT_EQ(hp.context_length, 2048);
  EXPECT_EQ(hp.groups.size(), 1U);
  EXPECT_EQ(hp.groups[0].window, int32_t{Band::kCausal});
  hp = good(with("qwen3", R"("num_key_value_heads":4)"));
  EXPECT_EQ(hp.head_dim, 128);
  hp = good(with("gemma2", ""));
  EXPECT_EQ(hp.head_dim, 256);
  EXPECT_EQ(hp.n_kv_heads, 4);
  EXPECT_FLOAT_EQ(hp.attention_softcap, 50);
  EXPECT_FLOAT_EQ(hp.logit_softcap, 30);
  EXPECT_FLOAT_EQ(hp.attention_scale, 1.0F / 16);
  EXPECT_FLOAT_EQ(hp.embedding_scale, 8);
  EXPECT_EQ(slides(hp), (std::vector<bool>{true, false, true, false}));
  hp = good(with("gpt_neox", ""));
  EXPECT_TRUE(hp.parallel_residual);
  EXPECT_EQ(hp.norm, NormKind::kLayer);
  EXPECT_EQ(hp.activation, Activation::kGelu);
  hp = good(with("mixtral", ""));
  EXPECT_EQ(hp.n_experts, 8);
  EXPECT_EQ(hp.n_experts_used, 2);
}

// Null is not the same as nothing: Mistral's window is 4096 where the key is absent.
TEST_F(Config, NullMeansNone) {
  EXPECT_EQ(good(with("mistral", "")).groups[0].window, 4096);
  EXPECT_EQ(good(with("mistral", R"("sliding_window":null)")).groups[0].window,
            int32_t{Band::kCausal});
  EXPECT_EQ(good(with("mistral", R"("sliding_window":7)")).groups[0].window, 7);
  const auto hp = good(with("gemma2", R"("attn_logit_softcapping":null,"hidden_activation":null,
                                         "hidden_act":"gelu")"));
  EXPECT_EQ(hp.attention_softcap, 0);
  EXPECT_EQ(hp.activation, Activation::kGeluTanh) << "hidden_activation goes before hidden_act";
  EXPECT_EQ(good(with("mixtral", R"("head_dim":null)")).head_dim, 8);
}

TEST_F(Config, WindowsAreForTheLayersThatAreMeant) {
  const std::string window = R"("sliding_window":32,"num_key_value_heads":8)";
  EXPECT_EQ(good(with("qwen2", window)).groups.size(), 1U) << "use_sliding_window is not said";
  const auto qwen =
      good(with("qwen2", window + R"(,"use_sliding_window":true,"max_window_layers":3)"));
  EXPECT_EQ(slides(qwen), (std::vector<bool>{false, false, false, true}));
  ASSERT_EQ(qwen.groups.size(), 2U);
  EXPECT_EQ(qwen.layers[3].group, 1);
  EXPECT_EQ(qwen.groups[1].window, 32);
  EXPECT_EQ(good(with("llama", window)).groups[0].window, int32_t{Band::kCausal});
  const auto gemma = good(with("gemma3_text", R"("sliding_window":9,"sliding_window_pattern":2)"));
  EXPECT_EQ(slides(gemma), (std::vector<bool>{true, false, true, false}));
  EXPECT_EQ(gemma.layers[0].rope, 1);
  EXPECT_EQ(gemma.layers[1].rope, 0);
  const auto told = good(with("gemma2", R"("layer_types":["full_attention","sliding_attention",
                                           "full_attention","full_attention"])"));
  EXPECT_EQ(slides(told), (std::vector<bool>{false, true, false, false}));
}

TEST_F(Config, LayersMayDifferInSize) {
  const auto hp = good(R"({"model_type":"llama","num_hidden_layers":3,"hidden_size":64,
      "num_attention_heads":[8,4,8],"num_key_value_heads":[2,4,2],"head_dim":16,
      "intermediate_size":[96,32,64]})");
  EXPECT_EQ(hp.n_heads, 8);
  EXPECT_EQ(hp.n_kv_heads, 4);
  EXPECT_EQ(hp.ffn, 96);
  EXPECT_EQ(hp.layers[1].ffn, 32);
  ASSERT_EQ(hp.groups.size(), 2U);
  EXPECT_EQ(hp.layers[0].group, hp.layers[2].group);
  const auto shapes = kv_shapes(hp, DType::kF16, DType::kF16);
  ASSERT_EQ(shapes.size(), 3U);
  EXPECT_EQ(shapes[1].n_kv_heads, 4);
}

TEST_F(Config, WhatIsWrongIsNamed) {
  expect_refused(R"({"model_type":"llama"})", "num_hidden_layers is missing");
  expect_refused(R"({"model_type":"llama","num_hidden_layers":1})", "hidden_size is missing");
  expect_refused(R"({"model_type":"llama","num_hidden_layers":4611686018427387904})",
                 "num_hidden_layers is 4611686018427387904");
  expect_refused(R"({"model_type":"llama","num_hidden_layers":18446744073709551615})",
                 "num_hidden_layers");
  expect_refused(R"({"model_type":"llama","num_hidden_layers":2,"hidden_size":"64"})",
                 "'hidden_size' is a string");
  expect_refused(with("llama", R"("num_key_value_heads":0)"), "num_key_value_heads is 0");
  expect_refused(with("llama", R"("num_key_value_heads":3)"), "cannot share");
  expect_refused(with("llama", R"("num_key_value_heads":[8,8])"), "one for each layer");
  expect_refused(with("llama", R"("num_key_value_heads":[8,8,8,"x"])"), "num_key_value_heads");
  expect_refused(with("llama", R"("num_key_value_heads":{})"), "num_key_value_heads");
  expect_refused(with("gemma2", R"("sliding_window":{"a":1})"), "sliding_window");
  expect_refused(with("llama", R"("head_dim":4096)"), "head_dim is 4096");
  expect_refused(with("llama", R"("rms_norm_eps":-1)"), "rms_norm_eps is -1");
  expect_refused(with("llama", R"("rms_norm_eps":4611686018427387904)"), "rms_norm_eps is 4.6");
  expect_refused(with("llama", R"("max_position_embeddings":-1)"), "max_position_embeddings is -1");
  expect_refused(with("llama", R"("hidden_act":"mish\u001b")"), "mish\\x1b");
  expect_refused(with("llama", R"("quantization_config":{"quant_method":"gptq"})"),
                 "quantization_config");
  expect_refused(with("gemma2", R"("query_pre_attn_scalar":0)"), "query_pre_attn_scalar");
  expect_refused(with("gemma2", R"("attn_logit_softcapping":-1)"), "soft caps");
  expect_refused(with("gemma2", R"("sliding_window":-5)"), "sliding_window is -5");
  expect_refused(with("gemma2", R"("layer_types":["full_attention"])"), "one for each layer");
  expect_refused(with("gemma2", R"("layer_types":["a","b","c","d"])"), "layer_types holds \"a\"");
  expect_refused(with("gemma3_text", R"("sliding_window_pattern":0)"), "sliding_window_pattern");
  expect_refused(with("mixtral", R"("num_local_experts":4,"num_experts_per_tok":5)"),
                 "num_experts_per_tok is 5");
  expect_refused(R"({"model_type":"opt","num_hidden_layers":1,"hidden_size":64,"ffn_dim":64,
      "num_attention_heads":4,"do_layer_norm_before":false})",
                 "norms after its blocks");
}

// --- whole models --------------------------------------------------------------------------------

// A llama of one layer, each tensor of which a test can change.
struct TinyFolder {
  std::string config = R"({"model_type":"llama","num_hidden_layers":1,"hidden_size":8,
      "num_attention_heads":2,"intermediate_size":12,"max_position_embeddings":64)";
  std::string more;     // keys, each after a comma
  std::string without;  // a tensor to leave out
  std::string type = "F32";
  std::string odd;  // a tensor to store as F8_E4M3
  SafetensorsWriter extra;

  std::string weights() const {
    SafetensorsWriter writer = extra;
    const auto add = [&](const std::string& name, const std::vector<int64_t>& shape) {
      int64_t n = 1;
      for (const int64_t dim : shape) n *= dim;
      if (name == without) return;
      if (name == odd) {
        writer.add(name, "F8_E4M3", shape, std::string(n, '\0'));
      } else if (type == "F32") {
        writer.add(name, shape, std::vector<float>(n, 0.5F));
      } else {
        std::string half;
        for (int64_t i = 0; i < n; ++i)
          half += type == "F16" ? std::string("\x00\x38", 2) : std::string("\x00\x3f", 2);
        writer.add(name, type, shape, half);
      }
    };
    add("model.embed_tokens.weight", {20, 8});
    add("model.norm.weight", {8});
    add("lm_head.weight", {20, 8});
    const std::string layer = "model.layers.0.";
    add(layer + "input_layernorm.weight", {8});
    add(layer + "post_attention_layernorm.weight", {8});
    for (const char* name : {"q", "k", "v", "o"}) {
      add(layer + "self_attn." + name + "_proj.weight", {8, 8});
    }
    add(layer + "mlp.gate_proj.weight", {12, 8});
    add(layer + "mlp.up_proj.weight", {12, 8});
    add(layer + "mlp.down_proj.weight", {8, 12});
    return writer.build();
  }
};

class LoadFolder : public testing::Test {
 protected:
  Result<Model> load(const TinyFolder& tiny, int context = 0) {
    folder_.write("config.json", tiny.config + tiny.more + "}");
    folder_.write("model.safetensors", tiny.weights());
    auto opened = ModelFile::open(folder_.path().string());
    if (!opened) return opened.error();
    file_ = *std::move(opened);
    return load_model(file_, {}, context);
  }
  void expect_refused(const TinyFolder& tiny, const std::string& what) {
    const auto model = load(tiny);
    ASSERT_FALSE(model) << what;
    EXPECT_EQ(model.error().code, ErrorCode::kBadInput);
    EXPECT_NE(model.error().message.find(folder_.path().string()), std::string::npos);
    EXPECT_NE(model.error().message.find(what), std::string::npos) << model.error().message;
  }
  RopeSettings rope(const std::string& more, int context = 0) {
    TinyFolder tiny;
    tiny.more = more;
    const auto model = load(tiny, context);
    EXPECT_TRUE(model) << model.error().message;
    return model ? model->ropes[0].settings() : RopeSettings();
  }
  TempFolder folder_;
  ModelFile file_;
};

TEST_F(LoadFolder, WeightsStayWhereTheyLieAndVectorsAreInF32) {
  for (const std::string type : {"F32", "F16", "BF16"}) {
    TinyFolder tiny;
    tiny.type = type;
    const auto model = load(tiny);
    ASSERT_TRUE(model) << model.error().message;
    EXPECT_EQ(type_info(model->layers[0].q.weight.type)->name, type);
    EXPECT_EQ(model->layers[0].q.weight.data,
              file_.tensor("model.layers.0.self_attn.q_proj.weight")->data.data());
    EXPECT_EQ(model->layers[0].ffn_norm.weight[7], 0.5F);
    EXPECT_EQ(model->kept.empty(), type == "F32");
    EXPECT_FALSE(model->ropes[0].settings().interleaved) << "rows are permuted in GGUF only";
  }
}

TEST_F(LoadFolder, HeadsAreTiedAsTheConfigSays) {
  TinyFolder tiny;
  EXPECT_NE(load(tiny)->output.weight.data, load(tiny)->token_embedding.data);
  tiny.more = R"(,"tie_word_embeddings":true)";
  auto tied = load(tiny);
  ASSERT_TRUE(tied) << tied.error().message;
  EXPECT_EQ(tied->output.weight.data, tied->token_embedding.data);
  tiny.without = "lm_head.weight";
  EXPECT_TRUE(load(tiny));
  tiny.more = "";
  expect_refused(tiny, "lm_head.weight is missing");
}

TEST_F(LoadFolder, EveryTensorHasAPlaceOrIsNamed) {
  TinyFolder tiny;
  tiny.extra.add("model.layers.0.self_attn.q_proj.lora_A.weight", {1, 8}, std::vector<float>(8));
  expect_refused(tiny, "lora_A.weight has no place");
  tiny.extra = {};
  tiny.extra.add("model.layers.1.input_layernorm.weight", {8}, std::vector<float>(8));
  expect_refused(tiny, "model.layers.1.input_layernorm.weight has no place");
  tiny.extra = {};
  tiny.extra.add("model.layers.0.self_attn.rotary_emb.inv_freq", {2}, {1, 2});
  EXPECT_TRUE(load(tiny)) << "old checkpoints carry what follows from the sizes";
  tiny.extra = {};
  tiny.extra.add("model.layers.0.self_attn.o_proj.bias", {8}, std::vector<float>(8, 3));
  const auto biased = load(tiny);
  ASSERT_TRUE(biased) << biased.error().message;
  ASSERT_NE(biased->layers[0].attention_output.bias, nullptr);
  EXPECT_EQ(biased->layers[0].attention_output.bias[7], 3);
  tiny.extra = {};
  tiny.extra.add("model.layers.0.self_attn.o_proj.bias", {9}, std::vector<float>(9));
  expect_refused(tiny, "o_proj.bias has shape 9, expected 8");
}

TEST_F(LoadFolder, MissingAndForeignTensorsAreNamed) {
  for (const std::string name :
       {"model.embed_tokens.weight", "model.norm.weight", "model.layers.0.self_attn.k_proj.weight",
        "model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.down_proj.weight"}) {
    TinyFolder tiny;
    tiny.without = name;
    expect_refused(tiny, name);
    if (name == "model.embed_tokens.weight") continue;
    TinyFolder rounded;
    rounded.odd = name;
    expect_refused(rounded, name + " is F8_E4M3, expected F32, F16 or BF16");
  }
}

TEST_F(LoadFolder, ShapesMustFitTheConfig) {
  TinyFolder tiny;
  tiny.more = R"(,"head_dim":8)";
  expect_refused(tiny, "q_proj.weight has shape 8 x 8, expected 8 x 16");
  TinyFolder other;
  other.config = R"({"model_type":"mamba")";
  expect_refused(other, "\"mamba\" is not supported, only llama, mistral");
  other.config = R"({"x":1)";
  expect_refused(other, "model_type is missing");
}

TEST_F(LoadFolder, TheVocabularyIsTheRowsOfTheEmbedding) {
  TinyFolder tiny;
  tiny.more = R"(,"vocab_size":null)";
  EXPECT_EQ(load(tiny)->hp.vocab, 20);
  tiny.more = R"(,"vocab_size":20)";
  EXPECT_EQ(load(tiny)->hp.vocab, 20);
  tiny.more = R"(,"vocab_size":19)";
  expect_refused(tiny, "vocab_size is 19, expected the 20 rows of the embedding");
  tiny.more = R"(,"vocab_size":0)";
  expect_refused(tiny, "vocab_size is 0");
}

TEST_F(LoadFolder, RotarySettingsInBothStyles) {
  EXPECT_EQ(rope("").freq_base, 10000);
  EXPECT_EQ(rope(R"(,"rope_theta":500)").freq_base, 500);
  EXPECT_EQ(rope(R"(,"rope_parameters":{"rope_theta":700,"rope_type":"default"})").freq_base, 700);
  for (const std::string nest :
       {R"(,"rope_theta":500,"rope_scaling":{"type":"linear","factor":4})",
        R"(,"rope_parameters":{"rope_theta":500,"rope_type":"linear","factor":4.0})"}) {
    const RopeSettings s = rope(nest);
    EXPECT_EQ(s.scaling, RopeScaling::kLinear);
    EXPECT_EQ(s.factor, 4);
    EXPECT_EQ(s.freq_base, 500);
  }
  EXPECT_EQ(rope(R"(,"rope_scaling":null)").scaling, RopeScaling::kNone);
  const RopeSettings yarn = rope(
      R"(,"rope_scaling":{"rope_type":"yarn","factor":4,"attention_factor":1.0,"beta_fast":16})");
  EXPECT_EQ(yarn.scaling, RopeScaling::kYarn);
  EXPECT_EQ(yarn.original_context, 64);
  EXPECT_EQ(yarn.beta_fast, 16);
  EXPECT_NEAR(yarn.attn_factor * (0.1 * std::log(4.0) + 1), 1.0, 1e-12);
}

TEST_F(LoadFolder, LongDivisorsAreForContextsAboveTheOriginal) {
  const std::string nest =
      R"(,"original_max_position_embeddings":16,
          "rope_scaling":{"type":"longrope","short_factor":[1,2],"long_factor":[3,4.5]})";
  EXPECT_TRUE(rope(nest).long_divisors) << "64 as trained";
  EXPECT_FALSE(rope(nest, 16).long_divisors);
  EXPECT_TRUE(rope(nest, 17).long_divisors);
  EXPECT_NEAR(rope(nest, 16).attn_factor, std::sqrt(1 + std::log(4.0) / std::log(16.0)), 1e-12);
}

TEST_F(LoadFolder, RotarySettingsThatCannotBeAreNamed) {
  const auto refuse = [&](const std::string& more, const std::string& what) {
    TinyFolder tiny;
    tiny.more = more;
    expect_refused(tiny, what);
  };
  refuse(R"(,"rope_parameters":5)", "rope_parameters is no object");
  refuse(R"(,"rope_parameters":{"sliding_attention":[1]})", "sliding_attention is no object");
  refuse(R"(,"rope_scaling":[{"type":"linear"}])", "rope_scaling is no object");
  refuse(R"(,"rope_theta":"x")", "rope_theta");
  refuse(R"(,"rope_theta":0)", "frequency base");
  refuse(R"(,"rope_scaling":{"type":"dynamic","factor":2})", "\"dynamic\" is not known");
  refuse(R"(,"rope_scaling":{"type":7})", "rope_scaling.type");
  refuse(R"(,"rope_scaling":{"type":"linear","factor":0})", "scaling factor");
  refuse(R"(,"rope_scaling":{"rope_type":"llama3","factor":8,"low_freq_factor":4,
             "high_freq_factor":1,"original_max_position_embeddings":16})",
         "low_freq_factor");
  refuse(R"(,"rope_scaling":{"rope_type":"longrope","short_factor":[1,1],"long_factor":[1]})",
         "rope_scaling.long_factor is no array of 2 numbers above 0");
  refuse(R"(,"rope_scaling":{"rope_type":"longrope","short_factor":[1,0],"long_factor":[1,1]})",
         "rope_scaling.short_factor");
  refuse(R"(,"rope_scaling":{"rope_type":"longrope","short_factor":"x","long_factor":[1,1]})",
         "rope_scaling.short_factor");
  refuse(R"(,"rope_scaling":{"rope_type":"longrope","short_factor":[1,1],"long_factor":[1,1],
             "original_max_position_embeddings":1})",
         "above 1");
  refuse(R"(,"rope_scaling":{"rope_type":"yarn","factor":4,
             "original_max_position_embeddings":-3})",
         "original_max_position_embeddings is -3");
  refuse(R"(,"partial_rotary_factor":2)", "partial_rotary_factor is 2");
  refuse(R"(,"partial_rotary_factor":0.3)", "even");
}

TEST(Families, AreFoundByTheNamesOfTheirFormats) {
  EXPECT_NE(find_family(ModelFormat::kGguf, "chatglm"), nullptr);
  EXPECT_EQ(find_family(ModelFormat::kFolder, "chatglm"), nullptr);
  EXPECT_EQ(find_family(ModelFormat::kGguf, "chatglm"), find_family(ModelFormat::kFolder, "glm"));
  EXPECT_EQ(find_family(ModelFormat::kGguf, ""), nullptr);
  EXPECT_EQ(find_family(ModelFormat::kFolder, ""), nullptr);
  EXPECT_EQ(find_family(ModelFormat::kGguf, "mixtral"), nullptr);
}

}  // namespace
}  // namespace banyan
