// SPDX-License-Identifier: Apache-2.0
#include "attention/plan/pack.h"

#include <algorithm>

namespace banyan {
namespace {

// In PlannerScratch::rows_alone: of an item that needs no partial.
constexpr uint32_t kNeedsNone = ~uint32_t{0};

bool is_empty(const Partial& partial) { return partial.row_begin == partial.row_end; }

}  // namespace

uint32_t ItemPacker::add(uint32_t node, RowRange rows, KvRange keys) {
  if (!is_open_) {
    plan_.items.push_back({.part_begin = static_cast<uint32_t>(plan_.parts.size()),
                           .row_begin = rows.begin,
                           .row_end = rows.end,
                           .partial = static_cast<uint32_t>(plan_.partials.size())});
    plan_.partials.emplace_back();
    is_open_ = true;
    keys_ = 0;
  }
  WorkItem& item = plan_.items.back();
  item.row_begin = std::min(item.row_begin, rows.begin);
  item.row_end = std::max(item.row_end, rows.end);
  item.cost = item.part_count > 0 ? cost_with(rows, keys) : cost_of(rows, keys);
  ++item.part_count;
  keys_ += keys.end - keys.begin;
  append_part(append_run(tree_, node, keys, rows, shape_, plan_), rows, keys, plan_);
  return item.partial;
}

void ItemPacker::finish() {
  const PartialLists lists(plan_);
  std::vector<uint32_t>& alone = plan_.scratch.rows_alone;
  alone.assign(plan_.partials.size(), 0);
  for (const PlannerScratch::Rows& rows : plan_.scratch.finished) {
    const uint32_t only = lists.only(rows.partials);
    if (only != Covered::kNone) alone[only] += rows.end - rows.begin;
  }
  for (WorkItem& item : plan_.items) {
    if (item.partial == WorkItem::kFinal || !is_empty(plan_.partials[item.partial])) continue;
    const RowRange rows{item.row_begin, item.row_end};
    if (alone[item.partial] == rows.size()) {
      alone[item.partial] = kNeedsNone;
      item.partial = WorkItem::kFinal;
    } else {
      plan_.partials[item.partial] = make_partial(rows, shape_, plan_);
    }
  }
  uint32_t before = Covered::kNone;  // list of the last merge
  for (const PlannerScratch::Rows& rows : plan_.scratch.finished) {
    const uint32_t only = lists.only(rows.partials);
    if (only != Covered::kNone && alone[only] == kNeedsNone) continue;
    if (before == rows.partials && plan_.merges.back().row_end == rows.begin) {
      plan_.merges.back().row_end = rows.end;
      continue;
    }
    before = rows.partials;
    const auto list_begin = static_cast<uint32_t>(plan_.merge_lists.size());
    lists.append_to(rows.partials, plan_.merge_lists);
    append_merge({rows.begin, rows.end}, list_begin, shape_, plan_);
  }
}

}  // namespace banyan
