// SPDX-License-Identifier: Apache-2.0
// Planners that read nodes of several sequences once for all of them. What such a node leaves is
// folded before what its sequences see below it, so the order of every row's keys is kept.

#include <algorithm>

#include "attention/plan/cut.h"
#include "attention/plan/planners.h"

namespace banyan {
namespace {

// Passes of an executor, each of which reads the KV.
uint32_t passes(uint32_t rows, uint32_t heads, const DeviceDescription& device) {
  return (rows * heads + device.pass_rows - 1) / device.pass_rows;
}

Position node_end(const NodeView& node) { return node.kv_begin + node.kv_len; }

// Fills `sequences` and `reads` of all nodes.
void count_sequences(const TreeView& tree, const RowShape& shape, const DeviceDescription& device,
                     Plan& plan) {
  auto& notes = plan.scratch.nodes;
  notes.assign(tree.nodes.size(), {});
  for (const SequenceView& sequence : tree.sequences) {
    if (sequence.row_begin == sequence.row_end) continue;
    PlannerScratch::Node& note = notes[sequence.leaf];
    ++note.sequences;
    note.reads += passes(sequence.row_end - sequence.row_begin, heads_per_kv_head(shape), device);
  }
  for (size_t i = notes.size(); i-- > 0;) {
    const uint32_t parent = tree.nodes[i].parent;
    if (parent == NodeView::kNoParent) continue;
    notes[parent].sequences += notes[i].sequences;
    notes[parent].reads += notes[i].reads;
  }
}

KvRange keys_of(const TreeView& tree, size_t i, const Plan& plan) {
  const uint32_t parent = tree.nodes[i].parent;
  const Position covered = parent == NodeView::kNoParent ? 0 : plan.scratch.nodes[parent].covered;
  return {covered, plan.scratch.nodes[i].covered};
}

// Plans the nodes for which shares(index, keys) holds, `keys` being those that no node above has
// dealt with, and then each sequence by itself; shared nodes in parts of `step` keys, 0: as is best
// for the workers.
template <class F>
void plan_nodes(const TreeView& tree, const RowShape& shape, const DeviceDescription& device,
                int32_t step, F shares, Plan& plan) {
  auto& notes = plan.scratch.nodes;
  const uint32_t heads = heads_per_kv_head(shape);
  uint64_t cost = 0;
  for (size_t i = 0; i < tree.nodes.size(); ++i) {
    const NodeView& node = tree.nodes[i];
    const Position end = node_end(node);
    notes[i].covered = device.deterministic ? end - end % kSegmentTokens : end;
    const KvRange keys = keys_of(tree, i, plan);
    if (!keys.empty() && shares(i, keys)) {
      cost +=
          item_cost({node.row_begin, node.row_end}, heads, keys, device.costs) * shape.n_kv_heads;
    } else {
      notes[i].covered = keys.begin;
    }
  }
  for (const SequenceView& sequence : tree.sequences) {
    cost += sequence_cost(tree, sequence, notes[sequence.leaf].covered, shape, device);
  }
  const uint64_t limit = item_cost_limit(cost, device);

  for (size_t i = 0; i < tree.nodes.size(); ++i) {
    const NodeView& node = tree.nodes[i];
    const KvRange keys = keys_of(tree, i, plan);
    const uint32_t before =
        node.parent == NodeView::kNoParent ? Covered::kNone : notes[node.parent].partials;
    notes[i].partials = before;
    if (keys.empty()) continue;
    const RowRange rows{node.row_begin, node.row_end};
    uint32_t row_tile = rows.size();
    if (item_cost(rows, heads, keys, device.costs) > limit) {
      row_tile = std::min(row_tile, std::max(1U, device.pass_rows / heads));
    }
    const int32_t part = step > 0 ? step
                                  : choose_step({rows.begin, rows.begin + row_tile}, keys, shape,
                                                device.costs, limit);
    notes[i].partials = append_shared(tree, static_cast<uint32_t>(i), rows, {keys.begin, before},
                                      keys.end, part, row_tile, shape, device, plan)
                            .partials;
  }
  for (const SequenceView& sequence : tree.sequences) {
    const PlannerScratch::Node& leaf = notes[sequence.leaf];
    append_sequence(tree, sequence, {leaf.covered, leaf.partials}, shape, device, limit, plan);
  }
  sort_items(plan);
}

}  // namespace

void plan_two_phase(const TreeView& tree, const RowShape& shape, const DeviceDescription& device,
                    Plan& plan) {
  count_sequences(tree, shape, device, plan);
  const auto shares = [&](size_t i, KvRange) { return plan.scratch.nodes[i].sequences > 1; };
  plan_nodes(tree, shape, device, kChunkTokens, shares, plan);
}

void plan_auto(const TreeView& tree, const RowShape& shape, const DeviceDescription& device,
               Plan& plan) {
  count_sequences(tree, shape, device, plan);
  const uint32_t heads = heads_per_kv_head(shape);
  const auto shares = [&](size_t i, KvRange keys) {
    const PlannerScratch::Node& note = plan.scratch.nodes[i];
    const NodeView& node = tree.nodes[i];
    if (note.sequences < 2) return false;
    // Where nothing branches, the last node of the chain does it for all.
    if (i + 1 < tree.nodes.size() && tree.nodes[i + 1].parent == i &&
        tree.nodes[i + 1].row_begin == node.row_begin &&
        tree.nodes[i + 1].row_end == node.row_end) {
      return false;
    }
    const uint32_t rows = node.row_end - node.row_begin;
    const double saved = (double(note.reads) - passes(rows, heads, device)) *
                         (keys.end - keys.begin) * device.costs.read;
    const double spent = double(rows) * heads * device.costs.partial + device.costs.item;
    return saved > spent;
  };
  plan_nodes(tree, shape, device, 0, shares, plan);
}

}  // namespace banyan
