// SPDX-License-Identifier: Apache-2.0
#pragma once
// Rotary position embedding: from a model's settings to the angles of a step.
// RoPE: Su et al. 2021 (arXiv 2104.09864) section 3.2; linear scaling: Chen et al. 2023
// (2306.15595); YaRN: Peng et al. 2023 (2309.00071) sections 3.2 to 3.4; per-pair divisors as
// Llama 3.1 ships them.

#include <span>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "tensor/ops.h"

namespace banyan {

enum class RopeScaling { kNone, kLinear, kYarn };

struct RopeSettings {
  int rot_dim = 0;  // even, <= head_dim
  bool interleaved = false;
  double freq_base = 10000;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1;         // context is stretched by this, >= 1
  int original_context = 0;  // YaRN: context before stretching
  double ext_factor = 1;     // YaRN: 0 pure interpolation, 1 the paper's ramp
  double attn_factor = 1;    // YaRN: multiplies the paper's attention factor
  double beta_fast = 32;     // YaRN: turns above which a dimension is left alone
  double beta_slow = 1;      // YaRN: turns below which a dimension is interpolated fully
};

// kBadInput for values that are not finite or out of range, naming the option or key in words.
Result<void> validate(const RopeSettings& settings);

// Immutable; safe to share.
class Rope {
 public:
  // `divisors`: [rot_dim / 2] frequencies are divided by these (Llama 3.1), or empty.
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
