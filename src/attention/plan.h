// SPDX-License-Identifier: Apache-2.0
#pragma once
// The attention plan: which rows meet which KV, in which order, in which pieces. Planners are pure
// functions from a view of the tree to this value; executors obey it. It prints as text (to_text)
// and golden tests hold it.
//
// Determinism: where a row's keys are cut into several items, the cuts lie at multiples of
// kSegmentTokens of the absolute grid, and every item but the first holds one segment. An executor
// folds 64-position blocks into a segment from zero, and segments into the item's state, left to
// right; merges fold partials left to right. Keys outside a row's band count for nothing. A row's
// result then depends on its own keys alone, not on how the plan cut them.

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "base/ids.h"
#include "tensor/kv_layout.h"

namespace banyan {

inline constexpr int kSegmentTokens = 1024;  // workers split only at multiples of this

// Which keys of a run a row sees: key p is visible iff row_pos - window < p <= row_pos.
struct Band {
  static constexpr int32_t kNone = 0;                                      // all keys of the run
  static constexpr int32_t kCausal = std::numeric_limits<int32_t>::max();  // p <= row_pos
  int32_t window = kNone;  // kNone, kCausal, or the size of a sliding window (>= 1)
  friend bool operator==(const Band&, const Band&) = default;
};

// Query heads [begin, end), all of one KV head.
struct HeadRange {
  int32_t kv_head = 0;
  int32_t begin = 0;
  int32_t end = 0;
  friend bool operator==(const HeadRange&, const HeadRange&) = default;
};

// These KV positions are seen by these rows in these heads.
struct Run {
  uint32_t ref_begin = 0;  // into Plan::refs; the refs cover [kv_begin, kv_begin + kv_len)
  uint32_t ref_count = 0;
  Position kv_begin = 0;
  int32_t kv_len = 0;
  uint32_t row_begin = 0;
  uint32_t row_end = 0;
  HeadRange heads;
  Band band;
};

// A part of a run sized for one worker.
struct WorkItem {
  static constexpr uint32_t kFinal = std::numeric_limits<uint32_t>::max();
  uint32_t run = 0;
  uint32_t ref_begin = 0;  // into Plan::refs: the ref that holds kv_begin
  Position kv_begin = 0;   // [kv_begin, kv_end), absolute, within the run
  Position kv_end = 0;
  uint32_t row_begin = 0;  // [row_begin, row_end), absolute, within the run
  uint32_t row_end = 0;
  uint32_t partial = kFinal;  // kFinal: these are all keys of these rows; else index of a partial
  uint64_t cost = 0;          // relative; items are listed with the largest first
};

// State of unfinished rows: o [rows][heads][head_dim] (not divided by l), m and l [rows][heads],
// all f32, at these offsets (in floats) of the executor's workspace.
struct Partial {
  uint32_t row_begin = 0;
  uint32_t row_end = 0;
  HeadRange heads;
  uint64_t o_offset = 0;
  uint64_t ml_offset = 0;  // m first, then l
};

// Folds partials, in the order listed, into the final output of rows [row_begin, row_end).
struct Merge {
  uint32_t row_begin = 0;
  uint32_t row_end = 0;
  HeadRange heads;
  uint32_t list_begin = 0;  // into Plan::merge_lists: indices of partials that cover these rows
  uint32_t list_count = 0;
};

struct Plan {
  std::vector<PanelRef> refs;
  std::vector<Run> runs;
  std::vector<WorkItem> items;
  std::vector<Partial> partials;
  std::vector<Merge> merges;
  std::vector<uint32_t> merge_lists;
  std::vector<Position> row_pos;  // [n_rows] absolute position of each row
  uint64_t workspace_floats = 0;  // what the partials need
  uint64_t kv_tokens_read = 0;    // positions read, summed over items of KV head 0

  void clear();  // empties, keeps capacity
};

// What a planner may know of the tree. Nodes are listed depth-first, a parent before its children;
// rows are numbered in that order, so a node's users are one interval.
struct NodeView {
  static constexpr uint32_t kNoParent = std::numeric_limits<uint32_t>::max();
  uint32_t parent = kNoParent;
  Position kv_begin = 0;
  int32_t kv_len = 0;
  uint32_t ref_begin = 0;  // into TreeView::refs
  uint32_t ref_count = 0;
  uint32_t row_begin = 0;  // rows that see this node, wholly or up to a band
  uint32_t row_end = 0;
};

// One live sequence of the step: its new tokens are rows [row_begin, row_end), its KV (the new
// tokens' included) is the path from the root to `leaf`.
struct SequenceView {
  uint32_t leaf = 0;  // index into TreeView::nodes
  uint32_t row_begin = 0;
  uint32_t row_end = 0;
};

struct TreeView {
  std::span<const NodeView> nodes;
  std::span<const PanelRef> refs;
  std::span<const SequenceView> sequences;  // row intervals ascend and tile [0, n_rows)
  std::span<const Position> row_pos;        // [n_rows]
};

struct RowShape {
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  int32_t window = Band::kCausal;  // of this layer group
};

struct DeviceDescription {
  int n_workers = 1;
  int prefill_row_tile = 64;  // rows of one item where a sequence has many
};

enum class PlanMethod {
  kAuto,   // the planner that is predicted fastest; today: paged
  kDense,  // one sequence, blocks of rows against its whole path
  kPaged,  // each sequence by itself, heads of a KV head packed
};

// Fills `plan` (cleared first, capacity reused with slack: steps that grow by a few tokens do not
// allocate). Requires rows that tile [0, n_rows) and, for kDense, exactly one sequence. Ensures:
// every visible (row, position, head) is covered once; a row that sees no key still has an item.
void make_plan(PlanMethod method, const TreeView& tree, const RowShape& shape,
               const DeviceDescription& device, Plan& plan);

// The plan as text, one line for each run, item and merge; stable, for golden tests and people.
std::string to_text(const Plan& plan);

const char* name(PlanMethod method);

}  // namespace banyan
