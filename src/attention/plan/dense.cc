// SPDX-License-Identifier: Apache-2.0
#include "attention/plan/planners.h"
#include "base/check.h"

namespace banyan {

void plan_dense(const TreeView& tree, const RowShape& shape, const DeviceDescription& device,
                Plan& plan) {
  BANYAN_CHECK(tree.sequences.size() == 1, "a dense plan is for exactly one sequence");
  plan_paged(tree, shape, device, plan);
}

}  // namespace banyan
