// SPDX-License-Identifier: Apache-2.0
// Planners that read nodes of several sequences once for all of them. What such a node leaves is
// folded before what its sequences see below it, so the order of every row's keys is kept.

#include <algorithm>
#include <limits>

#include "attention/plan/cut.h"
#include "attention/plan/pack.h"
#include "attention/plan/planners.h"

namespace banyan {
namespace {

// KV heads for each worker from which they keep workers evenly busy: with items of whole trees, and
// with nodes that are not cut.
constexpr uint64_t kHeadsForWholeTrees = 8;
constexpr uint64_t kHeadsForWholeNodes = 4;

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

// Decides which nodes are read for all their rows: those for which shares(index, keys) holds,
// `keys` being what no node above has dealt with. Returns the cost of the whole step.
template <class F>
uint64_t choose_nodes(const TreeView& tree, const RowShape& shape, const DeviceDescription& device,
                      F shares, Plan& plan) {
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
  return cost;
}

// The list of partials that a node begins with.
uint32_t partials_before(const TreeView& tree, size_t i, const Plan& plan) {
  const uint32_t parent = tree.nodes[i].parent;
  return parent == NodeView::kNoParent ? Covered::kNone : plan.scratch.nodes[parent].partials;
}

// Items of node i over `keys` in parts of `step` keys, 0: as is best for the workers.
void append_node(const TreeView& tree, size_t i, KvRange keys, int32_t step, uint64_t limit,
                 const RowShape& shape, const DeviceDescription& device, Plan& plan) {
  const RowRange rows{tree.nodes[i].row_begin, tree.nodes[i].row_end};
  const uint32_t heads = heads_per_kv_head(shape);
  uint32_t row_tile = rows.size();
  if (item_cost(rows, heads, keys, device.costs) > limit) {
    row_tile = std::min(row_tile, std::max(1U, device.pass_rows / heads));
  }
  const int32_t part =
      step > 0 ? step
               : choose_step({rows.begin, rows.begin + row_tile}, keys, shape, device.costs, limit);
  const Covered before{keys.begin, partials_before(tree, i, plan)};
  plan.scratch.nodes[i].partials = append_shared(tree, static_cast<uint32_t>(i), rows, before,
                                                 keys.end, part, row_tile, shape, device, plan)
                                       .partials;
}

// Appends chosen nodes by themselves, and then each sequence; `step` as append_node().
void append_apart(const TreeView& tree, uint64_t cost, int32_t step, const RowShape& shape,
                  const DeviceDescription& device, Plan& plan) {
  auto& notes = plan.scratch.nodes;
  const uint64_t limit = item_cost_limit(cost, device);
  for (size_t i = 0; i < tree.nodes.size(); ++i) {
    notes[i].partials = partials_before(tree, i, plan);
    const KvRange keys = keys_of(tree, i, plan);
    if (!keys.empty()) append_node(tree, i, keys, step, limit, shape, device, plan);
  }
  for (const SequenceView& sequence : tree.sequences) {
    const PlannerScratch::Node& leaf = notes[sequence.leaf];
    append_sequence(tree, sequence, {leaf.covered, leaf.partials}, shape, device, limit, plan);
  }
  sort_items(plan);
}

// Appends chosen nodes and sequences in depth-first order, packed as long as an item costs no more
// than leaves the workers evenly busy; what costs more by itself is cut.
void append_packed(const TreeView& tree, uint64_t cost, const RowShape& shape,
                   const DeviceDescription& device, Plan& plan) {
  auto& notes = plan.scratch.nodes;
  // What an item of each KV head may cost, and a node in an item of its own.
  const auto heads = static_cast<uint64_t>(shape.n_kv_heads);
  const uint64_t whole = 2 * cost / heads;
  const uint64_t even = item_cost_limit(cost, device);
  const uint64_t limit = heads >= kHeadsForWholeTrees * device.n_workers ? whole : even;
  const uint64_t node_limit = heads >= kHeadsForWholeNodes * device.n_workers ? whole : limit;
  PartialLists lists(plan);
  ItemPacker packer(tree, shape, device, plan);
  // Whether it was packed, as what costs more than `most` is not; its partial is in `list` then.
  const auto pack = [&](uint32_t node, RowRange rows, KvRange keys, uint64_t most, uint32_t& list) {
    if (packer.cost_with(rows, keys) > limit) packer.close();
    if (packer.cost_of(rows, keys) > most) return false;
    list = lists.add_once(list, packer.add(node, rows, keys));
    return true;
  };
  const auto append_chosen = [&](uint32_t i) {
    notes[i].partials = partials_before(tree, i, plan);
    const KvRange keys = keys_of(tree, i, plan);
    if (keys.empty()) return;
    const RowRange rows{tree.nodes[i].row_begin, tree.nodes[i].row_end};
    const KvRange seen = keys_in_window(tree, rows, keys, shape.window);
    const bool one_pass = passes(rows.size(), heads_per_kv_head(shape), device) == 1;
    if (seen.empty() || pack(i, rows, seen, one_pass ? node_limit : limit, notes[i].partials)) {
      return;
    }
    append_node(tree, i, keys, 0, limit, shape, device, plan);
  };
  uint32_t next_node = 0;
  for (const SequenceView& sequence : tree.sequences) {
    for (; next_node <= sequence.leaf; ++next_node) append_chosen(next_node);
    const RowRange rows{sequence.row_begin, sequence.row_end};
    if (rows.begin == rows.end) continue;
    const PlannerScratch::Node& leaf = notes[sequence.leaf];
    const KvRange keys = visible_keys(tree, sequence, rows, leaf.covered, shape.window);
    uint32_t list = leaf.partials;
    const bool is_done = keys.empty() && list != Covered::kNone;
    if (is_done ||
        (!keys.empty() && are_few(rows, shape) && pack(sequence.leaf, rows, keys, limit, list))) {
      packer.finish_rows(rows, list);
      continue;
    }
    packer.close();
    append_sequence(tree, sequence, {leaf.covered, leaf.partials}, shape, device, limit, plan);
  }
  packer.finish();
  sort_items(plan);
}

// Every node, in parts of `step` positions.
void plan_every_node(const TreeView& tree, int32_t step, const RowShape& shape,
                     const DeviceDescription& device, Plan& plan) {
  plan.scratch.nodes.assign(tree.nodes.size(), {});
  const auto every = [](size_t, KvRange) { return true; };
  const uint64_t cost = choose_nodes(tree, shape, device, every, plan);
  append_apart(tree, cost, device.deterministic ? kSegmentTokens : step, shape, device, plan);
}

}  // namespace

void plan_two_phase(const TreeView& tree, const RowShape& shape, const DeviceDescription& device,
                    Plan& plan) {
  count_sequences(tree, shape, device, plan);
  const auto shares = [&](size_t i, KvRange) { return plan.scratch.nodes[i].sequences > 1; };
  const uint64_t cost = choose_nodes(tree, shape, device, shares, plan);
  append_apart(tree, cost, kChunkTokens, shape, device, plan);
}

void plan_by_node(const TreeView& tree, const RowShape& shape, const DeviceDescription& device,
                  Plan& plan) {
  plan_every_node(tree, std::numeric_limits<int32_t>::max(), shape, device, plan);
}

void plan_by_node_chunk(const TreeView& tree, const RowShape& shape,
                        const DeviceDescription& device, Plan& plan) {
  plan_every_node(tree, device.block, shape, device, plan);
}

void plan_flatten(const TreeView& tree, const RowShape& shape, const DeviceDescription& device,
                  Plan& plan) {
  if (device.deterministic) return plan_by_node_chunk(tree, shape, device, plan);
  auto& notes = plan.scratch.nodes;
  notes.assign(tree.nodes.size(), {});
  PartialLists lists(plan);
  ItemPacker packer(tree, shape, device, plan);
  for (uint32_t i = 0; i < tree.nodes.size(); ++i) {
    const NodeView& node = tree.nodes[i];
    const RowRange rows{node.row_begin, node.row_end};
    notes[i].partials = partials_before(tree, i, plan);
    const KvRange all = {node.kv_begin, node_end(node)};
    for (KvRange keys = keys_in_window(tree, rows, all, shape.window); !keys.empty();) {
      if (packer.keys() == device.block) packer.close();
      const int32_t room = device.block - packer.keys();
      const KvRange fitting{keys.begin, std::min(keys.end, keys.begin + room)};
      notes[i].partials = lists.add_once(notes[i].partials, packer.add(i, rows, fitting));
      keys.begin = fitting.end;
    }
  }
  for (const SequenceView& sequence : tree.sequences) {
    const RowRange rows{sequence.row_begin, sequence.row_end};
    if (rows.begin == rows.end) continue;
    const uint32_t list = notes[sequence.leaf].partials;
    if (list != Covered::kNone) {
      packer.finish_rows(rows, list);
    } else {
      append_sequence(tree, sequence, {}, shape, device, ~uint64_t{0}, plan);
    }
  }
  packer.finish();
  sort_items(plan);
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
  const uint64_t cost = choose_nodes(tree, shape, device, shares, plan);
  if (device.deterministic) return append_apart(tree, cost, 0, shape, device, plan);
  append_packed(tree, cost, shape, device, plan);
}

}  // namespace banyan
