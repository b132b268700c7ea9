// SPDX-License-Identifier: Apache-2.0
#include "engine/inspect.h"

#include <filesystem>

#include "engine/vocabulary.h"
#include "files/model_file.h"
#include "model/model.h"
#include "tensor/kv_layout.h"

namespace banyan {
namespace {

std::string text(const ModelFile& file, std::string_view key) {
  auto found = file.string(key);
  return found && found->has_value() ? std::string(**found) : std::string();
}

// Folders rarely say their name; they have one.
std::string model_name(const ModelFile& file) {
  if (file.format() == ModelFormat::kGguf) return text(file, "general.name");
  std::string name = text(file, "_name_or_path");
  if (!name.empty()) return name;
  std::filesystem::path path = file.path();
  if (!path.has_filename()) path = path.parent_path();  // it ends in a slash
  return path.filename().string();
}

Result<bool> has_chat_template(const ModelFile& file) {
  if (file.format() == ModelFormat::kGguf) {
    const auto found = file.string("tokenizer.chat_template");
    if (!found) return found.error();
    return found->has_value() && !(*found)->empty();
  }
  const auto found = read_folder_chat_template(file.path());
  if (!found) return found.error();
  return !found->empty();
}

}  // namespace

Result<ModelFacts> inspect_model(const std::string& path, DType k_type, DType v_type) {
  auto file = ModelFile::open(path);
  if (!file) return file.error();
  auto model = load_model(*file, {});
  if (!model) return model.error();
  const Hyperparameters& hp = model->hp;
  ModelFacts facts;
  facts.path = file->path();
  facts.architecture = hp.architecture;
  facts.name = model_name(*file);
  facts.license = text(*file, "general.license");
  facts.parameters = model->parameters;
  facts.bytes = file->file_bytes();
  facts.files = file->n_files();
  facts.context_length = hp.context_length;
  facts.layers = hp.n_layers;
  facts.hidden = hp.hidden;
  facts.ffn = hp.ffn;
  facts.heads = hp.n_heads;
  facts.kv_heads = hp.n_kv_heads;
  facts.head_dim = hp.head_dim;
  facts.vocab = hp.vocab;
  for (const KvShape& shape : kv_shapes(hp, k_type, v_type)) {
    facts.kv_bytes_per_token += shape.panel_bytes() / kPanelTokens;
  }
  for (const LayerShape& layer : hp.layers) {
    if (!layer.slides) continue;
    ++facts.sliding_layers;
    facts.window = hp.groups[layer.group].window;
  }
  facts.experts = hp.n_experts;
  facts.experts_used = hp.n_experts_used;
  for (const TensorInfo& tensor : file->tensors()) {
    ++facts.types[std::string(type_info(tensor.type)->name)];
  }
  const auto chat_template = has_chat_template(*file);
  if (!chat_template) return chat_template.error();
  facts.chat_template = *chat_template;
  for (const Rope& rope : model->ropes) facts.ropes.push_back(rope.settings());
  return facts;
}

}  // namespace banyan
