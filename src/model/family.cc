// SPDX-License-Identifier: Apache-2.0
#include "model/family.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace banyan {
namespace {

// --- names of tensors ----------------------------------------------------------------------------

// GGUF names tensors by what they are for, whatever the family.
constexpr TensorName kGgufNames[] = {
    {Role::kTokenEmbedding, "token_embd"},
    {Role::kPositionEmbedding, "position_embd"},
    {Role::kOutputNorm, "output_norm"},
    {Role::kOutput, "output"},
    {Role::kRopeDivisors, "rope_freqs"},
    {Role::kRopeShortDivisors, "rope_factors_short"},
    {Role::kRopeLongDivisors, "rope_factors_long"},
    {Role::kAttentionNorm, "blk.{}.attn_norm"},
    {Role::kQ, "blk.{}.attn_q"},
    {Role::kK, "blk.{}.attn_k"},
    {Role::kV, "blk.{}.attn_v"},
    {Role::kQkv, "blk.{}.attn_qkv"},
    {Role::kQNorm, "blk.{}.attn_q_norm"},
    {Role::kKNorm, "blk.{}.attn_k_norm"},
    {Role::kAttentionOutput, "blk.{}.attn_output"},
    {Role::kAttentionPostNorm, "blk.{}.post_attention_norm"},
    {Role::kFfnNorm, "blk.{}.ffn_norm"},
    {Role::kGate, "blk.{}.ffn_gate"},
    {Role::kUp, "blk.{}.ffn_up"},
    {Role::kGateUp, "blk.{}.ffn_up"},
    {Role::kDown, "blk.{}.ffn_down"},
    {Role::kFfnPostNorm, "blk.{}.post_ffw_norm"},
    {Role::kRouter, "blk.{}.ffn_gate_inp"},
    {Role::kExpertGate, "blk.{}.ffn_gate_exps"},
    {Role::kExpertUp, "blk.{}.ffn_up_exps"},
    {Role::kExpertDown, "blk.{}.ffn_down_exps"},
};

// Folders: llama's names, which most families share.
constexpr TensorName kFolderNames[] = {
    {Role::kTokenEmbedding, "model.embed_tokens"},
    {Role::kOutputNorm, "model.norm"},
    {Role::kOutput, "lm_head"},
    {Role::kAttentionNorm, "model.layers.{}.input_layernorm"},
    {Role::kQ, "model.layers.{}.self_attn.q_proj"},
    {Role::kK, "model.layers.{}.self_attn.k_proj"},
    {Role::kV, "model.layers.{}.self_attn.v_proj"},
    {Role::kQkv, "model.layers.{}.self_attn.qkv_proj"},
    {Role::kQNorm, "model.layers.{}.self_attn.q_norm"},
    {Role::kKNorm, "model.layers.{}.self_attn.k_norm"},
    {Role::kAttentionOutput, "model.layers.{}.self_attn.o_proj"},
    {Role::kFfnNorm, "model.layers.{}.post_attention_layernorm"},
    {Role::kGate, "model.layers.{}.mlp.gate_proj"},
    {Role::kUp, "model.layers.{}.mlp.up_proj"},
    {Role::kGateUp, "model.layers.{}.mlp.gate_up_proj"},
    {Role::kDown, "model.layers.{}.mlp.down_proj"},
};

constexpr TensorName kGlm4Names[] = {
    {Role::kAttentionPostNorm, "model.layers.{}.post_self_attn_layernorm"},
    {Role::kFfnPostNorm, "model.layers.{}.post_mlp_layernorm"},
};

constexpr TensorName kGemmaNames[] = {
    {Role::kAttentionPostNorm, "model.layers.{}.post_attention_layernorm"},
    {Role::kFfnNorm, "model.layers.{}.pre_feedforward_layernorm"},
    {Role::kFfnPostNorm, "model.layers.{}.post_feedforward_layernorm"},
};

constexpr TensorName kMixtralNames[] = {
    {Role::kRouter, "model.layers.{}.block_sparse_moe.gate"},
    {Role::kExpertGate, "model.layers.{}.block_sparse_moe.experts.{e}.w1"},
    {Role::kExpertUp, "model.layers.{}.block_sparse_moe.experts.{e}.w3"},
    {Role::kExpertDown, "model.layers.{}.block_sparse_moe.experts.{e}.w2"},
};

constexpr TensorName kGptNeoxNames[] = {
    {Role::kTokenEmbedding, "gpt_neox.embed_in"},
    {Role::kOutputNorm, "gpt_neox.final_layer_norm"},
    {Role::kOutput, "embed_out"},
    {Role::kAttentionNorm, "gpt_neox.layers.{}.input_layernorm"},
    {Role::kQ, ""},
    {Role::kQkv, "gpt_neox.layers.{}.attention.query_key_value"},
    {Role::kAttentionOutput, "gpt_neox.layers.{}.attention.dense"},
    {Role::kFfnNorm, "gpt_neox.layers.{}.post_attention_layernorm"},
    {Role::kUp, "gpt_neox.layers.{}.mlp.dense_h_to_4h"},
    {Role::kDown, "gpt_neox.layers.{}.mlp.dense_4h_to_h"},
};

constexpr TensorName kOptNames[] = {
    {Role::kTokenEmbedding, "model.decoder.embed_tokens"},
    {Role::kPositionEmbedding, "model.decoder.embed_positions"},
    {Role::kOutputNorm, "model.decoder.final_layer_norm"},
    {Role::kAttentionNorm, "model.decoder.layers.{}.self_attn_layer_norm"},
    {Role::kQ, "model.decoder.layers.{}.self_attn.q_proj"},
    {Role::kK, "model.decoder.layers.{}.self_attn.k_proj"},
    {Role::kV, "model.decoder.layers.{}.self_attn.v_proj"},
    {Role::kAttentionOutput, "model.decoder.layers.{}.self_attn.out_proj"},
    {Role::kFfnNorm, "model.decoder.layers.{}.final_layer_norm"},
    {Role::kUp, "model.decoder.layers.{}.fc1"},
    {Role::kDown, "model.decoder.layers.{}.fc2"},
};

// --- what config.json leaves out -----------------------------------------------------------------

// The defaults of the configuration classes of transformers 4 and 5. Head size and KV heads follow
// from the other sizes where they are not here.
constexpr ConfigDefault kLlamaDefaults[] = {{Key::kNormEps, 1e-6}, {Key::kContext, 2048}};
constexpr ConfigDefault kMistralDefaults[] = {
    {Key::kNormEps, 1e-6}, {Key::kContext, 131072}, {Key::kKvHeads, 8}, {Key::kWindow, 4096}};
constexpr ConfigDefault kMixtralDefaults[] = {{Key::kNormEps, 1e-5}, {Key::kContext, 131072},
                                              {Key::kKvHeads, 8},    {Key::kRopeBase, 1e6},
                                              {Key::kExperts, 8},    {Key::kExpertsUsed, 2}};
constexpr ConfigDefault kQwen2Defaults[] = {{Key::kNormEps, 1e-6},
                                            {Key::kContext, 32768},
                                            {Key::kKvHeads, 32},
                                            {Key::kWindow, 4096},
                                            {Key::kFirstWindowLayer, 28}};
constexpr ConfigDefault kQwen3Defaults[] = {{Key::kNormEps, 1e-6}, {Key::kContext, 32768},
                                            {Key::kKvHeads, 32},   {Key::kWindow, 4096},
                                            {Key::kHeadDim, 128},  {Key::kFirstWindowLayer, 28}};
constexpr ConfigDefault kPhi3Defaults[] = {{Key::kNormEps, 1e-5}, {Key::kContext, 4096}};
constexpr ConfigDefault kGptNeoxDefaults[] = {
    {Key::kNormEps, 1e-5}, {Key::kContext, 2048}, {Key::kRotaryShare, 0.25}};
constexpr ConfigDefault kOptDefaults[] = {{Key::kNormEps, 1e-5}, {Key::kContext, 2048}};
constexpr ConfigDefault kGlmDefaults[] = {{Key::kNormEps, 1.5625e-7},
                                          {Key::kContext, 131072},
                                          {Key::kKvHeads, 2},
                                          {Key::kHeadDim, 128},
                                          {Key::kRotaryShare, 0.5}};
constexpr ConfigDefault kGemma2Defaults[] = {
    {Key::kNormEps, 1e-6},      {Key::kContext, 8192},         {Key::kKvHeads, 4},
    {Key::kHeadDim, 256},       {Key::kQueryScalar, 256},      {Key::kWindow, 4096},
    {Key::kLogitSoftcap, 30.0}, {Key::kAttentionSoftcap, 50.0}};
constexpr ConfigDefault kGemma3Defaults[] = {{Key::kNormEps, 1e-6},    {Key::kContext, 131072},
                                             {Key::kKvHeads, 4},       {Key::kHeadDim, 256},
                                             {Key::kQueryScalar, 256}, {Key::kWindow, 4096},
                                             {Key::kRopeBase, 1e6},    {Key::kWindowPattern, 6}};

// --- what no table says --------------------------------------------------------------------------

// GGUF has no key for query_pre_attn_scalar. It is the head size but in the largest model of each
// generation, where it is hidden / heads; these are known by their number of layers.
Result<void> adjust_gemma(const ConfigReader& config, Hyperparameters& hp) {
  if (!config.is_gguf()) return {};
  constexpr int kLayersOf27B[] = {46, 62};  // Gemma 2 and 3
  if (std::ranges::find(kLayersOf27B, hp.n_layers) != std::end(kLayersOf27B)) {
    hp.attention_scale = 1.0F / std::sqrt(static_cast<float>(hp.hidden) / hp.n_heads);
  }
  return {};
}

// OPT-350m norms after its blocks and embeds in another width than it computes in.
Result<void> adjust_opt(const ConfigReader& config, Hyperparameters& hp) {
  const ModelFile& file = config.file();
  BANYAN_READ(before, file.boolean("do_layer_norm_before"));
  BANYAN_READ(removed, file.boolean("_remove_final_layer_norm"));
  BANYAN_READ(width, file.integer("word_embed_proj_dim"));
  if (!before.value_or(true) || removed.value_or(false) || width.value_or(hp.hidden) != hp.hidden) {
    return file.metadata_error(
        "an OPT model that norms after its blocks or embeds in another width than hidden_size is "
        "not supported");
  }
  return {};
}

// --- the families --------------------------------------------------------------------------------

constexpr Family kFamilies[] = {
    // GGUF converters permute the q and k rows of this family so that rotary pairs are neighbours.
    // Mistral and Mixtral go by its name there.
    {.gguf = "llama",
     .model_types = {"llama"},
     .interleaved_gguf = true,
     .window_rule = WindowRule::kNone,
     .defaults = kLlamaDefaults},
    {.gguf = "",
     .model_types = {"mistral"},
     .window_rule = WindowRule::kAll,
     .defaults = kMistralDefaults},
    {.gguf = "",
     .model_types = {"mixtral"},
     .window_rule = WindowRule::kAll,
     .tensors = kMixtralNames,
     .defaults = kMixtralDefaults},
    {.gguf = "qwen2",
     .model_types = {"qwen2"},
     .qkv_bias = true,
     .window_rule = WindowRule::kFromLayer,
     .defaults = kQwen2Defaults},
    {.gguf = "qwen3",
     .model_types = {"qwen3"},
     .head_norms = true,
     .window_rule = WindowRule::kFromLayer,
     .defaults = kQwen3Defaults},
    {.gguf = "phi3",
     .model_types = {"phi3"},
     .window_rule = WindowRule::kAll,
     .defaults = kPhi3Defaults},
    {.gguf = "gptneox",
     .model_types = {"gpt_neox"},
     .norm = NormKind::kLayer,
     .qkv_bias = true,
     .other_bias = true,
     .gated = false,
     .activation = Activation::kGelu,
     .parallel_residual = true,
     .qkv_by_head = true,
     .tensors = kGptNeoxNames,
     .defaults = kGptNeoxDefaults},
    {.gguf = "",
     .model_types = {"opt"},
     .norm = NormKind::kLayer,
     .qkv_bias = true,
     .other_bias = true,
     .gated = false,
     .activation = Activation::kRelu,
     .rotary = false,
     .position_offset = 2,
     .tied = true,
     .tensors = kOptNames,
     .defaults = kOptDefaults,
     .adjust = adjust_opt},
    {.gguf = "chatglm",
     .model_types = {"glm"},
     .qkv_bias = true,
     .interleaved_gguf = true,
     .interleaved_folder = true,
     .defaults = kGlmDefaults},
    {.gguf = "glm4",
     .model_types = {"glm4"},
     .post_norms = true,
     .interleaved_gguf = true,
     .interleaved_folder = true,
     .tensors = kGlm4Names,
     .defaults = kGlmDefaults},
    {.gguf = "gemma2",
     .model_types = {"gemma2"},
     .unit_norms = true,
     .post_norms = true,
     .activation = Activation::kGeluTanh,
     .scaled_embedding = true,
     .window_rule = WindowRule::kEven,
     .tied = true,
     .tensors = kGemmaNames,
     .defaults = kGemma2Defaults,
     .adjust = adjust_gemma},
    {.gguf = "gemma3",
     .model_types = {"gemma3_text"},
     .unit_norms = true,
     .post_norms = true,
     .head_norms = true,
     .activation = Activation::kGeluTanh,
     .scaled_embedding = true,
     .local_rope = true,
     .window_rule = WindowRule::kPattern,
     .tied = true,
     .tensors = kGemmaNames,
     .defaults = kGemma3Defaults,
     .adjust = adjust_gemma},
};

bool goes_by(const Family& family, ModelFormat format, std::string_view name) {
  if (name.empty()) return false;
  if (format == ModelFormat::kGguf) return family.gguf == name;
  return std::ranges::find(family.model_types, name) != family.model_types.end();
}

const TensorName* find_role(std::span<const TensorName> names, Role role) {
  const auto found = std::ranges::find(names, role, &TensorName::role);
  return found == names.end() ? nullptr : &*found;
}

}  // namespace

const Family* find_family(ModelFormat format, std::string_view name) {
  for (const Family& family : kFamilies) {
    if (goes_by(family, format, name)) return &family;
  }
  return nullptr;
}

std::string known_families(ModelFormat format) {
  std::string names;
  const auto append = [&](std::string_view name) {
    if (!name.empty()) names += (names.empty() ? "" : ", ") + std::string(name);
  };
  for (const Family& family : kFamilies) {
    if (format == ModelFormat::kGguf) {
      append(family.gguf);
    } else {
      for (const std::string_view type : family.model_types) append(type);
    }
  }
  return names;
}

std::string_view tensor_name(const Family& family, ModelFormat format, Role role) {
  const TensorName* found = nullptr;
  if (format == ModelFormat::kGguf) {
    found = find_role(kGgufNames, role);
  } else {
    found = find_role(family.tensors, role);
    if (found == nullptr) found = find_role(kFolderNames, role);
  }
  return found == nullptr ? std::string_view() : found->name;
}

}  // namespace banyan
