// SPDX-License-Identifier: Apache-2.0
#include "model/model.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/printable.h"
#include "model/binder.h"
#include "model/config_reader.h"
#include "model/family.h"

namespace banyan {
namespace {

// The family by the word that the file has for it.
Result<const Family*> family_of(const ModelFile& file, std::string& word) {
  const bool gguf = file.format() == ModelFormat::kGguf;
  const std::string_view key = gguf ? "general.architecture" : "model_type";
  BANYAN_READ(name, file.string(key));
  if (!name) return file.metadata_error(fmt::format("metadata key {} is missing", key));
  word = *name;
  const Family* family = find_family(file.format(), word);
  if (family != nullptr) return family;
  return file.metadata_error(fmt::format("architecture \"{}\" is not supported, only {}",
                                         printable(word), known_families(file.format())));
}

// Binds one model's tensors, layer by layer.
class Loader {
 public:
  Loader(const ModelFile& file, const Family& family, Model& model)
      : file_(file),
        family_(family),
        model_(model),
        hp_(model.hp),
        binder_(file, family, model.kept) {}

  Binder& binder() { return binder_; }

  // Rows are the vocabulary.
  Result<void> embedding() {
    const TensorInfo* tensor = binder_.find({Role::kTokenEmbedding});
    if (tensor == nullptr) {
      return bad_input(fmt::format("{}: tensor {} is missing: a vocabulary without weights",
                                   file_.path(), binder_.name({Role::kTokenEmbedding})));
    }
    hp_.vocab = static_cast<int>(std::min<int64_t>(tensor->dims.back(), kMaxDim));
    BANYAN_READ(table, binder_.linear({Role::kTokenEmbedding}, hp_.vocab, hp_.hidden, false));
    model_.token_embedding = table.weight;
    if (family_.rotary) return {};
    const TensorInfo* positions = binder_.find({Role::kPositionEmbedding});
    const int64_t rows = positions == nullptr ? 0 : positions->dims.back();
    hp_.max_positions = static_cast<int>(std::min(rows, kMaxPositions)) - family_.position_offset;
    BANYAN_READ(learned,
                binder_.linear({Role::kPositionEmbedding},
                               hp_.context_length + family_.position_offset, hp_.hidden, false));
    model_.position_embedding = learned.weight;
    return {};
  }

  Result<void> output(bool tied) {
    BANYAN_READ(norm, binder_.norm({Role::kOutputNorm}, hp_.hidden));
    model_.output_norm = norm;
    if (tied) {
      binder_.ignore({Role::kOutput});
      model_.output = {model_.token_embedding};
      return {};
    }
    BANYAN_READ(output, binder_.linear({Role::kOutput}, hp_.vocab, hp_.hidden, false));
    model_.output = output;
    return {};
  }

  Result<void> layer(int index) {
    layer_ = index;
    LayerWeights& w = model_.layers[index];
    const LayerShape& shape = hp_.layers[index];
    const int64_t q_width = int64_t{shape.n_heads} * hp_.head_dim;
    BANYAN_TRY(take(binder_.norm(at(Role::kAttentionNorm), hp_.hidden), w.attention_norm));
    BANYAN_TRY(qkv(shape, w));
    if (family_.head_norms) {
      BANYAN_TRY(take(binder_.norm(at(Role::kQNorm), hp_.head_dim), w.q_norm));
      BANYAN_TRY(take(binder_.norm(at(Role::kKNorm), hp_.head_dim), w.k_norm));
    }
    BANYAN_TRY(
        take(binder_.linear(at(Role::kAttentionOutput), hp_.hidden, q_width, family_.other_bias),
             w.attention_output));
    BANYAN_TRY(take(binder_.norm(at(Role::kFfnNorm), hp_.hidden), w.ffn_norm));
    if (family_.post_norms) {
      BANYAN_TRY(
          take(binder_.norm(at(Role::kAttentionPostNorm), hp_.hidden), w.attention_post_norm));
      BANYAN_TRY(take(binder_.norm(at(Role::kFfnPostNorm), hp_.hidden), w.ffn_post_norm));
    }
    return hp_.n_experts > 0 ? experts(shape, w) : ffn(shape, w.ffn);
  }

 private:
  Binder::Place at(Role role, int expert = 0) const { return {role, layer_, expert}; }

  template <class T>
  static Result<void> take(Result<T> from, T& to) {
    if (!from) return from.error();
    to = *std::move(from);
    return {};
  }

  // `n` outputs of what was stored as one, from `begin` on.
  static LinearWeights part(const LinearWeights& whole, int64_t begin, int64_t n) {
    return {whole.weight.slice(begin, n), whole.bias == nullptr ? nullptr : whole.bias + begin};
  }

  Result<void> qkv(const LayerShape& shape, LayerWeights& w) {
    const int64_t q_width = int64_t{shape.n_heads} * hp_.head_dim;
    const int64_t kv_width = int64_t{shape.n_kv_heads} * hp_.head_dim;
    const bool bias = family_.qkv_bias;
    if (binder_.has(at(Role::kQ)) || !binder_.has(at(Role::kQkv))) {
      const Role first = binder_.name(at(Role::kQ)).empty() ? Role::kQkv : Role::kQ;
      BANYAN_TRY(take(binder_.linear(at(first), q_width, hp_.hidden, bias), w.q));
      BANYAN_TRY(take(binder_.linear(at(Role::kK), kv_width, hp_.hidden, bias), w.k));
      return take(binder_.linear(at(Role::kV), kv_width, hp_.hidden, bias), w.v);
    }
    LinearWeights whole;
    BANYAN_TRY(
        take(binder_.linear(at(Role::kQkv), q_width + 2 * kv_width, hp_.hidden, bias), whole));
    if (family_.qkv_by_head && file_.format() == ModelFormat::kFolder) {
      if (shape.n_heads != shape.n_kv_heads) {
        return file_.metadata_error("q, k and v that lie head by head need as many of each");
      }
      w.qkv_by_head = whole;
      return {};
    }
    w.q = part(whole, 0, q_width);
    w.k = part(whole, q_width, kv_width);
    w.v = part(whole, q_width + kv_width, kv_width);
    return {};
  }

  // Whether gate and up are one tensor; GGUF calls it as it calls up.
  bool has_gate_up(const LayerShape& shape) const {
    if (binder_.has(at(Role::kGate))) return false;
    const TensorInfo* tensor = binder_.find(at(Role::kGateUp));
    return tensor != nullptr && tensor->dims.size() > 1 &&
           tensor->dims[1] == 2 * int64_t{shape.ffn};
  }

  Result<void> ffn(const LayerShape& shape, FfnWeights& w) {
    const bool bias = family_.other_bias;
    if (family_.gated && has_gate_up(shape)) {
      LinearWeights whole;
      BANYAN_TRY(
          take(binder_.linear(at(Role::kGateUp), 2 * int64_t{shape.ffn}, hp_.hidden, bias), whole));
      w.gate = part(whole, 0, shape.ffn);
      w.up = part(whole, shape.ffn, shape.ffn);
    } else {
      if (family_.gated) {
        BANYAN_TRY(take(binder_.linear(at(Role::kGate), shape.ffn, hp_.hidden, bias), w.gate));
      }
      BANYAN_TRY(take(binder_.linear(at(Role::kUp), shape.ffn, hp_.hidden, bias), w.up));
    }
    return take(binder_.linear(at(Role::kDown), hp_.hidden, shape.ffn, bias), w.down);
  }

  Result<void> experts(const LayerShape& shape, LayerWeights& w) {
    BANYAN_TRY(take(binder_.linear(at(Role::kRouter), hp_.n_experts, hp_.hidden, false), w.router));
    w.experts.resize(hp_.n_experts);
    struct Part {
      Role role;
      LinearWeights FfnWeights::*member;
      int64_t rows;
      int64_t cols;
    };
    for (const Part& part : {Part{Role::kExpertGate, &FfnWeights::gate, shape.ffn, hp_.hidden},
                             Part{Role::kExpertUp, &FfnWeights::up, shape.ffn, hp_.hidden},
                             Part{Role::kExpertDown, &FfnWeights::down, hp_.hidden, shape.ffn}}) {
      if (file_.format() == ModelFormat::kGguf) {
        BANYAN_READ(all, binder_.stack(at(part.role), hp_.n_experts, part.rows, part.cols));
        for (int e = 0; e < hp_.n_experts; ++e) (w.experts[e].*part.member).weight = all[e];
        continue;
      }
      for (int e = 0; e < hp_.n_experts; ++e) {
        BANYAN_TRY(take(binder_.linear(at(part.role, e), part.rows, part.cols, false),
                        w.experts[e].*part.member));
      }
    }
    return {};
  }

  const ModelFile& file_;
  const Family& family_;
  Model& model_;
  Hyperparameters& hp_;
  Binder binder_;
  int layer_ = 0;
};

uint64_t count_parameters(const ModelFile& file) {
  uint64_t parameters = 0;
  for (const TensorInfo& tensor : file.tensors()) {
    uint64_t elements = 1;
    for (const int64_t dim : tensor.dims) elements *= dim;
    parameters += elements;
  }
  return parameters;
}

}  // namespace

Result<Model> load_model(const ModelFile& file, const RopeOverrides& overrides, int context) {
  Model model;
  std::string word;
  BANYAN_READ(family, family_of(file, word));
  const ConfigReader config(file, *family);
  BANYAN_READ(hp, read_hyperparameters(config));
  model.hp = hp;
  model.hp.architecture = word;
  model.layers.resize(hp.n_layers);
  Loader loader(file, *family, model);
  BANYAN_TRY(loader.embedding());
  const int rows = model.hp.vocab;
  BANYAN_READ(vocab, config.integer(Key::kVocab, 1, kMaxDim, rows));
  if (vocab != rows) {
    return file.metadata_error(fmt::format("{} is {}, expected the {} rows of the embedding",
                                           config.name(Key::kVocab), vocab, rows));
  }

  BANYAN_READ(rot_dim, read_rotary_dim(config, hp));
  RopeDivisors divisors;
  const std::pair<Role, std::vector<float>*> kinds[] = {
      {Role::kRopeDivisors, &divisors.always},
      {Role::kRopeShortDivisors, &divisors.up_to_original},
      {Role::kRopeLongDivisors, &divisors.above_original}};
  for (const auto& [role, to] : kinds) {
    BANYAN_READ(found, loader.binder().divisors(role, rot_dim / 2));
    *to = found;
  }
  auto ropes =
      read_ropes(config, hp, divisors, overrides, context > 0 ? context : hp.context_length);
  if (!ropes) return ropes.error();
  model.ropes = *std::move(ropes);

  for (int layer = 0; layer < hp.n_layers; ++layer) BANYAN_TRY(loader.layer(layer));
  // GGUF says it by leaving the tensor out.
  BANYAN_READ(tied, config.flag(Key::kTied, family->tied));
  BANYAN_TRY(loader.output(config.is_gguf() ? !loader.binder().has({Role::kOutput}) : tied));
  BANYAN_TRY(loader.binder().check_all_bound());
  model.parameters = count_parameters(file);
  return model;
}

}  // namespace banyan
