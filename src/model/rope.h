// SPDX-License-Identifier: Apache-2.0
#pragma once
// Rotary position embedding: from a model's settings to the angles of a step.
// RoPE: Su et al. 2021 (arXiv 2104.09864) section 3.2; linear scaling: Chen et al. 2023
// (2306.15595); YaRN: Peng et al. 2023 (2309.00071) sections 3.2 to 3.4; LongRoPE: Ding et al. 2024
// (2402.13753); Llama 3.1: the report's section 3.4.2 (2407.21783) and its published code.

#include <span>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "tensor/ops.h"

namespace banyan {

// The last two come as divisors of each pair's frequency.
enum class RopeScaling { kNone, kLinear, kYarn, kLlama3, kLongRope };

struct RopeSettings {
  int rot_dim = 0;  // even, <= head_dim
  bool interleaved = false;
  double freq_base = 10000;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1;           // context is stretched by this, >= 1
  int original_context = 0;    // YaRN, LongRoPE: context before stretching
  double attn_factor = 1;      // multiplies cos and sin, with YaRN beside the paper's own factor
  double ext_factor = 1;       // YaRN: 0 pure interpolation, 1 the paper's ramp
  double beta_fast = 32;       // YaRN: turns above which a dimension is left alone
  double beta_slow = 1;        // YaRN: turns below which a dimension is interpolated fully
  bool truncate = true;        // YaRN: whether the ends of the ramp are whole pairs
  bool long_divisors = false;  // LongRoPE: those for more than the original context
};

// Divisors of `pairs` pairs as Llama 3.1 stretches its context: waves that are short against the
// original context stay, long ones are `factor` times as long, with a ramp between. Requires
// 0 < low_freq_factor < high_freq_factor.
std::vector<float> llama3_divisors(int rot_dim, double freq_base, double factor,
                                   double original_context, double low_freq_factor,
                                   double high_freq_factor);

// kBadInput for values that are not finite or out of range, naming the option or key in words.
Result<void> validate(const RopeSettings& settings);

// Immutable; safe to share.
class Rope {
 public:
  // `divisors`: [rot_dim / 2] frequencies are divided by these, or empty.
  Rope(const RopeSettings& settings, std::span<const float> divisors);

  // cos and sin for each row, [positions.size()][rot_dim / 2], attention factor included. Resizes
  // the vectors (they keep their capacity); angles are computed in double.
  RopeAngles angles(std::span<const Position> positions, std::vector<float>& cos,
                    std::vector<float>& sin) const;

  const RopeSettings& settings() const { return settings_; }

 private:
  RopeSettings settings_;
  std::vector<double> frequency_;  // [rot_dim / 2] radians per position
  double attention_factor_ = 1;    // scales cos and sin, so q.k by its square
};

std::string_view name(RopeScaling scaling);

}  // namespace banyan
