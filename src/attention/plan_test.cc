// SPDX-License-Identifier: Apache-2.0
#include "attention/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <new>
#include <string>
#include <tuple>

#include "attention/testing_case.h"

namespace {
thread_local uint64_t allocations = 0;
}  // namespace

// Counts what this thread allocates; the planner promises not to. Not inline: GCC would take the
// pair for a mismatch.
[[gnu::noinline]] void* operator new(size_t size) {
  ++allocations;
  if (void* p = std::malloc(size == 0 ? 1 : size)) return p;
  std::abort();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace banyan::testing {
namespace {

// A tree written down: nodes in depth-first order with their panels made up, one row for the last
// position of each leaf (or `rows` of them).
class TreeBuilder {
 public:
  static constexpr uint32_t kRoot = NodeView::kNoParent;

  // Returns the node's index. A node begins where its parent ends, in a panel of its own.
  uint32_t node(uint32_t parent, int32_t len) {
    const Position begin = parent == kRoot ? 0 : nodes_[parent].kv_begin + nodes_[parent].kv_len;
    std::vector<PanelRef>& refs = refs_.emplace_back();
    for (Position p = begin; p < begin + len;) {
      const int slot = p % kPanelTokens;
      const int end = std::min(kPanelTokens, slot + begin + len - p);
      refs.push_back({next_panel_++, static_cast<uint8_t>(slot), static_cast<uint8_t>(end)});
      p += end - slot;
    }
    nodes_.push_back({.parent = parent, .kv_begin = begin, .kv_len = len});
    return static_cast<uint32_t>(nodes_.size()) - 1;
  }

  void sequence(uint32_t leaf, int rows = 1) {
    const uint32_t begin = static_cast<uint32_t>(row_pos_.size());
    const Position end = nodes_[leaf].kv_begin + nodes_[leaf].kv_len;
    for (Position p = end - rows; p < end; ++p) row_pos_.push_back(p);
    const uint32_t row_end = static_cast<uint32_t>(row_pos_.size());
    sequences_.push_back({leaf, begin, row_end});
    for (uint32_t n = leaf; n != kRoot; n = nodes_[n].parent) {
      if (nodes_[n].row_begin == nodes_[n].row_end) nodes_[n].row_begin = begin;
      nodes_[n].row_end = row_end;
    }
  }

  // Good until the builder changes.
  TreeView view() {
    for (size_t n = 0; n < nodes_.size(); ++n) nodes_[n].refs = refs_[n];
    return {nodes_, sequences_, row_pos_};
  }

 private:
  std::vector<NodeView> nodes_;
  std::vector<std::vector<PanelRef>> refs_;  // by node
  std::vector<SequenceView> sequences_;
  std::vector<Position> row_pos_;
  PanelId next_panel_ = 0;
};

std::string plan_text(PlanMethod method, const TreeView& tree, const RowShape& shape,
                      const DeviceDescription& device) {
  Plan plan;
  make_plan(method, tree, shape, device, plan);
  return to_text(plan);
}

TEST(Plan, CutsALongDecodeIntoSegmentsAndMergesThem) {
  TreeBuilder tree;
  tree.sequence(tree.node(TreeBuilder::kRoot, 2100));
  EXPECT_EQ(plan_text(PlanMethod::kDense, tree.view(), {6, 2, 64}, {.n_workers = 2}),
            R"(plan: 1 rows, 2100 KV positions read, 1200 floats of partials
run 0: kv [0, 2100), rows [0, 1), heads [0, 6), causal
item 0: run 0, kv [0, 1024), rows [0, 1), cost 7168 -> partial 0
item 1: run 0, kv [1024, 2048), rows [0, 1), cost 7168 -> partial 1
item 2: run 0, kv [2048, 2100), rows [0, 1), cost 364 -> partial 2
merge 0: rows [0, 1), heads [0, 6) <- partials 0 1 2
)");
}

TEST(Plan, LeavesADecodeWholeForOneWorker) {
  TreeBuilder tree;
  tree.sequence(tree.node(TreeBuilder::kRoot, 2100));
  EXPECT_EQ(plan_text(PlanMethod::kDense, tree.view(), {3, 1, 64}, {.n_workers = 1}),
            R"(plan: 1 rows, 2100 KV positions read, 0 floats of partials
run 0: kv [0, 2100), rows [0, 1), heads [0, 3), causal
item 0: run 0, kv [0, 2100), rows [0, 1), cost 14700 -> final
)");
}

TEST(Plan, GivesPrefillTilesTheKeysUpToTheirLastRow) {
  TreeBuilder tree;
  tree.sequence(tree.node(TreeBuilder::kRoot, 150), 150);
  EXPECT_EQ(plan_text(PlanMethod::kDense, tree.view(), {4, 1, 64}, {.n_workers = 1}),
            R"(plan: 150 rows, 342 KV positions read, 0 floats of partials
run 0: kv [0, 150), rows [0, 150), heads [0, 4), causal
item 0: run 0, kv [0, 128), rows [64, 128), cost 33280 -> final
item 1: run 0, kv [0, 64), rows [0, 64), cost 16640 -> final
item 2: run 0, kv [0, 150), rows [128, 150), cost 13800 -> final
)");
}

TEST(Plan, MakesSmallerTilesWhereFewRowsMustKeepWorkersBusy) {
  TreeBuilder tree;
  tree.sequence(tree.node(TreeBuilder::kRoot, 64), 64);
  EXPECT_EQ(plan_text(PlanMethod::kDense, tree.view(), {4, 1, 64}, {.n_workers = 2}),
            R"(plan: 64 rows, 288 KV positions read, 0 floats of partials
run 0: kv [0, 64), rows [0, 64), heads [0, 4), causal
item 0: run 0, kv [0, 64), rows [56, 64), cost 2304 -> final
item 1: run 0, kv [0, 56), rows [48, 56), cost 2016 -> final
item 2: run 0, kv [0, 48), rows [40, 48), cost 1728 -> final
item 3: run 0, kv [0, 40), rows [32, 40), cost 1440 -> final
item 4: run 0, kv [0, 32), rows [24, 32), cost 1152 -> final
item 5: run 0, kv [0, 24), rows [16, 24), cost 864 -> final
item 6: run 0, kv [0, 16), rows [8, 16), cost 576 -> final
item 7: run 0, kv [0, 8), rows [0, 8), cost 288 -> final
)");
}

TEST(Plan, ReadsASharedNodeOnceForEachSequenceWhenPaged) {
  TreeBuilder tree;
  const uint32_t shared = tree.node(TreeBuilder::kRoot, 40);
  tree.sequence(tree.node(shared, 3));
  tree.sequence(tree.node(shared, 30));
  EXPECT_EQ(plan_text(PlanMethod::kPaged, tree.view(), {2, 1, 64}, {.n_workers = 2}),
            R"(plan: 2 rows, 113 KV positions read, 0 floats of partials
run 0: kv [0, 43) in nodes from 40, rows [0, 1), heads [0, 2), causal
run 1: kv [0, 70) in nodes from 40, rows [1, 2), heads [0, 2), causal
item 0: run 1, kv [0, 70), rows [1, 2), cost 420 -> final
item 1: run 0, kv [0, 43), rows [0, 1), cost 258 -> final
)");
}

// Four sequences over 300 positions, two of them over 40 more.
TreeBuilder two_levels() {
  TreeBuilder tree;
  const uint32_t all = tree.node(TreeBuilder::kRoot, 300);
  const uint32_t two = tree.node(all, 40);
  tree.sequence(tree.node(two, 10));
  tree.sequence(tree.node(two, 20));
  tree.sequence(tree.node(all, 5));
  tree.sequence(tree.node(all, 6));
  return tree;
}

TEST(Plan, ReadsANodeOnceForAllItsRowsWhereThatPays) {
  TreeBuilder tree = two_levels();
  // The second level is worth less than a piece of work costs: its rows read it with their own.
  EXPECT_EQ(plan_text(PlanMethod::kAuto, tree.view(), {4, 2, 64},
                      {.n_workers = 1, .deterministic = false}),
            R"(plan: 4 rows, 421 KV positions read, 0 floats of partials
run 0: kv [0, 300), rows [0, 4), heads [0, 4), causal
run 1: kv [300, 350) in nodes from 340, rows [0, 1), heads [0, 4), causal
run 2: kv [300, 360) in nodes from 340, rows [1, 2), heads [0, 4), causal
run 3: kv [300, 305), rows [2, 3), heads [0, 4), causal
run 4: kv [300, 306), rows [3, 4), heads [0, 4), causal
item 0: run 0, kv [0, 300), rows [0, 4), then run 1, kv [300, 350), rows [0, 1), then run 2, kv [300, 360), rows [1, 2), then run 3, kv [300, 305), rows [2, 3), then run 4, kv [300, 306), rows [3, 4), cost 4582 -> final
)");
}

TEST(Plan, TakesSharedNodesChunkByChunkInTwoPhases) {
  TreeBuilder tree = two_levels();
  EXPECT_EQ(plan_text(PlanMethod::kTwoPhase, tree.view(), {4, 2, 64},
                      {.n_workers = 1, .deterministic = false}),
            R"(plan: 4 rows, 381 KV positions read, 6896 floats of partials
run 0: kv [0, 300), rows [0, 4), heads [0, 4), causal
run 1: kv [300, 340), rows [0, 2), heads [0, 4), causal
run 2: kv [340, 350), rows [0, 1), heads [0, 4), causal
run 3: kv [340, 360), rows [1, 2), heads [0, 4), causal
run 4: kv [300, 305), rows [2, 3), heads [0, 4), causal
run 5: kv [300, 306), rows [3, 4), heads [0, 4), causal
item 0: run 0, kv [0, 64), rows [0, 4), cost 768 -> partial 0
item 1: run 0, kv [64, 128), rows [0, 4), cost 768 -> partial 1
item 2: run 0, kv [128, 192), rows [0, 4), cost 768 -> partial 2
item 3: run 0, kv [192, 256), rows [0, 4), cost 768 -> partial 3
item 4: run 0, kv [256, 300), rows [0, 4), cost 528 -> partial 4
item 5: run 1, kv [300, 340), rows [0, 2), cost 320 -> partial 5
item 6: run 3, kv [340, 360), rows [1, 2), cost 120 -> partial 7
item 7: run 2, kv [340, 350), rows [0, 1), cost 60 -> partial 6
item 8: run 5, kv [300, 306), rows [3, 4), cost 36 -> partial 9
item 9: run 4, kv [300, 305), rows [2, 3), cost 30 -> partial 8
merge 0: rows [0, 1), heads [0, 4) <- partials 0 1 2 3 4 5 6
merge 1: rows [1, 2), heads [0, 4) <- partials 0 1 2 3 4 5 7
merge 2: rows [2, 3), heads [0, 4) <- partials 0 1 2 3 4 8
merge 3: rows [3, 4), heads [0, 4) <- partials 0 1 2 3 4 9
)");
}

TEST(Plan, BeginsAWindowAtAPanelBorderAndLeavesOutWhatLiesBefore) {
  TreeBuilder tree;
  const uint32_t first = tree.node(TreeBuilder::kRoot, 100);
  tree.sequence(tree.node(first, 40), 2);
  EXPECT_EQ(plan_text(PlanMethod::kPaged, tree.view(), {1, 1, 64, 59}, {.n_workers = 2}),
            R"(plan: 2 rows, 60 KV positions read, 0 floats of partials
run 0: kv [80, 140) in nodes from 100, rows [0, 2), heads [0, 1), window 59
item 0: run 0, kv [80, 140), rows [0, 2), cost 360 -> final
)");
}

constexpr PlanMethod kMethods[] = {PlanMethod::kPaged,   PlanMethod::kTwoPhase,
                                   PlanMethod::kNode,    PlanMethod::kNodeChunk,
                                   PlanMethod::kFlatten, PlanMethod::kAuto};

// Every (row, position, head) that a row may see must be in exactly one item, every position must
// be found in the panel where the tree holds it, and every row must end as final exactly once.
void check_covers_once(const Case& c, int32_t window, const Plan& plan) {
  using Key = std::tuple<uint32_t, int, Position>;  // row, head, position
  std::map<Key, int> seen;
  std::map<std::pair<uint32_t, int>, int> finals;
  std::map<Key, PanelId> stored;
  for (const SequenceView& s : c.sequences) {
    for (uint32_t n = s.leaf; n != NodeView::kNoParent; n = c.nodes[n].parent) {
      Position p = c.nodes[n].kv_begin;
      for (const PanelRef& ref : c.refs[n]) {
        for (int slot = ref.slot_begin; slot < ref.slot_end; ++slot, ++p) {
          for (uint32_t row = s.row_begin; row < s.row_end; ++row) stored[{row, 0, p}] = ref.panel;
        }
      }
    }
  }
  std::map<std::pair<uint32_t, uint32_t>, int> held;  // partial, row: parts that it has keys of
  for (const WorkItem& item : plan.items) {
    const HeadRange heads = plan.heads_of(item);
    for (const RunPart& part : plan.parts_of(item)) {
      const Run& run = plan.runs[part.run];
      ASSERT_EQ(run.heads, heads);
      ASSERT_GE(part.kv_begin, run.kv_begin);
      ASSERT_LE(part.kv_end, run.kv_begin + run.kv_len);
      ASSERT_GE(part.row_begin, item.row_begin);
      ASSERT_LE(part.row_end, item.row_end);
      for (uint32_t row = part.row_begin; row < part.row_end; ++row) {
        ++held[{item.partial, row}];
        for (int head = heads.begin; head < heads.end; ++head) {
          RefWalk walk(plan, part);
          RefWalk::Piece piece{.panel = 0, .begin = part.kv_begin, .end = part.kv_begin};
          for (Position p = part.kv_begin; p < part.kv_end; ++p) {
            if (p == piece.end) piece = walk.next();
            ASSERT_EQ(piece.panel, (stored[{row, 0, p}])) << "position " << p;
            if (p <= plan.row_pos[row] && p > int64_t{plan.row_pos[row]} - window) {
              ++seen[{row, head, p}];
            }
          }
        }
      }
    }
    for (uint32_t row = item.row_begin; row < item.row_end; ++row) {
      for (int head = heads.begin; head < heads.end && item.partial == WorkItem::kFinal; ++head) {
        ++finals[{row, head}];
      }
    }
    if (item.partial != WorkItem::kFinal) {
      const Partial& partial = plan.partials[item.partial];
      EXPECT_LE(partial.row_begin, item.row_begin);
      EXPECT_GE(partial.row_end, item.row_end);
      EXPECT_EQ(partial.heads, heads);
      EXPECT_GE(partial.ml_offset, partial.o_offset + partial.states() * c.shape.head_dim);
      EXPECT_LE(partial.ml_offset + 2 * partial.states(), plan.workspace_floats);
    }
  }
  std::map<std::pair<uint32_t, uint32_t>, int> merged;  // partial, row
  for (const Merge& merge : plan.merges) {
    for (uint32_t i = 0; i < merge.list_count; ++i) {
      for (uint32_t row = merge.row_begin; row < merge.row_end; ++row) {
        ++merged[{plan.merge_lists[merge.list_begin + i], row}];
      }
      if (i > 0) {  // in order of position
        EXPECT_GT(plan.merge_lists[merge.list_begin + i],
                  plan.merge_lists[merge.list_begin + i - 1]);
      }
    }
    for (uint32_t row = merge.row_begin; row < merge.row_end; ++row) {
      for (int head = merge.heads.begin; head < merge.heads.end; ++head) ++finals[{row, head}];
    }
  }
  for (uint32_t i = 0; i < plan.partials.size(); ++i) {
    for (uint32_t row = plan.partials[i].row_begin; row < plan.partials[i].row_end; ++row) {
      // An item's rows may lie between others that it has no keys of.
      EXPECT_EQ((merged[{i, row}]), (held[{i, row}]) > 0 ? 1 : 0)
          << "partial " << i << " row " << row;
    }
  }
  for (uint32_t row = 0; row < c.row_pos.size(); ++row) {
    for (int head = 0; head < c.n_heads; ++head) {
      ASSERT_EQ((finals[{row, head}]), 1) << "row " << row << " head " << head;
      const Position last = c.row_pos[row];
      for (Position p = std::max<int64_t>(0, int64_t{last} - window + 1); p <= last; ++p) {
        ASSERT_EQ((seen[{row, head, p}]), 1)
            << "row " << row << " head " << head << " position " << p;
      }
    }
  }
}

TEST(Plan, CoversEveryVisibleRowKeyAndHeadExactlyOnce) {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    std::mt19937 random(seed);
    Case c = make_case({.seed = seed,
                        .n_sequences = 1 + int(seed % 5),
                        .max_node_len = seed % 6 == 0 ? 1500 : 100,
                        .max_rows = seed % 5 == 0 ? 60 : 4,
                        .n_kv_heads = 1 + int(seed % 2),
                        .heads_per_kv_head = 1 + int(seed % 3),
                        .head_dim = 1,
                        .split_probability = seed % 2 == 0 ? 0.1 : 0,
                        .inner_probability = seed % 4 == 1 ? 0.4 : 0});
    const int32_t window = seed % 3 == 0 ? 1 + int32_t(random() % 1200) : Band::kCausal;
    for (const bool deterministic : {true, false}) {
      const DeviceDescription device{.n_workers = 1 + int(random() % 40),
                                     .prefill_row_tile = 1 + int(random() % 70),
                                     .deterministic = deterministic,
                                     .block = 16 + int(random() % 200),
                                     .costs = {.item = seed % 2 == 0 ? 500.0 : 0.0}};
      for (const PlanMethod method : kMethods) {
        SCOPED_TRACE(::testing::Message() << "seed " << seed << " " << name(method) << " "
                                          << (deterministic ? "deterministic" : ""));
        Plan plan;
        make_plan(method, c.view(), c.row_shape(window), device, plan);
        check_covers_once(c, window, plan);
        for (size_t i = 1; i < plan.items.size(); ++i) {
          EXPECT_GE(plan.items[i - 1].cost, plan.items[i].cost);
        }
        const bool shares = method == PlanMethod::kTwoPhase || method == PlanMethod::kAuto;
        if (c.sequences.size() == 1 && (shares || method == PlanMethod::kPaged)) {
          EXPECT_EQ(plan_text(PlanMethod::kDense, c.view(), c.row_shape(window), device),
                    to_text(plan));
        }
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Of an item of a deterministic plan.
const RunPart& only_part(const Plan& plan, const WorkItem& item) {
  EXPECT_EQ(item.part_count, 1);
  return plan.parts_of(item)[0];
}

TEST(Plan, CutsOnlyAtSegmentBordersWithOneSegmentInEachItem) {
  for (const PlanMethod method : kMethods) {
    Case c = make_case({.seed = 3,
                        .n_sequences = 3,
                        .min_node_len = 1000,
                        .max_node_len = 3000,
                        .n_kv_heads = 2,
                        .head_dim = 1});
    Plan plan;
    make_plan(method, c.view(), c.row_shape(), {.n_workers = 64}, plan);
    ASSERT_FALSE(plan.merges.empty());
    for (const WorkItem& item : plan.items) {
      if (item.partial == WorkItem::kFinal) continue;
      const RunPart& part = only_part(plan, item);
      EXPECT_EQ(part.kv_begin % kSegmentTokens, 0);
      EXPECT_EQ(part.kv_begin / kSegmentTokens, (part.kv_end - 1) / kSegmentTokens);
    }
  }
}

TEST(Plan, DoesNotAllocateInDecodeStepsAfterTheFirst) {
  const auto tree_of = [](int32_t extra) {
    TreeBuilder tree;
    const uint32_t shared = tree.node(TreeBuilder::kRoot, 1900);
    for (int i = 0; i < 4; ++i) tree.sequence(tree.node(shared, 90 + 20 * i + extra));
    return tree;
  };
  const RowShape shape{9, 3, 64};
  for (const PlanMethod method : kMethods) {
    for (const bool deterministic : {true, false}) {
      const DeviceDescription device{.n_workers = 16, .deterministic = deterministic};
      Plan plan;
      TreeBuilder first = tree_of(0);
      make_plan(method, first.view(), shape, device, plan);
      for (int32_t step = 1; step < 300; ++step) {
        TreeBuilder tree = tree_of(step);
        const TreeView view = tree.view();
        const uint64_t before = allocations;
        make_plan(method, view, shape, device, plan);
        ASSERT_EQ(allocations, before)
            << "step " << step << " " << name(method) << " deterministic " << deterministic;
      }
    }
  }
}

// One more token behind every sequence, each of which has a leaf and a row of its own.
void grow(Case& c) {
  for (const SequenceView& sequence : c.sequences) {
    NodeView& leaf = c.nodes[sequence.leaf];
    const Position position = leaf.kv_begin + leaf.kv_len++;
    std::vector<PanelRef>& refs = c.refs[sequence.leaf];
    const auto slot = static_cast<uint8_t>(position % kPanelTokens);
    if (!refs.empty() && refs.back().slot_end == slot && slot != 0) {
      ++refs.back().slot_end;
    } else {
      // Panels that no other node has.
      const auto panel = static_cast<PanelId>(1'000'000 + position * 1000 + sequence.row_begin);
      refs.push_back({panel, slot, static_cast<uint8_t>(slot + 1)});
    }
    ++c.row_pos[sequence.row_begin];
  }
}

// Whether every sequence ends in a node that is its alone.
bool has_own_leaves(const Case& c) {
  return std::ranges::all_of(c.sequences, [&](const SequenceView& sequence) {
    const NodeView& leaf = c.nodes[sequence.leaf];
    return leaf.row_begin == sequence.row_begin && leaf.row_end == sequence.row_end;
  });
}

TEST(Plan, MovedOnItCoversTheNextStepsToo) {
  int advanced = 0;
  int made = 0;
  for (uint32_t seed = 0; seed < 40; ++seed) {
    Case c = make_case({.seed = seed,
                        .n_sequences = 1 + int(seed % 5),
                        .max_node_len = seed % 3 == 0 ? 1500 : 100,
                        .max_rows = 1,
                        .n_kv_heads = 1 + int(seed % 2),
                        .heads_per_kv_head = 1 + int(seed % 3),
                        .head_dim = 1,
                        .split_probability = seed % 4 == 1 ? 0.1 : 0});
    if (!has_own_leaves(c)) continue;
    const bool on_grid = seed % 4 != 1;
    for (const PlanMethod method : kMethods) {
      const DeviceDescription device{
          .n_workers = 1 + int(seed % 7), .deterministic = seed % 2 == 0, .costs = {.item = 0}};
      Plan plan;
      make_plan(method, c.view(), c.row_shape(), device, plan);
      for (int step = 0; step < 100; ++step) {
        grow(c);
        if (advance_plan(c.view(), device, plan)) {
          ++advanced;
        } else {
          if (on_grid && !plan.scratch.is_new_each_step) ++made;
          make_plan(method, c.view(), c.row_shape(), device, plan);
        }
        if (step % 9 != 0 && step < 98) continue;
        SCOPED_TRACE(::testing::Message() << "seed " << seed << " " << name(method) << " " << step);
        check_covers_once(c, Band::kCausal, plan);
        if (HasFailure()) return;
        Plan anew;
        make_plan(method, c.view(), c.row_shape(), device, anew);
        EXPECT_EQ(plan.kv_tokens_read, anew.kv_tokens_read);
        if (!device.deterministic) continue;
        for (const WorkItem& item : plan.items) {
          if (item.partial == WorkItem::kFinal) continue;
          const RunPart& part = only_part(plan, item);
          EXPECT_EQ(part.kv_begin / kSegmentTokens, (part.kv_end - 1) / kSegmentTokens);
        }
      }
    }
  }
  EXPECT_GT(advanced, 40 * made);
}

TEST(Plan, IsNotMovedOnWhereStepsDoNotFollowEachOther) {
  Case c = make_case({.seed = 1, .n_sequences = 3, .max_rows = 1, .head_dim = 1});
  ASSERT_TRUE(has_own_leaves(c));
  const DeviceDescription device{.n_workers = 2};
  Plan plan;
  make_plan(PlanMethod::kAuto, c.view(), c.row_shape(), device, plan);
  const std::string before = to_text(plan);
  EXPECT_FALSE(advance_plan(c.view(), device, plan)) << "the same step again";
  grow(c);
  Plan windowed;
  make_plan(PlanMethod::kAuto, c.view(), c.row_shape(50), device, windowed);
  grow(c);
  EXPECT_FALSE(advance_plan(c.view(), device, plan)) << "two steps at once";
  EXPECT_FALSE(advance_plan(c.view(), device, windowed));
  EXPECT_EQ(to_text(plan), before);
}

TEST(PlanDeathTest, DenseTakesExactlyOneSequence) {
  TreeBuilder tree;
  const uint32_t shared = tree.node(TreeBuilder::kRoot, 40);
  tree.sequence(tree.node(shared, 3));
  tree.sequence(tree.node(shared, 30));
  EXPECT_DEATH(plan_text(PlanMethod::kDense, tree.view(), {2, 1, 64}, {}), "exactly one sequence");
}

TEST(Plan, NamesItsMethods) {
  EXPECT_STREQ(name(PlanMethod::kAuto), "auto");
  EXPECT_STREQ(name(PlanMethod::kDense), "dense");
  EXPECT_STREQ(name(PlanMethod::kPaged), "paged");
  EXPECT_STREQ(name(PlanMethod::kTwoPhase), "two-phase");
  EXPECT_STREQ(name(PlanMethod::kNode), "node");
  EXPECT_STREQ(name(PlanMethod::kNodeChunk), "node-chunk");
  EXPECT_STREQ(name(PlanMethod::kFlatten), "flatten");
}

}  // namespace
}  // namespace banyan::testing
