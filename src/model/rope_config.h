// SPDX-License-Identifier: Apache-2.0
#pragma once
// Rotary settings from what a file says: GGUF's rope.* keys and divisor tensors, or the
// rope_parameters, rope_scaling and loose keys of config.json.

#include <optional>
#include <vector>

#include "base/result.h"
#include "model/config_reader.h"
#include "model/hyperparameters.h"
#include "model/rope.h"

namespace banyan {

// What a user may say about rotary embeddings; whatever is set replaces the file's word.
struct RopeOverrides {
  std::optional<RopeScaling> scaling;
  std::optional<double> factor;
  std::optional<double> freq_base;
  std::optional<int> original_context;
  std::optional<double> ext_factor;
  std::optional<double> attn_factor;
  std::optional<double> beta_fast;
  std::optional<double> beta_slow;
};

// Divisors that a GGUF file holds as tensors, [rot_dim / 2] each; empty where it has none.
struct RopeDivisors {
  std::vector<float> always;
  std::vector<float> up_to_original;  // LongRoPE, for the original context and less
  std::vector<float> above_original;
};

// Leading dimensions of a head that turn: even, <= head_dim; 0 for families without.
Result<int> read_rotary_dim(const ConfigReader& config, const Hyperparameters& hp);

// One Rope for each that LayerShape::rope may name. `context`: positions asked for; LongRoPE's long
// divisors are taken iff it is above the original context, for all positions.
Result<std::vector<Rope>> read_ropes(const ConfigReader& config, const Hyperparameters& hp,
                                     const RopeDivisors& divisors, const RopeOverrides& overrides,
                                     int context);

}  // namespace banyan
