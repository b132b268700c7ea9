// SPDX-License-Identifier: Apache-2.0
#pragma once
// What an engine is opened with.

#include <cstdint>
#include <string>

#include "attention/plan.h"
#include "base/isa.h"
#include "model/model.h"
#include "tensor/dtype.h"
#include "tensor/ops.h"

namespace banyan {

enum class AttentionDevice {
  kCpu,        // SIMD kernels on the workers
  kReference,  // plain loops in double: slow, for checking
};

// Where drafts come from: tokens that may be next, which one step verifies together. Answers are
// the same with and without.
enum class Speculation {
  kOff,
  kAuto,    // from what there is, and as long as pays by measured acceptance and step times
  kLookup,  // from what followed the same tokens before, in the prompt or the answer
  kDraft,   // from a smaller model
};

struct EngineOptions {
  std::string model_path;        // a GGUF file (first shard of several) or a Hugging Face folder
  bool with_tokenizer = true;    // false: token ids only, and the model needs to have none
  int n_threads = 0;             // 0: physical cores
  int context = 0;               // 0: as trained
  uint64_t kv_budget_bytes = 0;  // 0: a quarter of free memory
  bool retention = true;  // KV stays after its request, until the budget needs it; false: it goes
                          // with the last request that uses it
  DType k_type = DType::kF16;  // f32, f16, bf16 or q8_0
  DType v_type = DType::kF16;
  Compute compute = Compute::kAuto;
  bool deterministic = false;
  Isa isa = detect_isa();  // highest instruction set that kernels may use
  RopeOverrides rope;
  PlanMethod plan_method = PlanMethod::kAuto;
  AttentionDevice attention = AttentionDevice::kCpu;
  // Where the fastest paths of products are kept once they were measured; "": they are not
  // measured, and products take the default paths.
  std::string cache_folder;
  uint64_t panel_cache_bytes = 0;  // memory for weights kept expanded; 0: none
  Speculation speculation = Speculation::kOff;
  std::string draft_model_path;  // as model_path; "": none
  int max_rows = 512;            // rows of a step: prefill comes in pieces of this size
};

}  // namespace banyan
