// SPDX-License-Identifier: Apache-2.0
#pragma once
// What a model is but for its weights: every size, and every choice that the forward pass makes.
// Filled from GGUF metadata or config.json alike (hyperparameters.cc, by the tables of family.cc).

#include <cstdint>
#include <string>
#include <vector>

#include "attention/plan.h"
#include "base/result.h"
#include "tensor/kv_layout.h"
#include "tensor/ops.h"

namespace banyan {

class ConfigReader;

enum class NormKind {
  kRms,    // x / rms(x) * weight
  kLayer,  // (x - mean(x)) / deviation(x) * weight + bias
};

struct LayerShape {
  int n_heads = 0;
  int n_kv_heads = 0;
  int ffn = 0;
  bool slides = false;  // sees a window only
  int group = 0;        // index into Hyperparameters::groups
  int rope = 0;         // index into Model::ropes
};

// Layers whose attention has one plan.
struct LayerGroup {
  int n_heads = 0;
  int n_kv_heads = 0;
  int32_t window = Band::kCausal;  // or keys that a row sees, its own included
};

struct Hyperparameters {
  std::string architecture;  // in the file's word
  int n_layers = 0;
  int n_heads = 0;     // of the layer with most
  int n_kv_heads = 0;  // of the layer with most
  int head_dim = 0;
  int hidden = 0;
  int ffn = 0;  // of the layer with most
  int vocab = 0;
  int context_length = 0;   // as trained
  int max_positions = 0;    // that there are embeddings for; 0: any number
  int position_offset = 0;  // position p has row p + this of the embeddings

  NormKind norm = NormKind::kRms;
  float norm_eps = 0;
  Activation activation = Activation::kSilu;
  bool parallel_residual = false;  // attention and feed-forward read the same x
  float embedding_scale = 1;
  float attention_scale = 1;    // multiplies q.k
  float attention_softcap = 0;  // 0: none
  float logit_softcap = 0;      // 0: none
  int n_experts = 0;            // 0: one feed-forward block for all tokens
  int n_experts_used = 0;       // for each token

  std::vector<LayerShape> layers;  // [n_layers]
  std::vector<LayerGroup> groups;  // at least one
};

// kBadInput names the file and the key at fault: missing or ill-typed, or a size that cannot be.
// `vocab` is left to who knows the embedding.
Result<Hyperparameters> read_hyperparameters(const ConfigReader& config);

// How the KV of all layers lies: runs of layers of one shape, in order.
std::vector<KvShape> kv_shapes(const Hyperparameters& hp, DType k_type, DType v_type);

}  // namespace banyan
