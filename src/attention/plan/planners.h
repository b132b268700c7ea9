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

// DeFT-Node and DeFT-Node-Chunk (arXiv 2404.00242, section 3.3): every node for all rows below it,
// whole or in chunks of device.block positions, of which each leaves a partial. Deterministic plans
// make a chunk a whole segment.
void plan_by_node(const TreeView& tree, const RowShape& shape, const DeviceDescription& device,
                  Plan& plan);
void plan_by_node_chunk(const TreeView& tree, const RowShape& shape,
                        const DeviceDescription& device, Plan& plan);

// DeFT-Flatten (same section): the nodes' positions in depth-first order, cut into blocks of
// device.block whatever node they are of; each block for all rows that see any of it, with a
// partial. Deterministic plans are those of plan_by_node_chunk().
void plan_flatten(const TreeView& tree, const RowShape& shape, const DeviceDescription& device,
                  Plan& plan);

// Node by node: read once for all its rows where that is predicted to be faster, else with what
// lies below it. What is small is packed into items of several parts in depth-first order, as
// many as keep the workers evenly busy.
void plan_auto(const TreeView& tree, const RowShape& shape, const DeviceDescription& device,
               Plan& plan);

}  // namespace banyan
