// SPDX-License-Identifier: Apache-2.0
#pragma once
// A loaded model: hyperparameters read and checked, weights bound to their roles by name and shape.
// Weights stay views into the mapped file. Immutable after load; safe to share.

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "files/model_file.h"
#include "model/architecture.h"
#include "model/rope.h"
#include "tensor/matrix.h"

namespace banyan {

struct LayerWeights {
  const float* attention_norm = nullptr;  // [hidden]
  Weight q;                               // [n_heads * head_dim][hidden]
  Weight k;                               // [n_kv_heads * head_dim][hidden]
  Weight v;                               // [n_kv_heads * head_dim][hidden]
  Weight attention_output;                // [hidden][n_heads * head_dim]
  const float* ffn_norm = nullptr;        // [hidden]
  Weight gate;                            // [ffn][hidden]
  Weight up;                              // [ffn][hidden]
  Weight down;                            // [hidden][ffn]
};

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

struct Model {
  Hyperparameters hp;
  Weight token_embedding;              // [vocab][hidden]
  const float* output_norm = nullptr;  // [hidden]
  Weight output;                       // [vocab][hidden]; the embedding itself where tied
  std::vector<LayerWeights> layers;
  Rope rope;
  uint64_t parameters = 0;  // elements of all tensors
};

// `file` must outlive the model. kBadInput names the file and the key or tensor at fault: unknown
// architecture, missing or ill-typed metadata, missing tensors, wrong shapes.
Result<Model> load_model(const ModelFile& file, const RopeOverrides& overrides);

}  // namespace banyan
