// SPDX-License-Identifier: Apache-2.0
#pragma once
// How runs become work items: tiles of rows while there are many, then parts of KV where few rows
// meet much of it. In deterministic plans the cut changes who computes what, never a result
// (plan.h).

#include "attention/plan.h"

namespace banyan {

struct RowRange {
  uint32_t begin = 0;
  uint32_t end = 0;
  uint32_t size() const { return end - begin; }
};

struct KvRange {
  Position begin = 0;
  Position end = 0;
  bool empty() const { return begin >= end; }
};

inline uint32_t heads_per_kv_head(const RowShape& shape) {
  return shape.n_heads / shape.n_kv_heads;
}

// The partials that hold the first keys of some rows, before their sequences' own runs.
struct Covered {
  static constexpr uint32_t kNone = WorkItem::kFinal;
  Position end = 0;           // keys before it are done
  uint32_t partials = kNone;  // the last of a list that PartialLists keeps
};

// Lists that share their beginnings, as paths of a tree do; kept in the plan's scratch.
class PartialLists {
 public:
  explicit PartialLists(Plan& plan) : entries_(plan.scratch.partial_lists) {}
  // `partial` behind the list that ends at `previous`.
  uint32_t add(uint32_t previous, uint32_t partial) {
    entries_.push_back(partial);
    entries_.push_back(previous);
    return static_cast<uint32_t>(entries_.size() - 2);
  }
  // The same, but as it is where `partial` is its last already, and none anew where the last call
  // made the same.
  uint32_t add_once(uint32_t previous, uint32_t partial) {
    if (previous != Covered::kNone && entries_[previous] == partial) return previous;
    const size_t n = entries_.size();
    if (n > 0 && entries_[n - 2] == partial && entries_[n - 1] == previous) {
      return static_cast<uint32_t>(n - 2);
    }
    return add(previous, partial);
  }
  // The partial of a list that has no other; kNone of others.
  uint32_t only(uint32_t last) const {
    return entries_[last + 1] == Covered::kNone ? entries_[last] : Covered::kNone;
  }
  // Appends the list that ends at `last` to `out`, first one first.
  void append_to(uint32_t last, std::vector<uint32_t>& out) const;

 private:
  std::vector<uint32_t>& entries_;  // pairs: partial, previous
};

// The largest cost of one item's KV head that leaves workers evenly busy.
uint64_t item_cost_limit(uint64_t total_cost, const DeviceDescription& device);

// Keys of each part so that no part costs more than `cost_limit` and all about the same.
int32_t choose_step(RowRange rows, KvRange kv, const RowShape& shape, const PlanCosts& costs,
                    uint64_t cost_limit);

// Keys of the path that any of the rows sees, from `from` on; begins at a panel border or at
// `from`.
KvRange visible_keys(const TreeView& tree, const SequenceView& sequence, RowRange rows,
                     Position from, int32_t window);

// Those of a node's keys that any of the rows may see, from a panel border on.
KvRange keys_in_window(const TreeView& tree, RowRange rows, KvRange keys, int32_t window);

// Cost of these rows over these keys, of one KV head.
uint64_t item_cost(RowRange rows, uint32_t heads, KvRange kv, const PlanCosts& costs);

// Cost of what a sequence's rows see from position `from` on, over all KV heads.
uint64_t sequence_cost(const TreeView& tree, const SequenceView& sequence, Position from,
                       const RowShape& shape, const DeviceDescription& device);

// Appends the run of what a sequence's rows see behind `covered`, its items, and, where these are
// several or something is covered, its merges. Items above `cost_limit` are cut further where that
// is allowed.
void append_sequence(const TreeView& tree, const SequenceView& sequence, const Covered& covered,
                     const RowShape& shape, const DeviceDescription& device, uint64_t cost_limit,
                     Plan& plan);

// Appends the run of all `rows`, which see `node` and share its path, over the keys behind
// `covered` up to `end`; cut into parts of about `step` keys (in deterministic plans segments),
// each with a partial, and these into items of at most `row_tile` rows. Returns what is covered
// then.
Covered append_shared(const TreeView& tree, uint32_t node, RowRange rows, const Covered& covered,
                      Position end, int32_t step, uint32_t row_tile, const RowShape& shape,
                      const DeviceDescription& device, Plan& plan);

// Whether rows are so few that reading their KV may take longer than the arithmetic.
bool are_few(RowRange rows, const RowShape& shape);

// Appends the run of `rows` over `keys`, which lie on the path to `node`, and returns its index.
uint32_t append_run(const TreeView& tree, uint32_t node, KvRange keys, RowRange rows,
                    const RowShape& shape, Plan& plan);

// Appends a part of a run.
void append_part(uint32_t run, RowRange rows, KvRange keys, Plan& plan);

// Room in the workspace for the states of `rows`.
Partial make_partial(RowRange rows, const RowShape& shape, Plan& plan);

// Appends the merge of `rows` from the partials that merge_lists has from `list_begin` on.
void append_merge(RowRange rows, uint32_t list_begin, const RowShape& shape, Plan& plan);

// Largest cost first; equal ones by run, row and position.
void sort_items(Plan& plan);

}  // namespace banyan
