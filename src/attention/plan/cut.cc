// SPDX-License-Identifier: Apache-2.0
#include "attention/plan/cut.h"

#include <algorithm>
#include <limits>

#include "base/check.h"

namespace banyan {
namespace {

// A tile of at least this many packed rows is bound by arithmetic, not by reading KV: of one
// sequence only smaller ones are cut by keys.
constexpr uint32_t kArithmeticBoundRows = 32;

// Items for each worker that the largest may hold back: 8 bound the idle tail at 1/8 of the step.
constexpr uint64_t kItemsPerWorker = 8;

// Fewest keys of an item that was cut off: its partial costs a row as much as some 16 keys.
constexpr int32_t kFewestKeys = 256;

uint32_t panels_between(Position begin, Position position) {
  return static_cast<uint32_t>(position / kPanelTokens - begin / kPanelTokens);
}

// Of refs of which the first holds `begin`, the one that holds `position`.
uint32_t find_ref(const PanelRef* refs, bool on_grid, Position begin, Position position) {
  if (on_grid) return panels_between(begin, position);
  uint32_t i = 0;
  while (true) {
    begin += refs[i].slot_end - begin % kPanelTokens;
    if (position < begin) return i;
    ++i;
  }
}

uint32_t append_partial(RowRange rows, const RowShape& shape, Plan& plan) {
  plan.partials.push_back(make_partial(rows, shape, plan));
  return static_cast<uint32_t>(plan.partials.size()) - 1;
}

// `partial`: as in WorkItem.
void append_item(uint32_t run, RowRange rows, KvRange kv, uint32_t partial, const RowShape& shape,
                 const PlanCosts& costs, Plan& plan) {
  plan.items.push_back({.part_begin = static_cast<uint32_t>(plan.parts.size()),
                        .part_count = 1,
                        .row_begin = rows.begin,
                        .row_end = rows.end,
                        .partial = partial,
                        .cost = item_cost(rows, heads_per_kv_head(shape), kv, costs)});
  append_part(run, rows, kv, plan);
}

// Where the item that begins at `begin` ends, of about `step` keys at most; in deterministic plans
// with its segment.
Position item_end(Position begin, Position end, int32_t step, const DeviceDescription& device) {
  const int32_t grid = device.deterministic ? kSegmentTokens : kChunkTokens;
  if (device.deterministic) step = kSegmentTokens;
  if (end - begin <= step) {
    const Position border = begin - begin % grid + grid;
    return device.deterministic ? std::min(end, border) : end;
  }
  const Position cut = begin + step;
  return std::min(end, std::max(begin - begin % grid + grid, cut - cut % grid));
}

// Rows of one item: fewer than the device's tile where items of that size would cost too much and
// still hold enough rows to be bound by arithmetic.
uint32_t choose_row_tile(const TreeView& tree, const SequenceView& sequence, Position from,
                         const RowShape& shape, const DeviceDescription& device,
                         uint64_t cost_limit) {
  const RowRange rows{sequence.row_begin, sequence.row_end};
  const uint32_t heads = heads_per_kv_head(shape);
  uint32_t tile = std::min<uint32_t>(device.prefill_row_tile, rows.size());
  while (tile * heads > kArithmeticBoundRows) {
    const RowRange last{rows.end - tile, rows.end};
    const KvRange kv = visible_keys(tree, sequence, last, from, shape.window);
    if (item_cost(last, heads, kv, device.costs) <= cost_limit) break;
    tile = (tile + 1) / 2;
    if (tile == 1) break;
  }
  return tile;
}

}  // namespace

bool are_few(RowRange rows, const RowShape& shape) {
  return rows.size() == 1 || rows.size() * heads_per_kv_head(shape) <= kArithmeticBoundRows;
}

KvRange visible_keys(const TreeView& tree, const SequenceView& sequence, RowRange rows,
                     Position from, int32_t window) {
  const NodeView& leaf = tree.nodes[sequence.leaf];
  const Position path_end = leaf.kv_begin + leaf.kv_len;
  const Position first = tree.row_pos[rows.begin];
  const Position last = tree.row_pos[rows.end - 1];
  const Position begin = first < window ? 0 : first - window + 1;
  const Position aligned = std::max(from, begin - begin % kPanelTokens);
  return {aligned, std::max(aligned, std::min(path_end, last + 1))};
}

KvRange keys_in_window(const TreeView& tree, RowRange rows, KvRange keys, int32_t window) {
  if (window == Band::kCausal) return keys;
  const auto first =
      std::min_element(tree.row_pos.begin() + rows.begin, tree.row_pos.begin() + rows.end);
  const Position seen = std::max(0, *first - window + 1);
  return {std::max(keys.begin, seen - seen % kPanelTokens), keys.end};
}

uint32_t append_run(const TreeView& tree, uint32_t leaf, KvRange kv, RowRange rows,
                    const RowShape& shape, Plan& plan) {
  const auto first = static_cast<uint32_t>(plan.stretches.size());
  if (!kv.empty()) {
    // Nodes know their parents only, so the path comes from its end.
    uint32_t count = 0;
    Position begin = kv.end;
    for (uint32_t n = leaf; begin > kv.begin; n = tree.nodes[n].parent) {
      BANYAN_CHECK(n != NodeView::kNoParent, "a path has a gap");
      const NodeView& node = tree.nodes[n];
      const Position end = std::min(begin, node.kv_begin + node.kv_len);
      if (node.kv_len == 0 || node.kv_begin >= begin) continue;
      BANYAN_CHECK(end == begin, "a path has a gap");
      begin = std::max(kv.begin, node.kv_begin);
      const Position last = node.kv_begin + node.kv_len - 1;
      const bool on_grid = node.refs.size() == panels_between(node.kv_begin, last) + 1;
      plan.stretches.push_back(
          {node.refs.data() + find_ref(node.refs.data(), on_grid, node.kv_begin, begin), begin, end,
           on_grid});
      ++count;
    }
    if (count > 1) std::reverse(plan.stretches.begin() + first, plan.stretches.end());
  }
  plan.runs.push_back({.stretch_begin = first,
                       .stretch_count = static_cast<uint32_t>(plan.stretches.size()) - first,
                       .kv_begin = kv.begin,
                       .kv_len = kv.end - kv.begin,
                       .row_begin = rows.begin,
                       .row_end = rows.end,
                       .heads = {0, shape.n_heads},
                       .band = {shape.window}});
  return static_cast<uint32_t>(plan.runs.size()) - 1;
}

void append_part(uint32_t run_index, RowRange rows, KvRange kv, Plan& plan) {
  const Run& run = plan.runs[run_index];
  RunPart part{.run = run_index,
               .stretch = run.stretch_begin,
               .kv_begin = kv.begin,
               .kv_end = kv.end,
               .row_begin = rows.begin,
               .row_end = rows.end};
  if (!kv.empty()) {
    while (plan.stretches[part.stretch].kv_end <= kv.begin) ++part.stretch;
    const Stretch& stretch = plan.stretches[part.stretch];
    part.ref = find_ref(stretch.refs, stretch.on_grid, stretch.kv_begin, kv.begin);
  }
  plan.parts.push_back(part);
  plan.kv_tokens_read += kv.end - kv.begin;
}

Partial make_partial(RowRange rows, const RowShape& shape, Plan& plan) {
  Partial partial{.row_begin = rows.begin, .row_end = rows.end, .heads = {0, shape.n_heads}};
  const uint64_t states = partial.states();
  partial.o_offset = plan.workspace_floats;
  partial.ml_offset = partial.o_offset + states * shape.head_dim;
  // Rounded up to cache lines: two workers never write the same one.
  plan.workspace_floats += (states * (shape.head_dim + 2) + 15) / 16 * 16;
  return partial;
}

void PartialLists::append_to(uint32_t last, std::vector<uint32_t>& out) const {
  const size_t first = out.size();
  for (uint32_t i = last; i != Covered::kNone; i = entries_[i + 1]) out.push_back(entries_[i]);
  std::reverse(out.begin() + static_cast<ptrdiff_t>(first), out.end());
}

uint64_t item_cost(RowRange rows, uint32_t heads, KvRange kv, const PlanCosts& costs) {
  const double packed = double(rows.size()) * heads;
  return static_cast<uint64_t>((packed + costs.cached_read) * (kv.end - kv.begin));
}

int32_t choose_step(RowRange rows, KvRange kv, const RowShape& shape, const PlanCosts& costs,
                    uint64_t cost_limit) {
  const int32_t keys = kv.end - kv.begin;
  const uint64_t cost = item_cost(rows, heads_per_kv_head(shape), kv, costs);
  const auto parts = static_cast<int32_t>(
      std::min<uint64_t>(cost / std::max<uint64_t>(cost_limit, 1) + 1, keys / kFewestKeys + 1));
  // Up to whole chunks, that the last part be none of a few keys.
  return ((keys + parts - 1) / parts + kChunkTokens - 1) / kChunkTokens * kChunkTokens;
}

uint64_t item_cost_limit(uint64_t total_cost, const DeviceDescription& device) {
  if (device.n_workers <= 1) return std::numeric_limits<uint64_t>::max();
  return total_cost / (kItemsPerWorker * device.n_workers);
}

uint64_t sequence_cost(const TreeView& tree, const SequenceView& sequence, Position from,
                       const RowShape& shape, const DeviceDescription& device) {
  const uint32_t heads = heads_per_kv_head(shape);
  const uint32_t tile = device.prefill_row_tile;
  uint64_t cost = 0;
  for (uint32_t row = sequence.row_begin; row < sequence.row_end; row += tile) {
    const RowRange rows{row, std::min(row + tile, sequence.row_end)};
    cost += item_cost(rows, heads, visible_keys(tree, sequence, rows, from, shape.window),
                      device.costs);
  }
  return cost * shape.n_kv_heads;
}

void append_sequence(const TreeView& tree, const SequenceView& sequence, const Covered& covered,
                     const RowShape& shape, const DeviceDescription& device, uint64_t cost_limit,
                     Plan& plan) {
  const RowRange rows{sequence.row_begin, sequence.row_end};
  if (rows.begin == rows.end) return;
  for (uint32_t row = rows.begin; row + 1 < rows.end; ++row) {
    BANYAN_CHECK(tree.row_pos[row] < tree.row_pos[row + 1], "rows must ascend in position");
  }
  const uint32_t heads = heads_per_kv_head(shape);
  const KvRange all = visible_keys(tree, sequence, rows, covered.end, shape.window);
  const uint32_t run = append_run(tree, sequence.leaf, all, rows, shape, plan);
  const uint32_t tile =
      rows.size() == 1 ? 1
                       : choose_row_tile(tree, sequence, covered.end, shape, device, cost_limit);
  const bool has_covered = covered.partials != Covered::kNone;
  for (uint32_t row = rows.begin; row < rows.end; row += tile) {
    const RowRange part{row, std::min(row + tile, rows.end)};
    const KvRange kv =
        tile == rows.size() ? all : visible_keys(tree, sequence, part, covered.end, shape.window);
    const bool is_large =
        are_few(part, shape) && item_cost(part, heads, kv, device.costs) > cost_limit;
    const int32_t step =
        is_large ? choose_step(part, kv, shape, device.costs, cost_limit) : kv.end - kv.begin;
    // Deterministic: behind other partials each segment has its own.
    const bool in_segments = device.deterministic && (is_large || has_covered);
    const Position first_end = device.deterministic && !in_segments
                                   ? kv.end
                                   : item_end(kv.begin, kv.end, std::max(step, 1), device);
    if (!has_covered && (first_end == kv.end || kv.empty())) {
      append_item(run, part, kv, WorkItem::kFinal, shape, device.costs, plan);
      continue;
    }
    const auto list_begin = static_cast<uint32_t>(plan.merge_lists.size());
    PartialLists(plan).append_to(covered.partials, plan.merge_lists);
    for (Position begin = kv.begin; begin < kv.end;) {
      const Position end = item_end(begin, kv.end, std::max(step, 1), device);
      const uint32_t partial = append_partial(part, shape, plan);
      append_item(run, part, {begin, end}, partial, shape, device.costs, plan);
      plan.merge_lists.push_back(partial);
      begin = end;
    }
    append_merge(part, list_begin, shape, plan);
  }
}

Covered append_shared(const TreeView& tree, uint32_t node, RowRange rows, const Covered& covered,
                      Position end, int32_t step, uint32_t row_tile, const RowShape& shape,
                      const DeviceDescription& device, Plan& plan) {
  Position begin = keys_in_window(tree, rows, {covered.end, end}, shape.window).begin;
  if (begin >= end) return {end, covered.partials};
  const uint32_t run = append_run(tree, node, {begin, end}, rows, shape, plan);
  PartialLists lists(plan);
  Covered result = covered;
  while (begin < end) {
    const bool whole = end - begin <= step && result.partials == Covered::kNone;
    const Position cut = whole ? end : item_end(begin, end, step, device);
    const uint32_t partial = append_partial(rows, shape, plan);
    for (uint32_t row = rows.begin; row < rows.end; row += row_tile) {
      const RowRange part{row, std::min(row + row_tile, rows.end)};
      append_item(run, part, {begin, cut}, partial, shape, device.costs, plan);
    }
    result.partials = lists.add(result.partials, partial);
    begin = cut;
  }
  result.end = end;
  return result;
}

void append_merge(RowRange rows, uint32_t list_begin, const RowShape& shape, Plan& plan) {
  plan.merges.push_back(
      {.row_begin = rows.begin,
       .row_end = rows.end,
       .heads = {0, shape.n_heads},
       .list_begin = list_begin,
       .list_count = static_cast<uint32_t>(plan.merge_lists.size()) - list_begin});
}

void sort_items(Plan& plan) {
  // Not std::stable_sort, which allocates; the order below is total.
  const auto before = [&](const WorkItem& a, const WorkItem& b) {
    if (a.cost != b.cost) return a.cost > b.cost;
    const RunPart& first = plan.parts[a.part_begin];
    const RunPart& second = plan.parts[b.part_begin];
    if (first.run != second.run) return first.run < second.run;
    if (first.row_begin != second.row_begin) return first.row_begin < second.row_begin;
    return first.kv_begin < second.kv_begin;
  };
  if (!std::ranges::is_sorted(plan.items, before)) std::ranges::sort(plan.items, before);
}

}  // namespace banyan
