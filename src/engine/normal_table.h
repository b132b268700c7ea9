// SPDX-License-Identifier: Apache-2.0
#pragma once
// Random K, V and Q for attention without a model.

#include <cstdint>
#include <span>
#include <vector>

#include "base/isa.h"
#include "base/thread_pool.h"
#include "kv/pool.h"

namespace banyan {

// Normal numbers are slow to make, and gigabytes of KV are wanted: everything is a piece of one
// table, each from a place of its own. The same numbers for any number of threads. Immutable.
class NormalTable {
 public:
  NormalTable();

  // Every panel of a pool whose layers are alike gets K and V of about N(0, 1). Requires heads of
  // at most 65,536 dimensions.
  void fill_kv(PanelPool& kv, ThreadPool& pool, Isa isa) const;

  // Rows of `dim` numbers, N(0, 1). Requires rows of a whole number of these.
  void fill_rows(std::span<float> rows, int dim, ThreadPool& pool) const;

 private:
  std::vector<float> numbers_;
};

}  // namespace banyan
