// SPDX-License-Identifier: Apache-2.0
#include "attention/plan/cut.h"
#include "attention/plan/planners.h"

namespace banyan {

void plan_paged(const TreeView& tree, const RowShape& shape, const DeviceDescription& device,
                Plan& plan) {
  uint64_t total_cost = 0;
  for (const SequenceView& sequence : tree.sequences) {
    total_cost += sequence_cost(tree, sequence, 0, shape, device);
  }
  const uint64_t limit = item_cost_limit(total_cost, device);
  for (const SequenceView& sequence : tree.sequences) {
    append_sequence(tree, sequence, {}, shape, device, limit, plan);
  }
  sort_items(plan);
}

}  // namespace banyan
