// SPDX-License-Identifier: Apache-2.0
// Plans of decode steps that follow each other: what is cut stays cut, and the newest parts grow.

#include <algorithm>

#include "attention/plan.h"

namespace banyan {
namespace {

// Steps until a plan is made anew, that its items stay balanced.
constexpr uint32_t kMostAdvances = 64;

// Finds the part of each row that ends with the row itself. False if a row has none of its own, or
// if one lies where refs are not one for each panel: what follows it is not known then.
bool find_newest_parts(Plan& plan) {
  std::vector<uint32_t>& newest = plan.scratch.newest_parts;
  newest.assign(plan.row_pos.size(), WorkItem::kFinal);
  for (uint32_t i = 0; i < plan.parts.size(); ++i) {
    const RunPart& part = plan.parts[i];
    if (part.row_end != part.row_begin + 1 || part.kv_end != plan.row_pos[part.row_begin] + 1) {
      continue;
    }
    const Run& run = plan.runs[part.run];
    if (!plan.stretches[run.stretch_begin + run.stretch_count - 1].on_grid) return false;
    newest[part.row_begin] = i;
  }
  return std::ranges::find(newest, WorkItem::kFinal) == newest.end();
}

bool is_next_step(const TreeView& tree, const DeviceDescription& device, const Plan& plan) {
  for (size_t row = 0; row < tree.row_pos.size(); ++row) {
    const Position position = tree.row_pos[row];
    if (position != plan.row_pos[row] + 1) return false;
    if (device.deterministic && position % kSegmentTokens == 0) return false;
  }
  return true;
}

}  // namespace

bool advance_plan(const TreeView& tree, const DeviceDescription& device, Plan& plan) {
  const size_t n_rows = tree.row_pos.size();
  if (plan.scratch.is_new_each_step || plan.scratch.advances == kMostAdvances || n_rows == 0 ||
      plan.row_pos.size() != n_rows || tree.sequences.size() != n_rows ||
      plan.runs[0].band.window != Band::kCausal || !is_next_step(tree, device, plan)) {
    return false;
  }
  if (plan.scratch.advances == 0 && !find_newest_parts(plan)) return false;
  ++plan.scratch.advances;
  for (size_t row = 0; row < n_rows; ++row) {
    RunPart& part = plan.parts[plan.scratch.newest_parts[row]];
    Run& run = plan.runs[part.run];
    Stretch& stretch = plan.stretches[run.stretch_begin + run.stretch_count - 1];
    const NodeView& leaf = tree.nodes[tree.sequences[row].leaf];
    ++part.kv_end;
    ++run.kv_len;
    ++stretch.kv_end;
    stretch.refs =
        leaf.refs.data() + stretch.kv_begin / kPanelTokens - leaf.kv_begin / kPanelTokens;
    plan.row_pos[row] = tree.row_pos[row];
  }
  plan.kv_tokens_read += n_rows;
  return true;
}

}  // namespace banyan
