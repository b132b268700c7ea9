// SPDX-License-Identifier: Apache-2.0
#pragma once
// Items of several parts that follow each other in depth-first order: a worker keeps the states of
// their rows on chip from one to the next. Not for deterministic plans.

#include <cstdint>

#include "attention/plan/cut.h"

namespace banyan {

// While an item is open nothing else may append parts or items to the plan.
class ItemPacker {
 public:
  ItemPacker(const TreeView& tree, const RowShape& shape, const DeviceDescription& device,
             Plan& plan)
      : tree_(tree), shape_(shape), costs_(device.costs), plan_(plan) {}

  // Appends a part to the open item: `keys`, which are not empty and lie on the path to `node`, for
  // `rows`. Returns the item's partial, which has its rows and its place from finish() on.
  uint32_t add(uint32_t node, RowRange rows, KvRange keys);
  void close() { is_open_ = false; }

  int32_t keys() const { return is_open_ ? keys_ : 0; }  // of the open item

  // Of the open item with this part more.
  uint64_t cost_with(RowRange rows, KvRange keys) const {
    return cost_of(rows, keys) +
           (is_open_ ? plan_.items.back().cost + static_cast<uint64_t>(costs_.part) : 0);
  }
  uint64_t cost_of(RowRange rows, KvRange keys) const {
    return item_cost(rows, heads_per_kv_head(shape_), keys, costs_);
  }

  // `rows` have no keys but those in the partials of this list.
  void finish_rows(RowRange rows, uint32_t list) {
    plan_.scratch.finished.push_back({rows.begin, rows.end, list});
  }
  // Once, at the end: items that hold all keys of their rows need no partial; the others get
  // theirs, and finished rows their merges.
  void finish();

 private:
  const TreeView& tree_;
  const RowShape& shape_;
  const PlanCosts& costs_;
  Plan& plan_;
  bool is_open_ = false;
  int32_t keys_ = 0;
};

}  // namespace banyan
