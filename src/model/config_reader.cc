// SPDX-License-Identifier: Apache-2.0
#include "model/config_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "model/family.h"

namespace banyan {
namespace {

// A key in GGUF, behind the family's prefix, and in config.json: the first of them that is there.
// Published files and transformers 5 name some keys differently.
struct KeyNames {
  Key key;
  std::array<std::string_view, 2> gguf;
  std::array<std::string_view, 4> folder;
};

constexpr KeyNames kKeyNames[] = {
    {Key::kLayers, {"block_count"}, {"num_hidden_layers"}},
    {Key::kHidden, {"embedding_length"}, {"hidden_size"}},
    {Key::kFfn, {"feed_forward_length"}, {"intermediate_size", "ffn_dim"}},
    {Key::kHeads, {"attention.head_count"}, {"num_attention_heads"}},
    {Key::kKvHeads, {"attention.head_count_kv"}, {"num_key_value_heads"}},
    {Key::kHeadDim, {"attention.key_length"}, {"head_dim"}},
    {Key::kValueDim, {"attention.value_length"}, {}},
    {Key::kContext, {"context_length"}, {"max_position_embeddings"}},
    {Key::kNormEps,
     {"attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"},
     {"rms_norm_eps", "layer_norm_eps"}},
    {Key::kActivation, {}, {"hidden_activation", "hidden_act", "activation_function"}},
    {Key::kParallelResidual, {"use_parallel_residual"}, {"use_parallel_residual"}},
    {Key::kTied, {}, {"tie_word_embeddings"}},
    {Key::kVocab, {}, {"vocab_size"}},
    {Key::kWindow, {"attention.sliding_window"}, {"sliding_window"}},
    {Key::kUsesWindow, {}, {"use_sliding_window"}},
    {Key::kWindowPattern,
     {"attention.sliding_window_pattern"},
     {"sliding_window_pattern", "_sliding_window_pattern"}},
    {Key::kFirstWindowLayer, {}, {"max_window_layers"}},
    {Key::kLayerTypes, {}, {"layer_types"}},
    {Key::kQueryScalar, {}, {"query_pre_attn_scalar"}},
    {Key::kAttentionScale, {"attention.scale"}, {}},
    {Key::kAttentionSoftcap, {"attn_logit_softcapping"}, {"attn_logit_softcapping"}},
    {Key::kLogitSoftcap, {"final_logit_softcapping"}, {"final_logit_softcapping"}},
    {Key::kExperts, {"expert_count"}, {"num_local_experts"}},
    {Key::kExpertsUsed, {"expert_used_count"}, {"num_experts_per_tok"}},
    {Key::kRotaryDim, {"rope.dimension_count"}, {}},
    {Key::kRotaryShare,
     {},
     {"rope_parameters.partial_rotary_factor",
      "rope_parameters.full_attention.partial_rotary_factor", "partial_rotary_factor",
      "rotary_pct"}},
    {Key::kRopeBase,
     {"rope.freq_base"},
     {"rope_parameters.rope_theta", "rope_parameters.full_attention.rope_theta", "rope_theta",
      "rotary_emb_base"}},
    {Key::kLocalRopeBase,
     {"rope.freq_base_swa"},
     {"rope_parameters.sliding_attention.rope_theta", "rope_local_base_freq"}},
};

const KeyNames& names_of(Key key) {
  const auto* found = std::ranges::find(kKeyNames, key, &KeyNames::key);
  BANYAN_CHECK(found != std::end(kKeyNames), "a key without names");
  return *found;
}

}  // namespace

ConfigReader::ConfigReader(const ModelFile& file, const Family& family)
    : file_(file), family_(family), prefix_(std::string(family.gguf) + ".") {}

std::optional<double> ConfigReader::default_of(Key key) const {
  if (is_gguf() || file_.is_null(name(key))) return std::nullopt;
  const auto found = std::ranges::find(family_.defaults, key, &ConfigDefault::key);
  if (found == family_.defaults.end()) return std::nullopt;
  return found->value;
}

bool ConfigReader::has(Key key) const { return file_.find(name(key)) != nullptr; }

std::string ConfigReader::name(Key key) const {
  const KeyNames& names = names_of(key);
  std::string first;
  const auto try_each = [&](std::string_view prefix, const auto& all) {
    for (const std::string_view each : all) {
      if (each.empty()) continue;
      std::string whole = std::string(prefix) + std::string(each);
      if (file_.find(whole) != nullptr || file_.is_null(whole)) return whole;
      if (first.empty()) first = whole;
    }
    return first;
  };
  return is_gguf() ? try_each(prefix_, names.gguf) : try_each("", names.folder);
}

Error ConfigReader::missing(Key key) const {
  return file_.metadata_error(fmt::format("metadata key {} is missing", name(key)));
}

Result<int64_t> ConfigReader::checked(Key key, int64_t value, int64_t low, int64_t high) const {
  if (value >= low && value <= high) return value;
  return file_.metadata_error(
      fmt::format("{} is {}, expected {} to {}", name(key), value, low, high));
}

Result<int64_t> ConfigReader::integer(Key key, int64_t low, int64_t high,
                                      std::optional<int64_t> fallback) const {
  BANYAN_READ(found, file_.integer(name(key)));
  if (found) return checked(key, *found, low, high);
  if (const auto value = default_of(key)) return static_cast<int64_t>(*value);
  if (fallback) return checked(key, *fallback, low, high);
  return missing(key);
}

Result<double> ConfigReader::number(Key key, std::optional<double> fallback) const {
  BANYAN_READ(found, file_.number(name(key)));
  if (found && !std::isfinite(*found)) {
    return file_.metadata_error(fmt::format("{} is not a finite number", name(key)));
  }
  if (found) return *found;
  if (const auto value = default_of(key)) return *value;
  if (fallback) return *fallback;
  return missing(key);
}

Result<bool> ConfigReader::flag(Key key, bool fallback) const {
  BANYAN_READ(found, file_.boolean(name(key)));
  return found.value_or(fallback);
}

Result<std::string> ConfigReader::text(Key key, std::string_view fallback) const {
  BANYAN_READ(found, file_.string(name(key)));
  return std::string(found.value_or(fallback));
}

Result<std::vector<int64_t>> ConfigReader::integers(Key key, size_t count, int64_t low,
                                                    int64_t high,
                                                    std::optional<int64_t> fallback) const {
  const MetaArray* found = array(key);
  if (found == nullptr) {
    BANYAN_READ(one, integer(key, low, high, fallback));
    return std::vector<int64_t>(count, one);
  }
  const auto* items = std::get_if<std::vector<int64_t>>(&found->items);
  if (items == nullptr || items->size() != count) {
    return file_.metadata_error(fmt::format(
        "{} is an array, but not of {} integers, one for each layer", name(key), count));
  }
  for (const int64_t item : *items) BANYAN_TRY(checked(key, item, low, high));
  return *items;
}

const MetaArray* ConfigReader::array(Key key) const {
  const MetaValue* found = file_.find(name(key));
  return found == nullptr ? nullptr : std::get_if<MetaArray>(found);
}

}  // namespace banyan
