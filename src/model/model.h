// SPDX-License-Identifier: Apache-2.0
#pragma once
// A loaded model: hyperparameters read and checked, weights bound to their roles by name and shape.
// Weights stay views into the mapped files; only vectors that a file does not hold as they are
// computed with (norms in 16 bits, or less 1) are copied. Immutable after load; safe to share.

#include <optional>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/result.h"
#include "files/model_file.h"
#include "model/hyperparameters.h"
#include "model/rope.h"
#include "model/rope_config.h"
#include "tensor/matrix.h"

namespace banyan {

// A product with weights. False: there is none.
struct LinearWeights {
  Weight weight;
  const float* bias = nullptr;  // [weight.rows] or none
  explicit operator bool() const { return static_cast<bool>(weight); }
};

// False: there is none.
struct NormWeights {
  const float* weight = nullptr;
  const float* bias = nullptr;  // NormKind::kLayer
  explicit operator bool() const { return weight != nullptr; }
};

// A feed-forward block: down(activation(gate x) * up x), or down(activation(up x)) without a gate.
struct FfnWeights {
  LinearWeights gate;  // [ffn][hidden]
  LinearWeights up;    // [ffn][hidden]
  LinearWeights down;  // [hidden][ffn]
};

struct LayerWeights {
  NormWeights attention_norm;  // [hidden]
  LinearWeights q;             // [n_heads * head_dim][hidden]
  LinearWeights k;             // [n_kv_heads * head_dim][hidden]
  LinearWeights v;             // [n_kv_heads * head_dim][hidden]
  LinearWeights qkv_by_head;   // instead of these: [n_heads * 3 * head_dim][hidden]
  NormWeights q_norm;          // [head_dim], on every head
  NormWeights k_norm;
  LinearWeights attention_output;   // [hidden][n_heads * head_dim]
  NormWeights attention_post_norm;  // [hidden], of what attention adds
  NormWeights ffn_norm;             // [hidden]
  FfnWeights ffn;
  LinearWeights router;             // instead of `ffn`: [n_experts][hidden]
  std::vector<FfnWeights> experts;  // [n_experts]
  NormWeights ffn_post_norm;        // [hidden], of what the feed-forward block adds
};

struct Model {
  Hyperparameters hp;
  Weight token_embedding;     // [vocab][hidden]
  Weight position_embedding;  // [max_positions + position_offset][hidden], or none
  NormWeights output_norm;    // [hidden]
  LinearWeights output;       // [vocab][hidden]; the embedding itself where tied
  std::vector<LayerWeights> layers;
  std::vector<Rope> ropes;                // empty: positions do not turn anything
  uint64_t parameters = 0;                // elements of all tensors
  std::vector<AlignedArray<float>> kept;  // vectors that no file holds as they are
};

// `file` must outlive the model. `context`: positions asked for, 0: as trained. kBadInput names the
// file and the key or tensor at fault: unknown architecture, missing or ill-typed metadata, missing
// tensors, wrong shapes or types, tensors that the family has no place for.
Result<Model> load_model(const ModelFile& file, const RopeOverrides& overrides, int context = 0);

}  // namespace banyan
