// SPDX-License-Identifier: Apache-2.0
#include "model/model.h"

#include <cmath>

#include <fmt/format.h>

#include "base/printable.h"

namespace banyan {
namespace {

// Sizes beyond these are not models but mistakes; they also keep products of sizes far from 2^63.
constexpr int64_t kMaxDim = 1 << 24;
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxHeadDim = 256;  // what the attention kernels are built and tested for

// Reads the metadata of one family, whose keys begin with the family's name.
class MetadataReader {
 public:
  MetadataReader(const ModelFile& file, std::string_view architecture)
      : file_(file), prefix_(std::string(architecture) + ".") {}

  std::string key(std::string_view suffix) const { return prefix_ + std::string(suffix); }

  Result<int64_t> integer(std::string_view suffix, int64_t low, int64_t high,
                          std::optional<int64_t> fallback = std::nullopt) const {
    auto found = file_.integer(key(suffix));
    if (!found) return found.error();
    if (!found->has_value() && !fallback) return missing(suffix);
    const int64_t value = found->has_value() ? **found : *fallback;
    if (value < low || value > high) {
      return bad_input(fmt::format("{}: {} is {}, expected {} to {}", file_.path(), key(suffix),
                                   value, low, high));
    }
    return value;
  }

  Result<double> number(std::string_view suffix, std::optional<double> fallback) const {
    auto found = file_.number(key(suffix));
    if (!found) return found.error();
    if (!found->has_value() && !fallback) return missing(suffix);
    const double value = found->has_value() ? **found : *fallback;
    if (!std::isfinite(value)) {
      return bad_input(fmt::format("{}: {} is not a finite number", file_.path(), key(suffix)));
    }
    return value;
  }

  Result<std::string> text(std::string_view suffix, std::string_view fallback) const {
    auto found = file_.string(key(suffix));
    if (!found) return found.error();
    return std::string(found->value_or(fallback));
  }

 private:
  Error missing(std::string_view suffix) const {
    return bad_input(fmt::format("{}: metadata key {} is missing", file_.path(), key(suffix)));
  }

  const ModelFile& file_;
  std::string prefix_;
};

#define BANYAN_READ(variable, expression)           \
  auto variable##_or = (expression);                \
  if (!variable##_or) return variable##_or.error(); \
  const auto variable = *std::move(variable##_or)

Result<Hyperparameters> read_hyperparameters(const ModelFile& file, const Architecture& arch,
                                             const MetadataReader& meta) {
  const TensorInfo* embedding = file.tensor(arch.global[0].name);
  if (embedding == nullptr) {
    return bad_input(fmt::format("{}: tensor {} is missing: a vocabulary without weights",
                                 file.path(), arch.global[0].name));
  }
  BANYAN_READ(layers, meta.integer("block_count", 1, kMaxLayers));
  BANYAN_READ(hidden, meta.integer("embedding_length", 1, kMaxDim));
  BANYAN_READ(ffn, meta.integer("feed_forward_length", 1, kMaxDim));
  BANYAN_READ(heads, meta.integer("attention.head_count", 1, kMaxDim));
  BANYAN_READ(kv_heads, meta.integer("attention.head_count_kv", 1, heads, heads));
  BANYAN_READ(head_dim, meta.integer("attention.key_length", 1, kMaxHeadDim, hidden / heads));
  BANYAN_READ(value_dim, meta.integer("attention.value_length", 1, kMaxHeadDim, head_dim));
  BANYAN_READ(context, meta.integer("context_length", 1, int64_t{1} << 30));
  BANYAN_READ(eps, meta.number("attention.layer_norm_rms_epsilon", std::nullopt));
  if (heads % kv_heads != 0) {
    return bad_input(
        fmt::format("{}: {} query heads cannot share {} KV heads", file.path(), heads, kv_heads));
  }
  if (value_dim != head_dim) {
    return bad_input(fmt::format("{}: key length {} and value length {} differ, expected one size",
                                 file.path(), head_dim, value_dim));
  }
  Hyperparameters hp;
  hp.architecture = arch.name;
  hp.n_layers = static_cast<int>(layers);
  hp.n_heads = static_cast<int>(heads);
  hp.n_kv_heads = static_cast<int>(kv_heads);
  hp.head_dim = static_cast<int>(head_dim);
  hp.hidden = static_cast<int>(hidden);
  hp.ffn = static_cast<int>(ffn);
  hp.vocab = static_cast<int>(std::min<int64_t>(embedding->dims.back(), kMaxDim));
  hp.context_length = static_cast<int>(context);
  hp.rms_eps = static_cast<float>(eps);
  return hp;
}

Result<RopeSettings> read_rope(const ModelFile& file, const Architecture& arch,
                               const Hyperparameters& hp, const MetadataReader& meta,
                               const RopeOverrides& overrides) {
  RopeSettings rope;
  rope.interleaved = arch.rope_interleaved;
  BANYAN_READ(rot_dim, meta.integer("rope.dimension_count", 0, hp.head_dim, hp.head_dim));
  BANYAN_READ(freq_base, meta.number("rope.freq_base", 10000.0));
  BANYAN_READ(scaling, meta.text("rope.scaling.type", "none"));
  BANYAN_READ(factor, meta.number("rope.scaling.factor", 1.0));
  BANYAN_READ(original, meta.integer("rope.scaling.original_context_length", 0, int64_t{1} << 30,
                                     hp.context_length));
  BANYAN_READ(attn_factor, meta.number("rope.scaling.attn_factor", 1.0));
  BANYAN_READ(ext_factor, meta.number("rope.scaling.yarn_ext_factor", 1.0));
  BANYAN_READ(beta_fast, meta.number("rope.scaling.yarn_beta_fast", 32.0));
  BANYAN_READ(beta_slow, meta.number("rope.scaling.yarn_beta_slow", 1.0));
  rope.rot_dim = static_cast<int>(rot_dim);
  if (scaling == "linear") {
    rope.scaling = RopeScaling::kLinear;
  } else if (scaling == "yarn") {
    rope.scaling = RopeScaling::kYarn;
  } else if (scaling != "none" && !scaling.empty()) {
    return bad_input(
        fmt::format("{}: rope scaling \"{}\" is not known, expected none, linear or yarn",
                    file.path(), scaling));
  }
  rope.scaling = overrides.scaling.value_or(rope.scaling);
  rope.freq_base = overrides.freq_base.value_or(freq_base);
  rope.factor = overrides.factor.value_or(factor);
  rope.original_context = overrides.original_context.value_or(static_cast<int>(original));
  rope.ext_factor = overrides.ext_factor.value_or(ext_factor);
  rope.attn_factor = overrides.attn_factor.value_or(attn_factor);
  rope.beta_fast = overrides.beta_fast.value_or(beta_fast);
  rope.beta_slow = overrides.beta_slow.value_or(beta_slow);
  if (auto valid = validate(rope); !valid) {
    return bad_input(fmt::format("{}: {}", file.path(), valid.error().message));
  }
  return rope;
}

std::string shape_text(const TensorInfo& tensor) {
  return fmt::format("{}", fmt::join(tensor.dims, " x "));
}

// The tensor of a spec in one layer, shape checked; nullptr if it is optional and absent.
Result<const TensorInfo*> bind(const ModelFile& file, const TensorSpec& spec, int layer,
                               const Hyperparameters& hp, int rot_dim) {
  std::string tensor_name(spec.name);
  if (const size_t at = tensor_name.find("{}"); at != std::string::npos) {
    tensor_name.replace(at, 2, std::to_string(layer));
  }
  const TensorInfo* tensor = file.tensor(tensor_name);
  if (tensor == nullptr) {
    if (!spec.required) return nullptr;
    return bad_input(fmt::format("{}: tensor {} is missing", file.path(), tensor_name));
  }
  const int64_t rows = size_of(spec.rows, hp, rot_dim);
  const int64_t cols = size_of(spec.cols, hp, rot_dim);
  const int64_t found_rows = tensor->dims.size() > 1 ? tensor->dims[1] : 1;
  const bool matrix =
      tensor->dims.size() <= 2 || (tensor->dims[2] == 1 && tensor->dims.back() == 1);
  if (!matrix || tensor->dims[0] != cols || found_rows != rows) {
    return bad_input(fmt::format("{}: tensor {} has shape {}, expected {} x {}", file.path(),
                                 tensor_name, shape_text(*tensor), cols, rows));
  }
  if (spec.rows == Dim::kOne && tensor->type != DType::kF32) {
    return bad_input(fmt::format("{}: tensor {} is {}, expected F32", file.path(), tensor_name,
                                 type_info(tensor->type)->name));
  }
  return tensor;
}

const float* vector_data(const TensorInfo* tensor) {
  return reinterpret_cast<const float*>(tensor->data.data());
}

void assign(Model& model, LayerWeights& layer, Role role, const TensorInfo* tensor) {
  switch (role) {
    case Role::kTokenEmbedding:
      model.token_embedding = tensor->weight();
      break;
    case Role::kOutputNorm:
      model.output_norm = vector_data(tensor);
      break;
    case Role::kOutput:
      model.output = tensor->weight();
      break;
    case Role::kRopeFactors:
      break;  // read where the angles are made
    case Role::kAttentionNorm:
      layer.attention_norm = vector_data(tensor);
      break;
    case Role::kQ:
      layer.q = tensor->weight();
      break;
    case Role::kK:
      layer.k = tensor->weight();
      break;
    case Role::kV:
      layer.v = tensor->weight();
      break;
    case Role::kAttentionOutput:
      layer.attention_output = tensor->weight();
      break;
    case Role::kFfnNorm:
      layer.ffn_norm = vector_data(tensor);
      break;
    case Role::kGate:
      layer.gate = tensor->weight();
      break;
    case Role::kUp:
      layer.up = tensor->weight();
      break;
    case Role::kDown:
      layer.down = tensor->weight();
      break;
  }
}

Result<Rope> make_rope(const ModelFile& file, const Architecture& arch, const Hyperparameters& hp,
                       const RopeSettings& settings) {
  for (const TensorSpec& spec : arch.global) {
    if (spec.role != Role::kRopeFactors) continue;
    auto tensor = bind(file, spec, 0, hp, settings.rot_dim);
    if (!tensor) return tensor.error();
    if (*tensor == nullptr) continue;
    const std::span<const float> divisors(vector_data(*tensor), settings.rot_dim / 2);
    for (const float divisor : divisors) {
      if (!(std::isfinite(divisor) && divisor > 0)) {
        return bad_input(fmt::format("{}: {} holds {}, expected finite numbers above 0",
                                     file.path(), spec.name, divisor));
      }
    }
    return Rope(settings, divisors);
  }
  return Rope(settings, {});
}

}  // namespace

Result<Model> load_model(const ModelFile& file, const RopeOverrides& overrides) {
  BANYAN_READ(family, file.string("general.architecture"));
  if (!family) {
    return bad_input(fmt::format("{}: metadata key general.architecture is missing", file.path()));
  }
  const Architecture* arch = find_architecture(*family);
  if (arch == nullptr) {
    return bad_input(fmt::format("{}: architecture \"{}\" is not supported, only {}", file.path(),
                                 printable(*family), known_architectures()));
  }
  const MetadataReader meta(file, arch->name);
  BANYAN_READ(hp, read_hyperparameters(file, *arch, meta));
  BANYAN_READ(rope_settings, read_rope(file, *arch, hp, meta, overrides));
  BANYAN_READ(rope, make_rope(file, *arch, hp, rope_settings));

  Model model{hp, {}, nullptr, {}, std::vector<LayerWeights>(hp.n_layers), rope, 0};
  for (const TensorSpec& spec : arch->global) {
    BANYAN_READ(tensor, bind(file, spec, 0, hp, rope_settings.rot_dim));
    if (tensor != nullptr) assign(model, model.layers[0], spec.role, tensor);
  }
  for (int layer = 0; layer < hp.n_layers; ++layer) {
    for (const TensorSpec& spec : arch->layer) {
      BANYAN_READ(tensor, bind(file, spec, layer, hp, rope_settings.rot_dim));
      if (tensor != nullptr) assign(model, model.layers[layer], spec.role, tensor);
    }
  }
  if (!model.output) model.output = model.token_embedding;
  for (const TensorInfo& tensor : file.tensors()) {
    uint64_t elements = 1;
    for (const int64_t dim : tensor.dims) elements *= dim;
    model.parameters += elements;
  }
  return model;
}

}  // namespace banyan
