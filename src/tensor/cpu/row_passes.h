// SPDX-License-Identifier: Apache-2.0
#pragma once
// Products of many rows, taken some rows at a time to bound the scratch for rounded activations.

#include <algorithm>
#include <cstdint>
#include <span>

#include "tensor/ops.h"

namespace banyan {

// Calls pass(x, targets) for at most max_rows rows at once: with all targets if that is every row,
// else with one target at a time.
template <class Pass>
void for_each_row_pass(ConstMatrix x, std::span<const LinearTarget> targets, int64_t max_rows,
                       Pass pass) {
  if (x.rows <= max_rows) return pass(x, targets);
  for (int64_t begin = 0; begin < x.rows; begin += max_rows) {
    const int64_t n_rows = std::min(max_rows, x.rows - begin);
    for (const LinearTarget& whole : targets) {
      LinearTarget target = whole;
      target.out.data = whole.out.row(begin);
      target.out.rows = n_rows;
      pass(ConstMatrix(x.row(begin), n_rows, x.cols, x.stride),
           std::span<const LinearTarget>(&target, 1));
    }
  }
}

}  // namespace banyan
