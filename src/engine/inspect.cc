// SPDX-License-Identifier: Apache-2.0
#include "engine/inspect.h"

#include "files/model_file.h"
#include "model/model.h"
#include "tensor/kv_layout.h"

namespace banyan {
namespace {

std::string text(const ModelFile& file, std::string_view key) {
  auto found = file.string(key);
  return found && found->has_value() ? std::string(**found) : std::string();
}

}  // namespace

Result<ModelFacts> inspect_model(const std::string& path, DType k_type, DType v_type) {
  auto file = ModelFile::open_gguf(path);
  if (!file) return file.error();
  auto model = load_model(*file, {});
  if (!model) return model.error();
  const Hyperparameters& hp = model->hp;
  const KvShape kv{hp.n_layers, hp.n_kv_heads, hp.head_dim, k_type, v_type};
  ModelFacts facts;
  facts.path = file->path();
  facts.architecture = hp.architecture;
  facts.name = text(*file, "general.name");
  facts.license = text(*file, "general.license");
  facts.parameters = model->parameters;
  facts.bytes = file->file_bytes();
  facts.context_length = hp.context_length;
  facts.layers = hp.n_layers;
  facts.heads = hp.n_heads;
  facts.kv_heads = hp.n_kv_heads;
  facts.head_dim = hp.head_dim;
  facts.vocab = hp.vocab;
  facts.kv_bytes_per_token = kv.panel_bytes() / kPanelTokens;
  for (const TensorInfo& tensor : file->tensors()) {
    ++facts.types[std::string(type_info(tensor.type)->name)];
  }
  facts.chat_template = !text(*file, "tokenizer.chat_template").empty();
  facts.rope = model->rope.settings();
  return facts;
}

}  // namespace banyan
