// SPDX-License-Identifier: Apache-2.0
#pragma once
// Models by the name that the Hugging Face hub has for them, where a tool has fetched them already:
// in the hub's own cache (huggingface_hub's layout, https://huggingface.co/docs/huggingface_hub ->
// guides/manage-cache) or in llama.cpp's. Nothing is fetched here.

#include <string>
#include <vector>

#include "base/result.h"

namespace banyan {

// Folders to look into; those that do not exist, or are "", are passed over.
struct HubCaches {
  std::string hub;        // models--USER--MODEL/snapshots/REVISION/..
  std::string llama_cpp;  // USER_MODEL_FILE.gguf
};

// As the environment has them: HF_HUB_CACHE, HF_HOME or ~/.cache/huggingface, and LLAMA_CACHE or
// ~/.cache/llama.cpp (XDG_CACHE_HOME in place of ~/.cache).
HubCaches hub_caches();

// The path of a model named USER/MODEL or USER/MODEL:QUANT: a GGUF file (the first of its shards),
// with QUANT as a word in its name where that is given, Q4_K_M where there is a choice; else the
// folder of safetensors. kBadInput: no such name, or not there, and what to do.
Result<std::string> find_hub_model(const std::string& name, const HubCaches& caches);

}  // namespace banyan
