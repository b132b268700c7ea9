// SPDX-License-Identifier: Apache-2.0
#pragma once
// Model families as data: which metadata a family is read from, which tensors it must have and of
// which shape, which way its rotary pairs lie. A new family is a new entry in architecture.cc; the
// forward pass does not know its name.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace banyan {

// What every size in a model derives from.
struct Hyperparameters {
  std::string architecture;
  int n_layers = 0;
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  int hidden = 0;
  int ffn = 0;
  int vocab = 0;
  int context_length = 0;  // as trained
  float rms_eps = 0;
};

// What a tensor is for. Per-layer roles stand in every layer once.
enum class Role {
  kTokenEmbedding,
  kOutputNorm,
  kOutput,
  kRopeFactors,
  kAttentionNorm,
  kQ,
  kK,
  kV,
  kAttentionOutput,
  kFfnNorm,
  kGate,
  kUp,
  kDown,
};

// A size in terms of the hyperparameters.
enum class Dim { kOne, kHidden, kVocab, kQueryWidth, kKvWidth, kFfn, kRotaryPairs };
int64_t size_of(Dim dim, const Hyperparameters& hp, int rot_dim);

// One tensor of a family. `name` is the GGUF name; in per-layer names "{}" is the layer.
struct TensorSpec {
  Role role;
  std::string_view name;
  Dim rows;  // outputs; kOne: a vector, stored as F32
  Dim cols;  // inputs
  bool required = true;
};

struct Architecture {
  std::string_view name;               // general.architecture
  std::span<const TensorSpec> global;  // once
  std::span<const TensorSpec> layer;   // for each layer
  bool rope_interleaved;               // pairs (2i, 2i+1), else (i, i + rot_dim/2)
};

const Architecture* find_architecture(std::string_view name);  // nullptr if unknown
std::string known_architectures();                             // "llama", for error sentences

}  // namespace banyan
