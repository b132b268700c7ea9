// SPDX-License-Identifier: Apache-2.0
#include "model/rope_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/printable.h"
#include "model/family.h"

namespace banyan {
namespace {

struct ScalingName {
  std::string_view name;
  RopeScaling scaling;
};
constexpr ScalingName kScalingNames[] = {
    {"", RopeScaling::kNone},
    {"none", RopeScaling::kNone},
    {"default", RopeScaling::kNone},
    {"linear", RopeScaling::kLinear},
    {"yarn", RopeScaling::kYarn},
    {"llama3", RopeScaling::kLlama3},
    {"su", RopeScaling::kLongRope},  // LongRoPE's first name
    {"longrope", RopeScaling::kLongRope},
};

// What a file says of one kind of layers: settings without rot_dim and interleaving, and divisors.
struct Found {
  RopeSettings settings;
  std::vector<float> divisors;
};

// Keys of one nest, by their whole names.
class Nest {
 public:
  Nest(const ModelFile& file, std::string prefix) : file_(file), prefix_(std::move(prefix)) {}

  std::string key(std::string_view suffix) const { return prefix_ + std::string(suffix); }

  Result<std::optional<double>> number(std::string_view suffix) const {
    auto found = file_.number(key(suffix));
    if (found && *found && !std::isfinite(**found)) {
      return file_.metadata_error(fmt::format("{} is not a finite number", key(suffix)));
    }
    return found;
  }
  Result<double> number(std::string_view suffix, double fallback) const {
    BANYAN_READ(found, number(suffix));
    return found.value_or(fallback);
  }
  Result<int> positions(std::string_view suffix, int fallback) const {
    BANYAN_READ(found, file_.integer(key(suffix)));
    const int64_t value = found.value_or(fallback);
    if (value >= 0 && value <= kMaxPositions) return static_cast<int>(value);
    return file_.metadata_error(
        fmt::format("{} is {}, expected 0 to {}", key(suffix), value, kMaxPositions));
  }
  Result<bool> flag(std::string_view suffix, bool fallback) const {
    BANYAN_READ(found, file_.boolean(key(suffix)));
    return found.value_or(fallback);
  }
  Result<RopeScaling> scaling(std::string_view suffix) const {
    BANYAN_READ(text, file_.string(key(suffix)));
    const auto* found = std::ranges::find(kScalingNames, text.value_or(""), &ScalingName::name);
    if (found != std::end(kScalingNames)) return found->scaling;
    return file_.metadata_error(
        fmt::format("rope scaling \"{}\" is not known, expected none, linear, yarn, llama3 or "
                    "longrope",
                    printable(*text)));
  }
  // Numbers above 0, one for each pair.
  Result<std::vector<float>> divisors(std::string_view suffix, int pairs) const {
    const MetaValue* value = file_.find(key(suffix));
    const auto* array = value == nullptr ? nullptr : std::get_if<MetaArray>(value);
    std::vector<float> out;
    if (array != nullptr) {
      const auto take = [&](const auto& items) {
        if constexpr (std::is_arithmetic_v<std::decay_t<decltype(items[0])>>) {
          out.assign(items.begin(), items.end());
        }
      };
      std::visit(take, array->items);
    }
    const bool valid = std::ranges::all_of(out, [](float d) { return std::isfinite(d) && d > 0; });
    if (out.size() == static_cast<size_t>(pairs) && valid) return out;
    return file_.metadata_error(fmt::format(
        "{} is no array of {} numbers above 0, one for each rotary pair", key(suffix), pairs));
  }

 private:
  const ModelFile& file_;
  std::string prefix_;
};

Result<Found> read_gguf(const ConfigReader& config, const Hyperparameters& hp,
                        const RopeDivisors& divisors, int context) {
  const Nest nest(config.file(), std::string(config.family().gguf) + ".rope.scaling.");
  BANYAN_READ(scaling, nest.scaling("type"));
  BANYAN_READ(factor, nest.number("factor", 1.0));
  BANYAN_READ(original, nest.positions("original_context_length", hp.context_length));
  BANYAN_READ(attn_factor, nest.number("attn_factor", 1.0));
  BANYAN_READ(ext_factor, nest.number("yarn_ext_factor", 1.0));
  BANYAN_READ(beta_fast, nest.number("yarn_beta_fast", 32.0));
  BANYAN_READ(beta_slow, nest.number("yarn_beta_slow", 1.0));
  Found found;
  RopeSettings& s = found.settings;
  s.scaling = scaling;
  s.factor = factor;
  s.original_context = original;
  s.attn_factor = attn_factor;
  s.ext_factor = ext_factor;
  s.beta_fast = beta_fast;
  s.beta_slow = beta_slow;
  // The type names none of these: the tensors alone say it.
  if (!divisors.up_to_original.empty() && !divisors.above_original.empty()) {
    s.scaling = RopeScaling::kLongRope;
    s.long_divisors = context > original;
    found.divisors = s.long_divisors ? divisors.above_original : divisors.up_to_original;
  } else if (!divisors.always.empty()) {
    if (s.scaling == RopeScaling::kNone) s.scaling = RopeScaling::kLlama3;
    found.divisors = divisors.always;
  }
  return found;
}

// YaRN's paper has one attention factor; config.json may give it, or two numbers it is made of.
double yarn_attention(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

Result<void> read_yarn(const Nest& nest, RopeSettings& s) {
  BANYAN_READ(beta_fast, nest.number("beta_fast", 32.0));
  BANYAN_READ(beta_slow, nest.number("beta_slow", 1.0));
  BANYAN_READ(truncate, nest.flag("truncate", true));
  BANYAN_READ(attention, nest.number("attention_factor"));
  BANYAN_READ(mscale, nest.number("mscale", 0.0));
  BANYAN_READ(mscale_all, nest.number("mscale_all_dim", 0.0));
  s.beta_fast = beta_fast;
  s.beta_slow = beta_slow;
  s.truncate = truncate;
  const double own = yarn_attention(s.factor, 1);  // what Rope multiplies with by itself
  if (attention) {
    s.attn_factor = *attention / own;
  } else if (mscale != 0 && mscale_all != 0) {
    s.attn_factor = yarn_attention(s.factor, mscale) / yarn_attention(s.factor, mscale_all) / own;
  }
  return {};
}

Result<void> read_llama3(const ConfigReader& config, const Nest& nest, int rot_dim, Found& found) {
  BANYAN_READ(low, nest.number("low_freq_factor", 1.0));
  BANYAN_READ(high, nest.number("high_freq_factor", 4.0));
  const RopeSettings& s = found.settings;
  if (!(low > 0 && high > low && s.factor > 0 && s.freq_base > 1)) {
    return config.file().metadata_error(
        "llama3 rope scaling needs 0 < low_freq_factor < high_freq_factor and a factor above 0");
  }
  found.divisors = llama3_divisors(rot_dim, s.freq_base, s.factor, s.original_context, low, high);
  return {};
}

Result<void> read_longrope(const ConfigReader& config, const Nest& nest, const Hyperparameters& hp,
                           int rot_dim, int context, Found& found) {
  RopeSettings& s = found.settings;
  BANYAN_READ(attention, nest.number("attention_factor"));
  BANYAN_READ(short_divisors, nest.divisors("short_factor", rot_dim / 2));
  BANYAN_READ(long_divisors, nest.divisors("long_factor", rot_dim / 2));
  if (s.original_context < 2) {
    return config.file().metadata_error(
        "longrope scaling needs an original_max_position_embeddings above 1");
  }
  s.long_divisors = context > s.original_context;
  found.divisors = s.long_divisors ? long_divisors : short_divisors;
  const double stretch = static_cast<double>(hp.context_length) / s.original_context;
  s.factor = std::max(1.0, stretch);
  // LongRoPE section 4; for short and long alike.
  s.attn_factor = attention.value_or(
      stretch > 1 ? std::sqrt(1 + std::log(stretch) / std::log(s.original_context)) : 1.0);
  return {};
}

// Of the nests that may be there, each is an object.
Result<void> check_nests(const ModelFile& file) {
  for (const std::string_view name : {"rope_parameters", "rope_parameters.full_attention",
                                      "rope_parameters.sliding_attention", "rope_scaling"}) {
    const MetaValue* value = file.find(name);
    if (value == nullptr) continue;
    const auto* array = std::get_if<MetaArray>(value);
    if (array != nullptr && *array == MetaArray{std::vector<std::string_view>()}) continue;
    return file.metadata_error(fmt::format("{} is no object, as it must be", name));
  }
  return {};
}

// The nest of config.json that says how positions are stretched.
Nest nest_of(const ModelFile& file) {
  constexpr std::array<std::string_view, 3> kPrefixes = {"rope_parameters.full_attention.",
                                                         "rope_parameters.", "rope_scaling."};
  for (const std::string_view prefix : kPrefixes) {
    const auto found = file.metadata().lower_bound(prefix);
    if (found != file.metadata().end() && found->first.starts_with(prefix)) {
      return {file, std::string(prefix)};
    }
  }
  return {file, "rope_scaling."};
}

Result<Found> read_folder(const ConfigReader& config, const Hyperparameters& hp, int rot_dim,
                          double freq_base, int context) {
  const ModelFile& file = config.file();
  BANYAN_TRY(check_nests(file));
  const Nest nest = nest_of(file);
  const Nest loose(file, "");
  Found found;
  RopeSettings& s = found.settings;
  s.freq_base = freq_base;
  const bool new_style = file.find(nest.key("rope_type")) != nullptr;
  BANYAN_READ(scaling, nest.scaling(new_style ? "rope_type" : "type"));
  BANYAN_READ(factor, nest.number("factor", 1.0));
  BANYAN_READ(outside, loose.positions("original_max_position_embeddings", hp.context_length));
  BANYAN_READ(original, nest.positions("original_max_position_embeddings", outside));
  s.scaling = scaling;
  s.factor = factor;
  s.original_context = original;
  if (scaling == RopeScaling::kYarn) BANYAN_TRY(read_yarn(nest, s));
  if (scaling == RopeScaling::kLlama3) BANYAN_TRY(read_llama3(config, nest, rot_dim, found));
  if (scaling == RopeScaling::kLongRope) {
    BANYAN_TRY(read_longrope(config, nest, hp, rot_dim, context, found));
  }
  return found;
}

void apply(const RopeOverrides& overrides, RopeSettings& s) {
  s.scaling = overrides.scaling.value_or(s.scaling);
  s.freq_base = overrides.freq_base.value_or(s.freq_base);
  s.factor = overrides.factor.value_or(s.factor);
  s.original_context = overrides.original_context.value_or(s.original_context);
  s.ext_factor = overrides.ext_factor.value_or(s.ext_factor);
  s.attn_factor = overrides.attn_factor.value_or(s.attn_factor);
  s.beta_fast = overrides.beta_fast.value_or(s.beta_fast);
  s.beta_slow = overrides.beta_slow.value_or(s.beta_slow);
}

}  // namespace

Result<int> read_rotary_dim(const ConfigReader& config, const Hyperparameters& hp) {
  if (!config.family().rotary) return 0;
  if (config.is_gguf()) {
    BANYAN_READ(dim, config.integer(Key::kRotaryDim, 0, hp.head_dim, hp.head_dim));
    return static_cast<int>(dim);
  }
  BANYAN_READ(share, config.number(Key::kRotaryShare, 1.0));
  if (share >= 0 && share <= 1) return static_cast<int>(hp.head_dim * share);
  return config.file().metadata_error(
      fmt::format("{} is {}, expected 0 to 1", config.name(Key::kRotaryShare), share));
}

Result<std::vector<Rope>> read_ropes(const ConfigReader& config, const Hyperparameters& hp,
                                     const RopeDivisors& divisors, const RopeOverrides& overrides,
                                     int context) {
  const Family& family = config.family();
  std::vector<Rope> ropes;
  if (!family.rotary) return ropes;
  BANYAN_READ(rot_dim, read_rotary_dim(config, hp));
  const auto append = [&](Found found) -> Result<void> {
    found.settings.rot_dim = rot_dim;
    found.settings.interleaved =
        config.is_gguf() ? family.interleaved_gguf : family.interleaved_folder;
    if (auto valid = validate(found.settings); !valid) {
      return config.file().metadata_error(valid.error().message);
    }
    ropes.emplace_back(found.settings, found.divisors);
    return {};
  };
  BANYAN_READ(freq_base, config.number(Key::kRopeBase, 10000.0));
  auto found = config.is_gguf() ? read_gguf(config, hp, divisors, context)
                                : read_folder(config, hp, rot_dim, freq_base, context);
  if (!found) return found.error();
  found->settings.freq_base = freq_base;
  apply(overrides, found->settings);
  BANYAN_TRY(append(*std::move(found)));
  if (!family.local_rope) return ropes;
  // Layers that slide keep to the plain angles: their context is never stretched.
  BANYAN_READ(local_base, config.number(Key::kLocalRopeBase, 10000.0));
  Found local;
  local.settings.freq_base = local_base;
  BANYAN_TRY(append(std::move(local)));
  return ropes;
}

}  // namespace banyan
