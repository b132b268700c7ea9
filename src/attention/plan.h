// SPDX-License-Identifier: Apache-2.0
#pragma once
// The attention plan: which rows meet which KV, in which order, in which pieces. Planners are pure
// functions from a view of the tree to this value; executors obey it. It prints as text (to_text)
// and golden tests hold it.
//
// An executor folds 64-position blocks into segments of kSegmentTokens from zero, and segments into
// the item's state, left to right; merges fold partials left to right. Keys outside a row's band
// count for nothing.
//
// Determinism: in a deterministic plan, where a row's keys are cut into several items, the cuts lie
// at segment borders of the absolute grid, and every item but the first holds one segment. A row's
// result then depends on its own keys alone, not on how the plan cut them or who shares them.
// Other plans cut shared nodes where these end, and else at multiples of 64 positions.
// Of an item with several parts the blocks fold into its state one by one.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "base/ids.h"
#include "tensor/kv_layout.h"

namespace banyan {

inline constexpr int kSegmentTokens = 1024;  // deterministic plans cut only at multiples of this

// Which keys of a run a row sees: key p is visible iff row_pos - window < p <= row_pos.
struct Band {
  static constexpr int32_t kNone = 0;                                      // all keys of the run
  static constexpr int32_t kCausal = std::numeric_limits<int32_t>::max();  // p <= row_pos
  int32_t window = kNone;  // kNone, kCausal, or the size of a sliding window (>= 1)
  friend bool operator==(const Band&, const Band&) = default;
};

// Query heads [begin, end): some of one KV head, or all of several.
struct HeadRange {
  int32_t begin = 0;
  int32_t end = 0;
  friend bool operator==(const HeadRange&, const HeadRange&) = default;
};

// Where the consecutive positions [kv_begin, kv_end) lie: *refs holds kv_begin, and the refs behind
// it hold what follows. Borrowed from the tree: good until it changes.
struct Stretch {
  const PanelRef* refs = nullptr;
  Position kv_begin = 0;
  Position kv_end = 0;
  bool on_grid = false;  // one ref for each panel of the grid, as trees keep them
};

// These KV positions are seen by these rows in these heads.
struct Run {
  uint32_t stretch_begin = 0;  // into Plan::stretches, which cover [kv_begin, kv_begin + kv_len)
  uint32_t stretch_count = 0;
  Position kv_begin = 0;
  int32_t kv_len = 0;
  uint32_t row_begin = 0;
  uint32_t row_end = 0;
  HeadRange heads;
  Band band;
};

// These keys of a run, for these of its rows.
struct RunPart {
  uint32_t run = 0;
  uint32_t stretch = 0;   // into Plan::stretches: the one that holds kv_begin
  uint32_t ref = 0;       // of that stretch: the one that holds kv_begin
  Position kv_begin = 0;  // [kv_begin, kv_end), absolute, within the run
  Position kv_end = 0;
  uint32_t row_begin = 0;  // [row_begin, row_end), absolute, within the run
  uint32_t row_end = 0;
};

// Parts of runs that are folded one after the other into the states of these rows. Each KV head is
// one worker's work, who keeps the states on chip from part to part. All parts have the same heads.
struct WorkItem {
  static constexpr uint32_t kFinal = std::numeric_limits<uint32_t>::max();
  uint32_t part_begin = 0;  // into Plan::parts
  uint32_t part_count = 0;  // at least 1; deterministic plans have no more
  uint32_t row_begin = 0;   // [row_begin, row_end), which hold the rows of the parts
  uint32_t row_end = 0;
  uint32_t partial = kFinal;  // kFinal: these are all keys of these rows; else index of a partial,
                              // which may hold more rows than these
  uint64_t cost = 0;          // of one KV head, relative; items are listed with the largest first
};

// State of unfinished rows, all f32: o [KV head][row][head][head_dim] (not divided by l), m and l
// [KV head][row][head], at these offsets (in floats) of the executor's workspace. `head` counts
// those of one KV head. Without rows: of an item that turned out to be final.
struct Partial {
  uint32_t row_begin = 0;
  uint32_t row_end = 0;
  HeadRange heads;
  uint64_t o_offset = 0;
  uint64_t ml_offset = 0;  // m first, then l

  uint64_t states() const { return uint64_t{row_end - row_begin} * (heads.end - heads.begin); }
  // Index of (row, head) among the states, with `group` query heads for each KV head.
  uint64_t state(uint32_t row, int head, int group) const {
    const int own = head - heads.begin;
    const int of_each = std::min(group, heads.end - heads.begin);
    return (uint64_t{row_end - row_begin} * (own / of_each) + (row - row_begin)) * of_each +
           own % of_each;
  }
};

// Folds partials, in the order listed, into the final output of rows [row_begin, row_end). A
// partial may hold more rows than these, and is then in several lists.
struct Merge {
  uint32_t row_begin = 0;
  uint32_t row_end = 0;
  HeadRange heads;
  uint32_t list_begin = 0;  // into Plan::merge_lists: indices of partials that cover these rows
  uint32_t list_count = 0;
};

// What planners note on their way; kept for its capacity.
struct PlannerScratch {
  struct Node {
    uint32_t sequences = 0;  // that end in it or below
    uint32_t reads = 0;      // of its KV, were each of these by itself
    Position covered = 0;    // keys before it are in partials
    uint32_t partials = 0;   // the last of their list
  };
  std::vector<Node> nodes;              // as TreeView::nodes
  std::vector<uint32_t> partial_lists;  // see PartialLists
  uint32_t advances = 0;                // since the plan was made
  bool is_new_each_step = false;        // never advanced
  std::vector<uint32_t> newest_parts;   // by row, from the first advance on
  struct Rows {
    uint32_t begin = 0;
    uint32_t end = 0;
    uint32_t partials = 0;  // the last of their list
  };
  std::vector<Rows> finished;        // whose keys are all in items
  std::vector<uint32_t> rows_alone;  // by partial: those of which it has all keys
};

struct Plan {
  std::vector<Stretch> stretches;
  std::vector<Run> runs;
  std::vector<RunPart> parts;
  std::vector<WorkItem> items;
  std::vector<Partial> partials;
  std::vector<Merge> merges;
  std::vector<uint32_t> merge_lists;
  std::vector<Position> row_pos;  // [n_rows] absolute position of each row
  uint64_t workspace_floats = 0;  // what the partials need
  uint64_t kv_tokens_read = 0;    // positions read by each KV head, summed over items
  PlannerScratch scratch;

  void clear();  // empties, keeps capacity

  std::span<const RunPart> parts_of(const WorkItem& item) const {
    return std::span(parts).subspan(item.part_begin, item.part_count);
  }
  HeadRange heads_of(const WorkItem& item) const { return runs[parts[item.part_begin].run].heads; }
};

// What a planner may know of the tree. Nodes are listed depth-first, a parent before its children;
// rows are numbered in that order, so a node's users are one interval.
struct NodeView {
  static constexpr uint32_t kNoParent = std::numeric_limits<uint32_t>::max();
  uint32_t parent = kNoParent;
  Position kv_begin = 0;
  int32_t kv_len = 0;
  std::span<const PanelRef> refs = {};  // cover [kv_begin, kv_begin + kv_len)
  uint32_t row_begin = 0;               // rows that see this node, wholly or up to a band
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
  std::span<const SequenceView> sequences;  // row intervals ascend and tile [0, n_rows)
  std::span<const Position> row_pos;        // [n_rows]
};

struct RowShape {
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  int32_t window = Band::kCausal;  // of this layer group
};

// What a planner weighs, in the time that one packed row (row x head) takes for one key.
struct PlanCosts {
  double read = 8;         // to read K and V of a key once more than sharing it would
  double cached_read = 4;  // the same as a part of an item's time, where caches help
  double partial = 16;     // to write and fold the unfinished state of a packed row
  double item = 500;       // to begin a piece of work
  double part = 64;        // to go from one part of it to the next
};

struct DeviceDescription {
  int n_workers = 1;
  int prefill_row_tile = 64;  // rows of one item where a sequence has many
  uint32_t pass_rows = 256;   // packed rows that one pass serves: more read the KV again
  bool deterministic = true;  // cut only where a row's result cannot tell
  int32_t block = 128;        // of kNodeChunk and kFlatten (DeFT, arXiv 2404.00242, section 3.3)
  PlanCosts costs = {};
};

enum class PlanMethod {
  kAuto,       // node by node, what is predicted to be fastest
  kDense,      // one sequence, blocks of rows against its whole path
  kPaged,      // each sequence by itself, heads of a KV head packed
  kTwoPhase,   // shared nodes chunk by chunk for all their rows, then each sequence by itself
  kNode,       // each node for all its rows
  kNodeChunk,  // the same in chunks of DeviceDescription::block positions
  kFlatten,    // blocks of so many positions of the depth-first order, across the borders of nodes
};

// Fills `plan` (cleared first, capacity reused with slack: steps that grow by a few tokens do not
// allocate). Requires rows that tile [0, n_rows) and, for kDense, exactly one sequence. Ensures:
// every visible (row, position, head) is covered once; a row that sees no key still has an item.
void make_plan(PlanMethod method, const TreeView& tree, const RowShape& shape,
               const DeviceDescription& device, Plan& plan);

// Moves a plan of a decode step (a row for each sequence) on to the next one, where `tree` is as it
// was but for one more token in every leaf. False, with the plan as it was, where such steps do not
// follow each other so, and where the cuts would not stay (after a number of steps, at a segment
// border of deterministic plans, with windows, of kNode, kNodeChunk and kFlatten): make_plan()
// then. Costs of items stay as they were.
bool advance_plan(const TreeView& tree, const DeviceDescription& device, Plan& plan);

// Where the positions of a part lie, panel by panel. Goes on into the rest of its run.
class RefWalk {
 public:
  RefWalk(const Plan& plan, const RunPart& part)
      : stretch_(plan.stretches.data() + part.stretch), ref_(part.ref), position_(part.kv_begin) {}

  // Positions [begin, end) in the slots of `panel` that their grid gives them.
  struct Piece {
    PanelId panel = 0;
    Position begin = 0;
    Position end = 0;
  };
  // Requires position() within the run.
  Piece next() {
    const PanelRef& ref = stretch_->refs[ref_++];
    const Position ref_end = position_ - position_ % kPanelTokens + ref.slot_end;
    const Piece piece{ref.panel, position_, std::min(ref_end, stretch_->kv_end)};
    position_ = piece.end;
    if (position_ == stretch_->kv_end) {
      ++stretch_;
      ref_ = 0;
    }
    return piece;
  }
  Position position() const { return position_; }

 private:
  const Stretch* stretch_;
  uint32_t ref_;
  Position position_;
};

// The plan as text, one line for each run, item and merge; stable, for golden tests and people.
std::string to_text(const Plan& plan);

const char* name(PlanMethod method);

}  // namespace banyan
