// SPDX-License-Identifier: Apache-2.0
#pragma once
// The operations on the CPU: elementwise kernels with SIMD, weight products by our own kernels
// and ggml's (few rows), our own and oneDNN (many rows), all on the workers of one pool.

#include <cstdint>
#include <memory>
#include <optional>

#include "base/isa.h"
#include "base/thread_pool.h"
#include "tensor/cpu/product_paths.h"
#include "tensor/ops.h"

namespace banyan {

struct CpuOpsOptions {
  Compute compute = Compute::kAuto;
  // A row's result is bit-equal whatever the other rows, the number of threads and the split: every
  // product is one dot product of a fixed kernel, and oneDNN is not used.
  bool deterministic = false;
  // Highest instruction set of the kernels; at most detect_isa(). oneDNN: see apply_isa_cap().
  Isa isa = Isa::kBaseline;
  // Which way products go, where it was measured. Requires Compute::kAuto; not used if
  // `deterministic`.
  std::optional<ProductPaths> paths = {};
  // Memory for weights that are kept expanded for oneDNN, from the first product on that expands
  // them. Weights must then stay what and where they are.
  uint64_t panel_cache_bytes = 0;
};

class CpuOps : public Ops {
 public:
  // Bytes of scratch held now. Grows with the largest call seen, to a bound set by the widths of
  // the weights and the number of threads (and not by the number of rows).
  virtual uint64_t scratch_bytes() const = 0;

  // Bytes of weights kept expanded, at most CpuOpsOptions::panel_cache_bytes.
  virtual uint64_t panel_cache_bytes() const = 0;
};

// `pool` must outlive the operations; its threads must have been started with init_worker_thread.
// Weights must be of a type for which can_be_weight() holds.
std::unique_ptr<CpuOps> make_cpu_ops(ThreadPool& pool, const CpuOpsOptions& options);

// Whether linear() and embed() can read weights of this type. (Integers, f64 and the two 8-bit
// types that only activations are rounded to are tensor types, but no weights.)
bool can_be_weight(DType type);

// Sets what libraries keep for each thread: they run on the calling worker alone, with no threads
// of their own. For ThreadPool's on_worker_start.
void init_worker_thread();

// The same for the thread that drives a pool, which is the user's own: what it had set comes back.
class OneThreadHere {
 public:
  OneThreadHere();
  ~OneThreadHere();
  OneThreadHere(const OneThreadHere&) = delete;
  OneThreadHere& operator=(const OneThreadHere&) = delete;

 private:
  int before_;
};

// Caps oneDNN at `isa` for the whole process: it has no narrower setting. Works before the first
// use of oneDNN; afterwards, and a second time, it does nothing.
void apply_isa_cap(Isa isa);

}  // namespace banyan
