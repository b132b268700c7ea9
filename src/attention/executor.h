// SPDX-License-Identifier: Apache-2.0
#pragma once
// What runs an attention plan. One executor per device, plus `reference`, the oracle of the tests.
// Softmax arithmetic and the state it leaves: Milakov & Gimelshein 2018 (online normalizer),
// merged as in FlashAttention (Dao et al. 2022, section 3.1).

#include <memory>

#include "attention/plan.h"
#include "base/isa.h"
#include "base/thread_pool.h"
#include "tensor/kv_layout.h"

namespace banyan {

struct AttendInputs {
  const float* q = nullptr;  // [n_rows][n_heads][head_dim], positions already applied
  KvPlanes kv;               // of this layer, holding the rows' own K and V too
  int n_heads = 0;
  float scale = 1;    // multiplies q.k
  float softcap = 0;  // > 0: scores become softcap * tanh(score / softcap)
};

struct AttendOutputs {
  float* out = nullptr;  // [n_rows][n_heads][head_dim]
  float* lse = nullptr;  // [n_rows][n_heads], natural log-sum-exp of the scaled scores; may be null
};

class AttentionExecutor {
 public:
  virtual ~AttentionExecutor() = default;
  // Makes room for the plan's partials. May allocate; once per step, before attend().
  virtual void prepare(const Plan& plan, const KvShape& shape, int n_heads) = 0;
  // Runs every item, then every merge. No allocation. A row that sees no key gets zeros and
  // lse = -infinity.
  virtual void attend(const Plan& plan, const AttendInputs& in, const AttendOutputs& out) = 0;
  // Bytes of workspace held (partials and per-worker scratch).
  virtual uint64_t workspace_bytes() const = 0;
};

// Plain scalar loops in double; slow, the truth.
std::unique_ptr<AttentionExecutor> make_reference_executor();

struct CpuAttentionOptions {
  Isa isa = detect_isa();  // highest instruction set that kernels may use
  // Many packed rows over KV of 16 or 8 bits may meet it in pairs of 16-bit numbers, where the CPU
  // multiplies these (under the cap `isa`): as whole numbers of 12 to 15 bits (AVX512_VNNI), or in
  // bf16 (AMX). A row's result then depends on how many rows are with it.
  bool pair_products = false;
};

// SIMD kernels; runs on `pool`, which must outlive it.
std::unique_ptr<AttentionExecutor> make_cpu_executor(ThreadPool& pool,
                                                     const CpuAttentionOptions& options);

}  // namespace banyan
