// SPDX-License-Identifier: Apache-2.0
#pragma once
// Model families as data: what a family is called in GGUF and in Hugging Face's config.json, what
// its tensors are called, what its files leave out because everybody knows it, and which choices of
// the forward pass it makes. A new family is a new entry in family.cc; no other code knows one by
// name.

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "files/model_file.h"
#include "model/config_reader.h"
#include "model/hyperparameters.h"

namespace banyan {

// What a tensor is for. Most come as NAME.weight, and some with a NAME.bias.
enum class Role {
  kTokenEmbedding,
  kPositionEmbedding,
  kOutputNorm,
  kOutput,
  kRopeDivisors,
  kRopeShortDivisors,
  kRopeLongDivisors,
  // In every layer:
  kAttentionNorm,
  kQ,
  kK,
  kV,
  kQkv,  // q, k and v above each other
  kQNorm,
  kKNorm,
  kAttentionOutput,
  kAttentionPostNorm,
  kFfnNorm,
  kGate,
  kUp,
  kGateUp,  // gate and up above each other
  kDown,
  kFfnPostNorm,
  kRouter,
  kExpertGate,  // GGUF: of all experts, above each other; folders: of one
  kExpertUp,
  kExpertDown,
};

// A tensor's name without ".weight": "{}" is the layer, "{e}" the expert.
struct TensorName {
  Role role;
  std::string_view name;
};

// What a config.json of the family means by leaving a key out.
struct ConfigDefault {
  Key key;
  double value;
};

// Which layers slide where the file says a window but not which.
enum class WindowRule {
  kNone,  // none, whatever the file says
  kAll,
  kEven,       // 0, 2, 4, ..
  kPattern,    // all but every n-th (Key::kWindowPattern)
  kFromLayer,  // from Key::kFirstWindowLayer on
};

struct Family {
  std::string_view gguf;                        // general.architecture; "": no GGUF of its own
  std::array<std::string_view, 2> model_types;  // config.json's model_type; "": none
  NormKind norm = NormKind::kRms;
  bool unit_norms = false;  // folders store a norm's weight - 1
  bool post_norms = false;  // what a block adds is normed, too
  bool head_norms = false;  // q and k are normed head by head before they turn
  bool qkv_bias = false;    // these biases must be there; others may be
  bool other_bias = false;
  bool gated = true;
  Activation activation = Activation::kSilu;
  bool parallel_residual = false;  // unless the file says otherwise
  bool interleaved_gguf = false;   // rotary pairs are neighbours
  bool interleaved_folder = false;
  bool rotary = true;
  int position_offset = 0;
  bool scaled_embedding = false;  // by sqrt(hidden)
  bool qkv_by_head = false;       // folders: q, k and v of head 0, then of head 1, ..
  bool local_rope = false;        // layers that slide have rotary settings of their own
  WindowRule window_rule = WindowRule::kNone;
  bool tied = false;                             // where config.json does not say
  std::span<const TensorName> tensors = {};      // folders: other names than most families have
  std::span<const ConfigDefault> defaults = {};  // folders
  // What no table says: refuses or sets. May be null.
  Result<void> (*adjust)(const ConfigReader& config, Hyperparameters& hp) = nullptr;
};

// nullptr if unknown.
const Family* find_family(ModelFormat format, std::string_view name);
std::string known_families(ModelFormat format);  // "llama, qwen2", for error sentences

// Name of a role's tensor without ".weight"; "" if the format has none.
std::string_view tensor_name(const Family& family, ModelFormat format, Role role);

}  // namespace banyan
