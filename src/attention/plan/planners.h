// SPDX-License-Identifier: Apache-2.0
#pragma once
// The planners behind make_plan(). Each appends to a plan that was cleared and holds row_pos; the
// caller has checked shape, device and rows.

#include "attention/plan.h"

namespace banyan {

// One sequence: blocks of rows against its whole path.
void plan_dense(const TreeView& tree, const RowShape& shape, const DeviceDescription& device,
                Plan& plan);

// Each sequence by itself, as block tables do it (PagedAttention, Kwon et al. 2023, section 4.1):
// what sequences share is read once for each of them.
void plan_paged(const TreeView& tree, const RowShape& shape, const DeviceDescription& device,
                Plan& plan);

}  // namespace banyan
