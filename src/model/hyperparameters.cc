// SPDX-License-Identifier: Apache-2.0
#include "model/hyperparameters.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/printable.h"
#include "model/config_reader.h"
#include "model/family.h"

namespace banyan {
namespace {

constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxHeadDim = 256;  // what the attention kernels are built and tested for
constexpr int64_t kMaxExperts = 1024;

struct ActivationName {
  std::string_view name;
  Activation activation;
};
constexpr ActivationName kActivationNames[] = {
    {"silu", Activation::kSilu},         {"swish", Activation::kSilu},
    {"gelu", Activation::kGelu},         {"gelu_pytorch_tanh", Activation::kGeluTanh},
    {"gelu_new", Activation::kGeluTanh}, {"gelu_fast", Activation::kGeluTanh},
    {"relu", Activation::kRelu},
};

Result<Activation> read_activation(const ConfigReader& config) {
  BANYAN_READ(text, config.text(Key::kActivation, ""));
  if (text.empty()) return config.family().activation;
  const auto* found = std::ranges::find(kActivationNames, text, &ActivationName::name);
  if (found != std::end(kActivationNames)) return found->activation;
  return config.file().metadata_error(
      fmt::format("{} is \"{}\", expected silu, gelu, gelu_pytorch_tanh or relu",
                  config.name(Key::kActivation), printable(text)));
}

// Layer by layer, whether config.json's layer_types make it slide.
Result<std::vector<bool>> layer_types(const ConfigReader& config, int n_layers) {
  const auto* types =
      std::get_if<std::vector<std::string_view>>(&config.array(Key::kLayerTypes)->items);
  if (types == nullptr || types->size() != static_cast<size_t>(n_layers)) {
    return config.file().metadata_error(fmt::format(
        "{} is no array of {} words, one for each layer", config.name(Key::kLayerTypes), n_layers));
  }
  std::vector<bool> slides;
  for (const std::string_view type : *types) {
    if (type != "full_attention" && type != "sliding_attention") {
      return config.file().metadata_error(
          fmt::format("{} holds \"{}\", expected full_attention or sliding_attention",
                      config.name(Key::kLayerTypes), printable(type)));
    }
    slides.push_back(type == "sliding_attention");
  }
  return slides;
}

// Which layers slide, where there is a window.
Result<std::vector<bool>> sliding_layers(const ConfigReader& config, int n_layers) {
  if (config.array(Key::kLayerTypes) != nullptr) return layer_types(config, n_layers);
  if (const MetaArray* pattern = config.array(Key::kWindowPattern)) {
    const auto* slides = std::get_if<std::vector<bool>>(&pattern->items);
    if (slides != nullptr && slides->size() == static_cast<size_t>(n_layers)) return *slides;
    return config.file().metadata_error(
        fmt::format("{} is an array, but not of {} booleans, one for each layer",
                    config.name(Key::kWindowPattern), n_layers));
  }
  BANYAN_READ(pattern, config.integer(Key::kWindowPattern, 1, kMaxLayers, 6));
  BANYAN_READ(first, config.integer(Key::kFirstWindowLayer, 0, kMaxLayers, 0));
  std::vector<bool> slides(n_layers);
  for (int layer = 0; layer < n_layers; ++layer) {
    switch (config.family().window_rule) {
      case WindowRule::kNone:
        break;
      case WindowRule::kAll:
        slides[layer] = true;
        break;
      case WindowRule::kEven:
        slides[layer] = layer % 2 == 0;
        break;
      case WindowRule::kPattern:
        slides[layer] = (layer + 1) % pattern != 0;
        break;
      case WindowRule::kFromLayer:
        slides[layer] = layer >= first;
        break;
    }
  }
  return slides;
}

// The window of layers that slide, 0 if none does.
Result<int32_t> read_window(const ConfigReader& config) {
  // Qwen says whether its window is meant; others mean it if it is there.
  const bool asks = config.family().window_rule == WindowRule::kFromLayer;
  BANYAN_READ(used, config.flag(Key::kUsesWindow, !asks));
  if (!used) return 0;
  BANYAN_READ(window, config.integer(Key::kWindow, 0, kMaxPositions, 0));
  return static_cast<int32_t>(window);
}

// Sizes and windows of all layers.
Result<void> read_layers(const ConfigReader& config, Hyperparameters& hp) {
  const auto n = static_cast<size_t>(hp.n_layers);
  BANYAN_READ(heads, config.integers(Key::kHeads, n, 1, kMaxDim));
  const int64_t most_heads = *std::ranges::max_element(heads);
  BANYAN_READ(kv_heads, config.integers(Key::kKvHeads, n, 1, most_heads, most_heads));
  BANYAN_READ(ffn, config.integers(Key::kFfn, n, 1, kMaxDim));
  BANYAN_READ(window, read_window(config));
  std::vector<bool> slides(n);
  if (window > 0) {
    BANYAN_READ(found, sliding_layers(config, hp.n_layers));
    slides = found;
  }
  for (size_t layer = 0; layer < n; ++layer) {
    if (heads[layer] % kv_heads[layer] != 0) {
      return config.file().metadata_error(
          fmt::format("{} query heads cannot share {} KV heads", heads[layer], kv_heads[layer]));
    }
    LayerShape shape{.n_heads = static_cast<int>(heads[layer]),
                     .n_kv_heads = static_cast<int>(kv_heads[layer]),
                     .ffn = static_cast<int>(ffn[layer]),
                     .slides = slides[layer]};
    shape.rope = config.family().local_rope && shape.slides ? 1 : 0;
    const LayerGroup group{shape.n_heads, shape.n_kv_heads,
                           shape.slides ? window : int32_t{Band::kCausal}};
    const auto same = std::ranges::find_if(hp.groups, [&](const LayerGroup& g) {
      return g.n_heads == group.n_heads && g.n_kv_heads == group.n_kv_heads &&
             g.window == group.window;
    });
    shape.group = static_cast<int>(same - hp.groups.begin());
    if (same == hp.groups.end()) hp.groups.push_back(group);
    hp.layers.push_back(shape);
    hp.n_heads = std::max(hp.n_heads, shape.n_heads);
    hp.n_kv_heads = std::max(hp.n_kv_heads, shape.n_kv_heads);
    hp.ffn = std::max(hp.ffn, shape.ffn);
  }
  return {};
}

Result<void> read_head_dim(const ConfigReader& config, Hyperparameters& hp) {
  BANYAN_READ(head_dim,
              config.integer(Key::kHeadDim, 1, kMaxHeadDim, hp.hidden / hp.layers[0].n_heads));
  hp.head_dim = static_cast<int>(head_dim);
  if (!config.is_gguf()) return {};
  BANYAN_READ(value_dim, config.integer(Key::kValueDim, 1, kMaxHeadDim, head_dim));
  if (value_dim == head_dim) return {};
  return config.file().metadata_error(fmt::format(
      "key length {} and value length {} differ, expected one size", head_dim, value_dim));
}

// What multiplies and what bounds scores and logits.
Result<void> read_scales(const ConfigReader& config, Hyperparameters& hp) {
  BANYAN_READ(scalar, config.number(Key::kQueryScalar, hp.head_dim));
  if (!(scalar > 0)) {
    return config.file().metadata_error(
        fmt::format("{} is {}, expected a number above 0", config.name(Key::kQueryScalar), scalar));
  }
  BANYAN_READ(scale, config.number(Key::kAttentionScale, 1 / std::sqrt(scalar)));
  BANYAN_READ(attention_cap, config.number(Key::kAttentionSoftcap, 0.0));
  BANYAN_READ(logit_cap, config.number(Key::kLogitSoftcap, 0.0));
  if (attention_cap < 0 || logit_cap < 0) {
    return config.file().metadata_error("soft caps must not be below 0");
  }
  hp.attention_scale = static_cast<float>(scale);
  hp.attention_softcap = static_cast<float>(attention_cap);
  hp.logit_softcap = static_cast<float>(logit_cap);
  if (config.family().scaled_embedding) {
    hp.embedding_scale = std::sqrt(static_cast<float>(hp.hidden));
  }
  return {};
}

Result<void> read_experts(const ConfigReader& config, Hyperparameters& hp) {
  BANYAN_READ(experts, config.integer(Key::kExperts, 0, kMaxExperts, 0));
  if (experts == 0) return {};
  BANYAN_READ(used, config.integer(Key::kExpertsUsed, 1, experts));
  hp.n_experts = static_cast<int>(experts);
  hp.n_experts_used = static_cast<int>(used);
  return {};
}

// Weights that were rounded by GPTQ, AWQ or the like come with this.
Result<void> refuse_quantised(const ConfigReader& config) {
  constexpr std::string_view kPrefix = "quantization_config.";
  const Metadata& all = config.file().metadata();
  const auto found = all.lower_bound(kPrefix);
  if (config.is_gguf() || found == all.end() || !found->first.starts_with(kPrefix)) return {};
  return config.file().metadata_error(
      "it has a quantization_config; weights in f32, f16 or bf16 can be read from a folder, and "
      "quantised ones from GGUF");
}

}  // namespace

Result<Hyperparameters> read_hyperparameters(const ConfigReader& config) {
  const Family& family = config.family();
  BANYAN_TRY(refuse_quantised(config));
  Hyperparameters hp;
  BANYAN_READ(layers, config.integer(Key::kLayers, 1, kMaxLayers));
  BANYAN_READ(hidden, config.integer(Key::kHidden, 1, kMaxDim));
  hp.n_layers = static_cast<int>(layers);
  hp.hidden = static_cast<int>(hidden);
  BANYAN_TRY(read_layers(config, hp));
  BANYAN_TRY(read_head_dim(config, hp));
  BANYAN_READ(context, config.integer(Key::kContext, 1, kMaxPositions));
  BANYAN_READ(eps, config.number(Key::kNormEps));
  if (eps < 0 || eps > 1) {
    return config.file().metadata_error(
        fmt::format("{} is {}, expected 0 to 1", config.name(Key::kNormEps), eps));
  }
  BANYAN_READ(activation, read_activation(config));
  BANYAN_READ(parallel, config.flag(Key::kParallelResidual, family.parallel_residual));
  hp.context_length = static_cast<int>(context);
  hp.position_offset = family.position_offset;
  hp.norm = family.norm;
  hp.norm_eps = static_cast<float>(eps);
  hp.activation = activation;
  hp.parallel_residual = parallel;
  BANYAN_TRY(read_scales(config, hp));
  BANYAN_TRY(read_experts(config, hp));
  if (family.adjust != nullptr) BANYAN_TRY(family.adjust(config, hp));
  return hp;
}

std::vector<KvShape> kv_shapes(const Hyperparameters& hp, DType k_type, DType v_type) {
  std::vector<KvShape> shapes;
  for (const LayerShape& layer : hp.layers) {
    if (shapes.empty() || shapes.back().n_kv_heads != layer.n_kv_heads) {
      shapes.push_back({0, layer.n_kv_heads, hp.head_dim, k_type, v_type});
    }
    ++shapes.back().n_layers;
  }
  return shapes;
}

}  // namespace banyan
