// SPDX-License-Identifier: Apache-2.0
#pragma once
// What a model file is, read from its metadata and tensor table alone; no weight is touched.

#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/rope.h"
#include "tensor/dtype.h"

namespace banyan {

struct ModelFacts {
  std::string path;
  std::string architecture;
  std::string name;
  std::string license;
  uint64_t parameters = 0;
  uint64_t bytes = 0;  // of all files with tensors
  int files = 0;
  int context_length = 0;
  int layers = 0;
  int hidden = 0;
  int ffn = 0;  // of the layer with most
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int vocab = 0;
  uint64_t kv_bytes_per_token = 0;   // with the KV types given
  std::map<std::string, int> types;  // tensors of each type
  bool chat_template = false;
  int sliding_layers = 0;  // that see `window` keys only
  int window = 0;
  int experts = 0;  // 0: no mixture
  int experts_used = 0;
  std::vector<RopeSettings> ropes;  // of full layers, then of those that slide; may be empty
};

Result<ModelFacts> inspect_model(const std::string& path, DType k_type, DType v_type);

}  // namespace banyan
