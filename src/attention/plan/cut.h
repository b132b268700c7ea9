// SPDX-License-Identifier: Apache-2.0
#pragma once
// How one sequence by itself becomes runs and work items: tiles of rows while there are many, then
// segments of KV where few rows meet much of it. The cut changes who computes what, never a result
// (see plan.h on determinism).

#include "attention/plan.h"

namespace banyan {

// What a sequence's rows see, before it is cut.
struct SequenceCut {
  SequenceView sequence;
  Position path_begin = 0;  // first stored position of the path
  Position path_end = 0;
  uint64_t cost = 0;  // of all its heads, rows in tiles of device.prefill_row_tile
};

// Requires a contiguous path that holds every key that the rows see.
SequenceCut measure_sequence(const TreeView& tree, const SequenceView& sequence,
                             const RowShape& shape, const DeviceDescription& device);

// The largest cost of one item that leaves workers evenly busy.
uint64_t item_cost_limit(uint64_t total_cost, const DeviceDescription& device);

// Appends one run for each KV head (they share the path's refs), items, partials and merges.
// Items above `cost_limit` are cut further where that is allowed.
void append_sequence(const TreeView& tree, const SequenceCut& cut, const RowShape& shape,
                     const DeviceDescription& device, uint64_t cost_limit, Plan& plan);

// Largest cost first; equal ones by run, row and position.
void sort_items(Plan& plan);

}  // namespace banyan
