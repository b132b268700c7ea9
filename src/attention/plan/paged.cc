// SPDX-License-Identifier: Apache-2.0
#include "attention/plan/cut.h"
#include "attention/plan/planners.h"

namespace banyan {

void plan_paged(const TreeView& tree, const RowShape& shape, const DeviceDescription& device,
                Plan& plan) {
  uint64_t total_cost = 0;
  for (const SequenceView& sequence : tree.sequences) {
    total_cost += measure_sequence(tree, sequence, shape, device).cost;
  }
  const uint64_t limit = item_cost_limit(total_cost, device);
  for (const SequenceView& sequence : tree.sequences) {
    append_sequence(tree, measure_sequence(tree, sequence, shape, device), shape, device, limit,
                    plan);
  }
  sort_items(plan);
}

}  // namespace banyan
