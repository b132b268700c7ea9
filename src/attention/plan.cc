// SPDX-License-Identifier: Apache-2.0
#include "attention/plan.h"

#include <fmt/format.h>

#include <iterator>

#include "attention/plan/planners.h"
#include "base/check.h"

namespace banyan {
namespace {

void check_rows_tile(const TreeView& tree) {
  uint32_t row = 0;
  for (const SequenceView& sequence : tree.sequences) {
    BANYAN_CHECK(sequence.row_begin == row && sequence.row_end >= row,
                 "rows of sequences must follow each other without gaps");
    BANYAN_CHECK(sequence.leaf < tree.nodes.size(), "a sequence ends at no node");
    row = sequence.row_end;
  }
  BANYAN_CHECK(row == tree.row_pos.size(), "rows of sequences must be all rows");
}

// So that steps which add a token at a time reach a steady state. Room for many of them at first,
// and again where little is left.
template <class T>
void leave_room(std::vector<T>& v, bool at_first) {
  const bool little_left = v.capacity() - v.size() < v.size() / 8 + 16;
  if (at_first || little_left) v.reserve(v.size() + v.size() / 2 + 64);
}

std::string band_text(Band band) {
  if (band.window == Band::kNone) return "all";
  if (band.window == Band::kCausal) return "causal";
  return fmt::format("window {}", band.window);
}

}  // namespace

void Plan::clear() {
  stretches.clear();
  runs.clear();
  parts.clear();
  items.clear();
  partials.clear();
  merges.clear();
  merge_lists.clear();
  row_pos.clear();
  workspace_floats = 0;
  kv_tokens_read = 0;
  scratch.nodes.clear();
  scratch.partial_lists.clear();
  scratch.finished.clear();
  scratch.rows_alone.clear();
  scratch.advances = 0;
}

void make_plan(PlanMethod method, const TreeView& tree, const RowShape& shape,
               const DeviceDescription& device, Plan& plan) {
  BANYAN_CHECK(shape.n_kv_heads > 0 && shape.n_heads > 0 && shape.n_heads % shape.n_kv_heads == 0,
               "query heads must be a multiple of KV heads");
  BANYAN_CHECK(shape.head_dim > 0, "a head has at least one dimension");
  BANYAN_CHECK(shape.window > 0, "rows of a sequence see themselves and a window before them");
  BANYAN_CHECK(device.n_workers > 0 && device.prefill_row_tile > 0 && device.block > 0,
               "a device without workers");
  check_rows_tile(tree);

  const bool at_first = plan.runs.capacity() == 0;
  plan.clear();
  plan.row_pos.assign(tree.row_pos.begin(), tree.row_pos.end());
  // As published, blocks are cut anew for every step.
  plan.scratch.is_new_each_step = method == PlanMethod::kNode || method == PlanMethod::kNodeChunk ||
                                  method == PlanMethod::kFlatten;
  switch (method) {
    case PlanMethod::kDense:
      BANYAN_CHECK(tree.sequences.size() == 1, "a dense plan is for exactly one sequence");
      plan_paged(tree, shape, device, plan);
      break;
    case PlanMethod::kPaged:
      plan_paged(tree, shape, device, plan);
      break;
    case PlanMethod::kTwoPhase:
      plan_two_phase(tree, shape, device, plan);
      break;
    case PlanMethod::kNode:
      plan_by_node(tree, shape, device, plan);
      break;
    case PlanMethod::kNodeChunk:
      plan_by_node_chunk(tree, shape, device, plan);
      break;
    case PlanMethod::kFlatten:
      plan_flatten(tree, shape, device, plan);
      break;
    case PlanMethod::kAuto:
      plan_auto(tree, shape, device, plan);
      break;
  }
  leave_room(plan.stretches, at_first);
  leave_room(plan.runs, at_first);
  leave_room(plan.parts, at_first);
  leave_room(plan.items, at_first);
  leave_room(plan.partials, at_first);
  leave_room(plan.merges, at_first);
  leave_room(plan.merge_lists, at_first);
  leave_room(plan.scratch.nodes, at_first);
  leave_room(plan.scratch.partial_lists, at_first);
  leave_room(plan.scratch.finished, at_first);
  leave_room(plan.scratch.rows_alone, at_first);
}

std::string to_text(const Plan& plan) {
  std::string text;
  auto out = std::back_inserter(text);
  fmt::format_to(out, "plan: {} rows, {} KV positions read, {} floats of partials\n",
                 plan.row_pos.size(), plan.kv_tokens_read, plan.workspace_floats);
  for (size_t i = 0; i < plan.runs.size(); ++i) {
    const Run& run = plan.runs[i];
    fmt::format_to(out, "run {}: kv [{}, {})", i, run.kv_begin, run.kv_begin + run.kv_len);
    for (uint32_t s = 1; s < run.stretch_count; ++s) {
      fmt::format_to(out, "{} {}", s == 1 ? " in nodes from" : ",",
                     plan.stretches[run.stretch_begin + s].kv_begin);
    }
    fmt::format_to(out, ", rows [{}, {}), heads [{}, {}), {}\n", run.row_begin, run.row_end,
                   run.heads.begin, run.heads.end, band_text(run.band));
  }
  for (size_t i = 0; i < plan.items.size(); ++i) {
    const WorkItem& item = plan.items[i];
    const std::string to = item.partial == WorkItem::kFinal
                               ? std::string("final")
                               : fmt::format("partial {}", item.partial);
    fmt::format_to(out, "item {}:", i);
    for (const RunPart& part : plan.parts_of(item)) {
      fmt::format_to(out, "{} run {}, kv [{}, {}), rows [{}, {}),",
                     &part == &plan.parts[item.part_begin] ? "" : " then", part.run, part.kv_begin,
                     part.kv_end, part.row_begin, part.row_end);
    }
    fmt::format_to(out, " cost {} -> {}\n", item.cost, to);
  }
  for (size_t i = 0; i < plan.merges.size(); ++i) {
    const Merge& merge = plan.merges[i];
    fmt::format_to(out, "merge {}: rows [{}, {}), heads [{}, {}) <- partials", i, merge.row_begin,
                   merge.row_end, merge.heads.begin, merge.heads.end);
    for (uint32_t p = 0; p < merge.list_count; ++p) {
      fmt::format_to(out, " {}", plan.merge_lists[merge.list_begin + p]);
    }
    text += '\n';
  }
  return text;
}

const char* name(PlanMethod method) {
  switch (method) {
    case PlanMethod::kAuto:
      return "auto";
    case PlanMethod::kDense:
      return "dense";
    case PlanMethod::kPaged:
      return "paged";
    case PlanMethod::kTwoPhase:
      return "two-phase";
    case PlanMethod::kNode:
      return "node";
    case PlanMethod::kNodeChunk:
      return "node-chunk";
    case PlanMethod::kFlatten:
      return "flatten";
  }
  return "unknown";
}

}  // namespace banyan
