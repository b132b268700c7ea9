// SPDX-License-Identifier: Apache-2.0
#include "attention/plan/cut.h"
#include "attention/plan/planners.h"
#include "base/check.h"

namespace banyan {

void plan_dense(const TreeView& tree, const RowShape& shape, const DeviceDescription& device,
                Plan& plan) {
  BANYAN_CHECK(tree.sequences.size() == 1, "a dense plan is for exactly one sequence");
  const SequenceCut cut = measure_sequence(tree, tree.sequences[0], shape, device);
  append_sequence(tree, cut, shape, device, item_cost_limit(cut.cost, device), plan);
  sort_items(plan);
}

}  // namespace banyan
