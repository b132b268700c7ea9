// SPDX-License-Identifier: Apache-2.0
#include "model/architecture.h"

#include "base/check.h"

namespace banyan {
namespace {

constexpr TensorSpec kLlamaGlobal[] = {
    {Role::kTokenEmbedding, "token_embd.weight", Dim::kVocab, Dim::kHidden},
    {Role::kOutputNorm, "output_norm.weight", Dim::kOne, Dim::kHidden},
    {Role::kOutput, "output.weight", Dim::kVocab, Dim::kHidden, false},  // absent: tied
    {Role::kRopeFactors, "rope_freqs.weight", Dim::kOne, Dim::kRotaryPairs, false},
};

constexpr TensorSpec kLlamaLayer[] = {
    {Role::kAttentionNorm, "blk.{}.attn_norm.weight", Dim::kOne, Dim::kHidden},
    {Role::kQ, "blk.{}.attn_q.weight", Dim::kQueryWidth, Dim::kHidden},
    {Role::kK, "blk.{}.attn_k.weight", Dim::kKvWidth, Dim::kHidden},
    {Role::kV, "blk.{}.attn_v.weight", Dim::kKvWidth, Dim::kHidden},
    {Role::kAttentionOutput, "blk.{}.attn_output.weight", Dim::kHidden, Dim::kQueryWidth},
    {Role::kFfnNorm, "blk.{}.ffn_norm.weight", Dim::kOne, Dim::kHidden},
    {Role::kGate, "blk.{}.ffn_gate.weight", Dim::kFfn, Dim::kHidden},
    {Role::kUp, "blk.{}.ffn_up.weight", Dim::kFfn, Dim::kHidden},
    {Role::kDown, "blk.{}.ffn_down.weight", Dim::kHidden, Dim::kFfn},
};

constexpr Architecture kArchitectures[] = {
    // GGUF converters permute the q and k rows of this family so that rotary pairs are neighbours.
    {"llama", kLlamaGlobal, kLlamaLayer, /*rope_interleaved=*/true},
};

}  // namespace

int64_t size_of(Dim dim, const Hyperparameters& hp, int rot_dim) {
  switch (dim) {
    case Dim::kOne:
      return 1;
    case Dim::kHidden:
      return hp.hidden;
    case Dim::kVocab:
      return hp.vocab;
    case Dim::kQueryWidth:
      return int64_t{hp.n_heads} * hp.head_dim;
    case Dim::kKvWidth:
      return int64_t{hp.n_kv_heads} * hp.head_dim;
    case Dim::kFfn:
      return hp.ffn;
    case Dim::kRotaryPairs:
      return rot_dim / 2;
  }
  BANYAN_CHECK(false, "unknown Dim");
}

const Architecture* find_architecture(std::string_view name) {
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.name == name) return &architecture;
  }
  return nullptr;
}

std::string known_architectures() {
  std::string names;
  for (const Architecture& architecture : kArchitectures) {
    if (!names.empty()) names += ", ";
    names += architecture.name;
  }
  return names;
}

}  // namespace banyan
