// SPDX-License-Identifier: Apache-2.0
#include "attention/plan/cut.h"

#include <algorithm>

#include "base/check.h"

namespace banyan {
namespace {

// To read a key costs about as much as to use it with this many packed rows (rows x heads).
constexpr uint64_t kReadCost = 4;

// A tile of at least this many packed rows is bound by arithmetic, not by reading KV: only smaller
// ones are cut by segments. It also bounds the partials: 32 packed rows leave 32 * (head_dim + 2)
// floats for each 2 * 1024 * head_dim elements of KV.
constexpr uint32_t kArithmeticBoundRows = 32;

// Items for each worker that the largest may hold back: 8 bound the idle tail at 1/8 of the step.
constexpr uint64_t kItemsPerWorker = 8;

// Grows with slack, so that steps which add a token at a time reach a steady state.
template <class T>
void reserve_more(std::vector<T>& v, size_t extra) {
  const size_t needed = v.size() + extra;
  if (needed > v.capacity()) v.reserve(needed + needed / 2 + 64);
}

struct RowRange {
  uint32_t begin = 0;
  uint32_t end = 0;
};

struct KvRange {
  Position begin = 0;
  Position end = 0;
};

// Keys that any of the rows sees; begins at a panel border, which is also a border of refs.
KvRange visible_keys(const TreeView& tree, const SequenceCut& cut, RowRange rows, int32_t window) {
  const Position first = tree.row_pos[rows.begin];
  const Position last = tree.row_pos[rows.end - 1];
  const Position begin = first < window ? 0 : first - window + 1;
  const Position aligned = std::max(cut.path_begin, begin - begin % kPanelTokens);
  return {aligned, std::max(aligned, std::min(cut.path_end, last + 1))};
}

uint64_t item_cost(RowRange rows, uint32_t heads, KvRange kv) {
  const uint64_t packed = uint64_t{rows.end - rows.begin} * heads;
  return (packed + kReadCost) * static_cast<uint64_t>(kv.end - kv.begin);
}

uint32_t heads_per_kv_head(const RowShape& shape) { return shape.n_heads / shape.n_kv_heads; }

// Appends the refs of [begin, path_end). Walks from the leaf up, because nodes know their parents
// only, and fills from the back.
void append_path_refs(const TreeView& tree, const SequenceCut& cut, Position begin, Plan& plan) {
  const auto refs_needed = [&](const NodeView& node) {
    if (node.kv_begin >= begin) return node.ref_count;
    uint32_t count = 0;
    for (Position position = node.kv_begin + node.kv_len; position > begin; ++count) {
      BANYAN_CHECK(count < node.ref_count, "refs do not cover their node");
      const PanelRef& ref = tree.refs[node.ref_begin + node.ref_count - 1 - count];
      position -= ref.slot_end - ref.slot_begin;
    }
    return count;
  };
  const auto for_each_node = [&](auto visit) {
    for (uint32_t n = cut.sequence.leaf; n != NodeView::kNoParent; n = tree.nodes[n].parent) {
      const NodeView& node = tree.nodes[n];
      if (node.kv_len > 0 && node.kv_begin + node.kv_len <= begin) return;
      visit(node);
    }
  };
  size_t total = 0;
  for_each_node([&](const NodeView& node) { total += refs_needed(node); });
  reserve_more(plan.refs, total);
  plan.refs.resize(plan.refs.size() + total);
  auto end = plan.refs.end();
  for_each_node([&](const NodeView& node) {
    const auto node_end = tree.refs.begin() + node.ref_begin + node.ref_count;
    end = std::copy_backward(node_end - refs_needed(node), node_end, end);
  });
}

// Room for the items of rows in tiles of `tile`, all of them split or none.
void reserve_items(const SequenceCut& cut, KvRange kv, uint32_t tile, const RowShape& shape,
                   Plan& plan) {
  const uint32_t n_rows = cut.sequence.row_end - cut.sequence.row_begin;
  const size_t n_tiles = size_t{n_rows + tile - 1} / tile * shape.n_kv_heads;
  const bool may_split = tile == 1 || tile * heads_per_kv_head(shape) <= kArithmeticBoundRows;
  const size_t n_segments = kv.end / kSegmentTokens - kv.begin / kSegmentTokens + 1;
  reserve_more(plan.runs, shape.n_kv_heads);
  reserve_more(plan.items, may_split ? n_tiles * n_segments : n_tiles);
  if (!may_split) return;
  reserve_more(plan.partials, n_tiles * n_segments);
  reserve_more(plan.merge_lists, n_tiles * n_segments);
  reserve_more(plan.merges, n_tiles);
}

// Finds refs by position, forwards.
class RefCursor {
 public:
  RefCursor(const Plan& plan, const Run& run)
      : plan_(&plan), index_(run.ref_begin), begin_(run.kv_begin) {}

  // The ref that holds `position`; positions must not fall from call to call.
  uint32_t advance_to(Position position) {
    while (true) {
      const PanelRef& ref = plan_->refs[index_];
      const Position end = begin_ + (ref.slot_end - ref.slot_begin);
      if (position < end) return index_;
      begin_ = end;
      ++index_;
    }
  }

 private:
  const Plan* plan_;
  uint32_t index_;
  Position begin_;
};

// Appends the items of one tile of rows of run `run_index`: one final item, or one for each segment
// with partials and their merge.
void append_tile(uint32_t run_index, RowRange rows, KvRange kv, bool split, const RowShape& shape,
                 RefCursor& tile_cursor, Plan& plan) {
  if (kv.begin < kv.end) tile_cursor.advance_to(kv.begin);
  RefCursor cursor = tile_cursor;  // the next tile begins before this one ends
  const HeadRange heads = plan.runs[run_index].heads;
  const uint32_t n_heads = heads.end - heads.begin;
  WorkItem item{.run = run_index, .row_begin = rows.begin, .row_end = rows.end};
  const uint32_t list_begin = static_cast<uint32_t>(plan.merge_lists.size());
  Position begin = kv.begin;
  do {
    const Position segment_end = begin - begin % kSegmentTokens + kSegmentTokens;
    item.kv_begin = begin;
    item.kv_end = split ? std::min(kv.end, segment_end) : kv.end;
    item.ref_begin = kv.begin < kv.end ? cursor.advance_to(begin) : 0;
    item.cost = item_cost(rows, n_heads, {item.kv_begin, item.kv_end});
    if (split) {
      const uint64_t packed = uint64_t{rows.end - rows.begin} * n_heads;
      const uint64_t o_floats = packed * shape.head_dim;
      item.partial = static_cast<uint32_t>(plan.partials.size());
      plan.merge_lists.push_back(item.partial);
      plan.partials.push_back({.row_begin = rows.begin,
                               .row_end = rows.end,
                               .heads = heads,
                               .o_offset = plan.workspace_floats,
                               .ml_offset = plan.workspace_floats + o_floats});
      // Rounded up to cache lines: two workers never write the same one.
      plan.workspace_floats += (o_floats + 2 * packed + 15) / 16 * 16;
    }
    plan.items.push_back(item);
    begin = item.kv_end;
  } while (begin < kv.end);
  if (split) {
    plan.merges.push_back(
        {.row_begin = rows.begin,
         .row_end = rows.end,
         .heads = heads,
         .list_begin = list_begin,
         .list_count = static_cast<uint32_t>(plan.merge_lists.size()) - list_begin});
  }
}

// How far a plan has been filled.
struct Extent {
  size_t runs, items, partials, merges, merge_lists;
  uint64_t workspace_floats;
};

Extent extent(const Plan& plan) {
  return {plan.runs.size(),   plan.items.size(),       plan.partials.size(),
          plan.merges.size(), plan.merge_lists.size(), plan.workspace_floats};
}

// Repeats what was appended since `from`, one run of KV head 0, for each further KV head.
void repeat_for_other_heads(const Extent& from, const RowShape& shape, Plan& plan) {
  const Extent to = extent(plan);
  const uint32_t n_partials = static_cast<uint32_t>(to.partials - from.partials);
  const uint32_t n_lists = static_cast<uint32_t>(to.merge_lists - from.merge_lists);
  const uint64_t floats = to.workspace_floats - from.workspace_floats;
  const int heads = static_cast<int>(heads_per_kv_head(shape));
  for (int kv_head = 1; kv_head < shape.n_kv_heads; ++kv_head) {
    const HeadRange range{kv_head, kv_head * heads, (kv_head + 1) * heads};
    Run run = plan.runs[from.runs];
    run.heads = range;
    plan.runs.push_back(run);
    for (size_t i = from.items; i < to.items; ++i) {
      WorkItem item = plan.items[i];
      item.run += kv_head;
      if (item.partial != WorkItem::kFinal) item.partial += kv_head * n_partials;
      plan.items.push_back(item);
    }
    for (size_t i = from.partials; i < to.partials; ++i) {
      Partial partial = plan.partials[i];
      partial.heads = range;
      partial.o_offset += kv_head * floats;
      partial.ml_offset += kv_head * floats;
      plan.partials.push_back(partial);
    }
    for (size_t i = from.merges; i < to.merges; ++i) {
      Merge merge = plan.merges[i];
      merge.heads = range;
      merge.list_begin += kv_head * n_lists;
      plan.merges.push_back(merge);
    }
    for (size_t i = from.merge_lists; i < to.merge_lists; ++i) {
      plan.merge_lists.push_back(plan.merge_lists[i] + kv_head * n_partials);
    }
    plan.workspace_floats += floats;
  }
}

// Rows of one item: fewer than the device's tile where items of that size would cost too much and
// still hold enough rows to be bound by arithmetic.
uint32_t choose_row_tile(const TreeView& tree, const SequenceCut& cut, const RowShape& shape,
                         const DeviceDescription& device, uint64_t cost_limit) {
  const RowRange rows{cut.sequence.row_begin, cut.sequence.row_end};
  const uint32_t heads = heads_per_kv_head(shape);
  uint32_t tile = std::min<uint32_t>(device.prefill_row_tile, rows.end - rows.begin);
  while (tile * heads > kArithmeticBoundRows) {
    const RowRange last{rows.end - tile, rows.end};
    if (item_cost(last, heads, visible_keys(tree, cut, last, shape.window)) <= cost_limit) break;
    tile = (tile + 1) / 2;
    if (tile == 1) break;
  }
  return tile;
}

bool spans_segments(KvRange kv) {
  return kv.end > kv.begin && kv.begin / kSegmentTokens != (kv.end - 1) / kSegmentTokens;
}

}  // namespace

SequenceCut measure_sequence(const TreeView& tree, const SequenceView& sequence,
                             const RowShape& shape, const DeviceDescription& device) {
  SequenceCut cut{.sequence = sequence};
  const NodeView& leaf = tree.nodes[sequence.leaf];
  cut.path_begin = cut.path_end = leaf.kv_begin + leaf.kv_len;
  for (uint32_t n = sequence.leaf; n != NodeView::kNoParent; n = tree.nodes[n].parent) {
    const NodeView& node = tree.nodes[n];
    if (node.kv_len == 0) continue;
    BANYAN_CHECK(node.kv_begin + node.kv_len == cut.path_begin, "a path has a gap");
    cut.path_begin = node.kv_begin;
  }
  for (uint32_t row = sequence.row_begin; row + 1 < sequence.row_end; ++row) {
    BANYAN_CHECK(tree.row_pos[row] < tree.row_pos[row + 1], "rows must ascend in position");
  }
  const uint32_t heads = heads_per_kv_head(shape);
  const uint32_t tile = device.prefill_row_tile;
  for (uint32_t row = sequence.row_begin; row < sequence.row_end; row += tile) {
    const RowRange rows{row, std::min(row + tile, sequence.row_end)};
    cut.cost += item_cost(rows, heads, visible_keys(tree, cut, rows, shape.window));
  }
  cut.cost *= shape.n_kv_heads;
  return cut;
}

uint64_t item_cost_limit(uint64_t total_cost, const DeviceDescription& device) {
  if (device.n_workers <= 1) return std::numeric_limits<uint64_t>::max();
  return total_cost / (kItemsPerWorker * device.n_workers);
}

void append_sequence(const TreeView& tree, const SequenceCut& cut, const RowShape& shape,
                     const DeviceDescription& device, uint64_t cost_limit, Plan& plan) {
  const RowRange rows{cut.sequence.row_begin, cut.sequence.row_end};
  if (rows.begin == rows.end) return;
  const KvRange all = visible_keys(tree, cut, rows, shape.window);
  const int heads = static_cast<int>(heads_per_kv_head(shape));
  const uint32_t ref_begin = static_cast<uint32_t>(plan.refs.size());
  append_path_refs(tree, cut, all.begin, plan);

  const uint32_t tile = choose_row_tile(tree, cut, shape, device, cost_limit);
  reserve_items(cut, all, tile, shape, plan);
  const Extent before = extent(plan);
  const uint32_t run_index = static_cast<uint32_t>(plan.runs.size());
  plan.runs.push_back({.ref_begin = ref_begin,
                       .ref_count = static_cast<uint32_t>(plan.refs.size()) - ref_begin,
                       .kv_begin = all.begin,
                       .kv_len = std::max(0, cut.path_end - all.begin),
                       .row_begin = rows.begin,
                       .row_end = rows.end,
                       .heads = {0, 0, heads},
                       .band = {shape.window}});
  RefCursor cursor(plan, plan.runs.back());
  for (uint32_t row = rows.begin; row < rows.end; row += tile) {
    const RowRange tile_rows{row, std::min(row + tile, rows.end)};
    const KvRange kv = visible_keys(tree, cut, tile_rows, shape.window);
    const uint32_t n_rows = tile_rows.end - tile_rows.begin;
    const bool few = n_rows == 1 || n_rows * heads <= kArithmeticBoundRows;
    const bool split = few && spans_segments(kv) && item_cost(tile_rows, heads, kv) > cost_limit;
    append_tile(run_index, tile_rows, kv, split, shape, cursor, plan);
    plan.kv_tokens_read += kv.end - kv.begin;
  }
  repeat_for_other_heads(before, shape, plan);
}

void sort_items(Plan& plan) {
  // Not std::stable_sort, which allocates; the order below is total.
  std::sort(plan.items.begin(), plan.items.end(), [](const WorkItem& a, const WorkItem& b) {
    if (a.cost != b.cost) return a.cost > b.cost;
    if (a.run != b.run) return a.run < b.run;
    if (a.row_begin != b.row_begin) return a.row_begin < b.row_begin;
    return a.kv_begin < b.kv_begin;
  });
}

}  // namespace banyan
