// SPDX-License-Identifier: Apache-2.0
// Any bytes as the config.json of a folder whose weights are those of a tiny llama: loaded or
// refused. Seeds: seeds/config, configurations of all families in both styles.

#include <cstddef>
#include <cstdint>

#include "files/testing_safetensors_writer.h"
#include "model/model.h"
#include "readable.h"
#include "temp_files.h"

namespace {

using namespace banyan;

// Fits seeds/config/fits.json.
std::string tiny_llama() {
  SafetensorsWriter writer;
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape) {
    int64_t n = 1;
    for (const int64_t dim : shape) n *= dim;
    writer.add(name + ".weight", shape, std::vector<float>(n, 0.5F));
  };
  add("model.embed_tokens", {6, 4});
  add("model.norm", {4});
  const std::string layer = "model.layers.0.";
  for (const char* norm : {"input_layernorm", "post_attention_layernorm"}) add(layer + norm, {4});
  for (const char* name : {"q", "k", "v", "o"}) {
    add(layer + "self_attn." + name + "_proj", {4, 4});
  }
  add(layer + "mlp.gate_proj", {8, 4});
  add(layer + "mlp.up_proj", {8, 4});
  add(layer + "mlp.down_proj", {4, 8});
  return writer.build();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const FuzzFolder folder;
  static const bool ready = (folder.write("model.safetensors", tiny_llama()), true);
  static_cast<void>(ready);
  folder.write("config.json", text_of(data, size));
  const auto file = ModelFile::open(folder.path());
  if (!file) {
    check_error(file.error());
    return 0;
  }
  read_all(file->metadata(), file->tensors());
  const auto model = load_model(*file, {}, /*context=*/3);
  if (!model) check_error(model.error());
  return 0;
}
