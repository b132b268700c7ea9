// SPDX-License-Identifier: Apache-2.0
#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include <fmt/format.h>

namespace banyan {
namespace {

// YaRN section 3.2, inverse of eq. 17: the pair index that makes `turns` turns over the original
// context.
double pair_of_turns(double turns, const RopeSettings& s) {
  return s.rot_dim * std::log(s.original_context / (turns * 2 * std::numbers::pi)) /
         (2 * std::log(s.freq_base));
}

}  // namespace

std::string_view name(RopeScaling scaling) {
  switch (scaling) {
    case RopeScaling::kNone:
      return "none";
    case RopeScaling::kLinear:
      return "linear";
    case RopeScaling::kYarn:
      return "yarn";
    case RopeScaling::kLlama3:
      return "llama3";
    case RopeScaling::kLongRope:
      return "longrope";
  }
  return "none";
}

std::vector<float> llama3_divisors(int rot_dim, double freq_base, double factor,
                                   double original_context, double low_freq_factor,
                                   double high_freq_factor) {
  std::vector<float> divisors;
  for (int i = 0; i < rot_dim / 2; ++i) {
    const double frequency = std::pow(freq_base, -2.0 * i / rot_dim);
    const double turns = original_context * frequency / (2 * std::numbers::pi);
    const double keep =
        std::clamp((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0.0, 1.0);
    divisors.push_back(static_cast<float>(1 / ((1 - keep) / factor + keep)));
  }
  return divisors;
}

Result<void> validate(const RopeSettings& s) {
  const auto positive = [](double v) { return std::isfinite(v) && v > 0; };
  if (s.rot_dim < 0 || s.rot_dim % 2 != 0) {
    return bad_input(fmt::format("rotary dimension {} is not an even number", s.rot_dim));
  }
  if (!positive(s.freq_base) || s.freq_base <= 1) {
    return bad_input(fmt::format("rope frequency base {} must be above 1", s.freq_base));
  }
  if (!positive(s.factor) || s.factor > 1e6) {
    return bad_input(
        fmt::format("rope scaling factor {} must lie between 0 and 1000000", s.factor));
  }
  if (!positive(s.attn_factor)) return bad_input("the rope attention factor must be above 0");
  if (s.scaling == RopeScaling::kYarn) {
    if (s.original_context <= 0) return bad_input("YaRN needs the original context length");
    if (!positive(s.beta_fast) || !positive(s.beta_slow) || !std::isfinite(s.ext_factor) ||
        s.ext_factor < 0 || s.ext_factor > 1) {
      return bad_input("YaRN's betas must be above 0, its extension factor in [0, 1]");
    }
  }
  return {};
}

Rope::Rope(const RopeSettings& settings, std::span<const float> divisors)
    : settings_(settings), attention_factor_(settings.attn_factor) {
  const RopeSettings& s = settings_;
  const int pairs = s.rot_dim / 2;
  frequency_.resize(pairs);
  double low = 0;
  double high = 0;
  if (s.scaling == RopeScaling::kYarn) {
    low = pair_of_turns(s.beta_fast, s);
    high = pair_of_turns(s.beta_slow, s);
    if (s.truncate) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(0.0, low);
    high = std::min(s.rot_dim - 1.0, high);
    if (s.ext_factor != 0) attention_factor_ *= 0.1 * std::log(s.factor) + 1.0;
  }
  for (int i = 0; i < pairs; ++i) {
    double frequency = std::pow(s.freq_base, -2.0 * i / s.rot_dim);
    if (!divisors.empty()) frequency /= divisors[i];
    const double interpolated = frequency / s.factor;
    switch (s.scaling) {
      case RopeScaling::kNone:
      case RopeScaling::kLlama3:
      case RopeScaling::kLongRope:
        frequency_[i] = frequency;
        break;
      case RopeScaling::kLinear:
        frequency_[i] = interpolated;
        break;
      case RopeScaling::kYarn: {
        const double ramp = std::clamp((i - low) / std::max(0.001, high - low), 0.0, 1.0);
        const double keep = (1 - ramp) * s.ext_factor;  // share of the unscaled frequency
        frequency_[i] = interpolated * (1 - keep) + frequency * keep;
        break;
      }
    }
  }
}

RopeAngles Rope::angles(std::span<const Position> positions, std::vector<float>& cos,
                        std::vector<float>& sin) const {
  const size_t pairs = frequency_.size();
  cos.resize(positions.size() * pairs);
  sin.resize(positions.size() * pairs);
  for (size_t r = 0; r < positions.size(); ++r) {
    for (size_t i = 0; i < pairs; ++i) {
      const double angle = positions[r] * frequency_[i];
      cos[r * pairs + i] = static_cast<float>(std::cos(angle) * attention_factor_);
      sin[r * pairs + i] = static_cast<float>(std::sin(angle) * attention_factor_);
    }
  }
  return {cos.data(), sin.data(), settings_.rot_dim, settings_.interleaved};
}

}  // namespace banyan
