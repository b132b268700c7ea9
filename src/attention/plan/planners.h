// SPDX-License-Identifier: Apache-2.0
#pragma once
// The planners behind make_plan(). Each appends to a plan that was cleared and holds row_pos; the
// caller has checked shape, device and rows.

#include "attention/plan.h"

namespace banyan {

// Each sequence by itself, as block tables do it (PagedAttention, Kwon et al. 2023, section 4.1):
// what sequences share is read once for each of them.
void plan_paged(const TreeView& tree, const RowShape& shape, const DeviceDescription& device,
                Plan& plan);

// As published (ChunkAttention, arXiv 2402.15220, section 3.2): nodes with several sequences chunk
// by chunk for all their rows, each chunk leaving a partial; then each sequence's own keys, folded
// with these. Deterministic plans make a chunk a whole segment.
void plan_two_phase(const TreeView& tree, const RowShape& shape, const DeviceDescription& device,
                    Plan& plan);

// Node by node: read once for all its rows where that is predicted to be faster, else with what
// lies below it.
void plan_auto(const TreeView& tree, const RowShape& shape, const DeviceDescription& device,
               Plan& plan);

}  // namespace banyan
