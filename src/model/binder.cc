// SPDX-License-Identifier: Apache-2.0
#include "model/binder.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/printable.h"

namespace banyan {
namespace {

std::string shape_text(const TensorInfo& tensor) {
  return fmt::format("{}", fmt::join(tensor.dims, " x "));
}

void replace(std::string& text, std::string_view what, int by) {
  if (const size_t at = text.find(what); at != std::string::npos) {
    text.replace(at, what.size(), std::to_string(by));
  }
}

// Constants that old checkpoints carry along; they follow from the sizes.
constexpr std::array<std::string_view, 4> kDerived = {"rotary_emb.inv_freq", "attention.bias",
                                                      "attention.masked_bias", "attn_rot_embd"};

bool is_derived(std::string_view name) {
  return std::ranges::any_of(kDerived, [&](std::string_view part) {
    return name.ends_with(part) || name.ends_with(std::string(part) + ".weight");
  });
}

}  // namespace

std::string Binder::name(const Place& place, std::string_view suffix) const {
  std::string text(tensor_name(family_, file_.format(), place.role));
  if (text.empty()) return text;
  replace(text, "{}", place.layer);
  replace(text, "{e}", place.expert);
  return text + "." + std::string(suffix);
}

const TensorInfo* Binder::find(const Place& place) const {
  const std::string text = name(place);
  return text.empty() ? nullptr : file_.tensor(text);
}

bool Binder::has(const Place& place) const { return find(place) != nullptr; }

Result<const TensorInfo*> Binder::require(const std::string& name) const {
  const TensorInfo* tensor = file_.tensor(name);
  if (tensor != nullptr) return tensor;
  if (const auto found = file_.foreign_tensors().find(name);
      found != file_.foreign_tensors().end()) {
    return bad_input(fmt::format("{}: tensor {} is {}, expected F32, F16 or BF16", file_.path(),
                                 name, found->second));
  }
  return bad_input(fmt::format("{}: tensor {} is missing", file_.path(), name));
}

Result<LinearWeights> Binder::linear(const Place& place, int64_t rows, int64_t cols,
                                     bool need_bias) {
  auto matrices = stack(place, 1, rows, cols);
  if (!matrices) return matrices.error();
  LinearWeights linear{matrices->front()};
  const std::string bias = name(place, "bias");
  if (!need_bias && file_.tensor(bias) == nullptr) return linear;
  BANYAN_READ(data, vector(bias, rows, 0));
  linear.bias = data;
  return linear;
}

Result<std::vector<Weight>> Binder::stack(const Place& place, int64_t count, int64_t rows,
                                          int64_t cols) {
  const std::string text = name(place);
  BANYAN_READ(tensor, require(text));
  std::array<int64_t, 4> dims = {1, 1, 1, 1};
  std::ranges::copy(tensor->dims, dims.begin());
  if (dims != std::array<int64_t, 4>{cols, rows, count, 1}) {
    const std::string wanted = count == 1 ? fmt::format("{} x {}", cols, rows)
                                          : fmt::format("{} x {} x {}", cols, rows, count);
    return bad_input(fmt::format("{}: tensor {} has shape {}, expected {}", file_.path(), text,
                                 shape_text(*tensor), wanted));
  }
  bound_.insert(text);
  std::vector<Weight> matrices;
  for (int64_t i = 0; i < count; ++i) matrices.push_back(tensor->weight().slice(i * rows, rows));
  return matrices;
}

Result<NormWeights> Binder::norm(const Place& place, int64_t size) {
  const bool less_one = family_.unit_norms && file_.format() == ModelFormat::kFolder;
  BANYAN_READ(weight, vector(name(place), size, less_one ? 1.0F : 0.0F));
  NormWeights norm{weight};
  if (family_.norm != NormKind::kLayer) return norm;
  BANYAN_READ(bias, vector(name(place, "bias"), size, 0));
  norm.bias = bias;
  return norm;
}

Result<const float*> Binder::vector(const std::string& name, int64_t size, float add) {
  BANYAN_READ(tensor, require(name));
  int64_t elements = 1;
  for (const int64_t dim : tensor->dims) elements *= dim;
  if (elements != size || tensor->dims[0] != size) {
    return bad_input(fmt::format("{}: tensor {} has shape {}, expected {}", file_.path(), name,
                                 shape_text(*tensor), size));
  }
  bound_.insert(name);
  if (tensor->type == DType::kF32 && add == 0) {
    return reinterpret_cast<const float*>(tensor->data.data());
  }
  AlignedArray<float> copy(size);
  if (!expand_unquantized(tensor->type, tensor->data.data(), copy.data(), size)) {
    return bad_input(fmt::format("{}: tensor {} is {}, expected F32, F16 or BF16", file_.path(),
                                 name, type_info(tensor->type)->name));
  }
  for (int64_t i = 0; i < size; ++i) copy[i] += add;
  return kept_.emplace_back(std::move(copy)).data();
}

Result<std::vector<float>> Binder::divisors(Role role, int64_t size) {
  if (!has({role})) return std::vector<float>();
  BANYAN_READ(data, vector(name({role}), size, 0));
  std::vector<float> divisors(data, data + size);
  for (const float divisor : divisors) {
    if (std::isfinite(divisor) && divisor > 0) continue;
    return bad_input(fmt::format("{}: {} holds {}, expected finite numbers above 0", file_.path(),
                                 name({role}), divisor));
  }
  return divisors;
}

Result<void> Binder::check_all_bound() const {
  const auto refuse = [&](std::string_view name) -> Result<void> {
    if (bound_.contains(name) || is_derived(name)) return {};
    return bad_input(fmt::format(
        "{}: tensor {} has no place in this family of models; without it the answers would be "
        "wrong",
        file_.path(), printable(name)));
  };
  for (const TensorInfo& tensor : file_.tensors()) BANYAN_TRY(refuse(tensor.name));
  for (const auto& [name, type] : file_.foreign_tensors()) BANYAN_TRY(refuse(name));
  return {};
}

}  // namespace banyan
