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

// Largest cost first; equal ones by run, row and position.
void sort_items(Plan& plan);

}  // namespace banyan
