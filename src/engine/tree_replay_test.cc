// SPDX-License-Identifier: Apache-2.0
#include "engine/tree_replay.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <random>
#include <set>

namespace banyan {
namespace {

constexpr int64_t kAll = std::numeric_limits<int64_t>::max();
constexpr KvShape kSmall{
    .n_layers = 2, .n_kv_heads = 1, .head_dim = 3, .k_type = DType::kF32, .v_type = DType::kF32};

PanelPool small_pool(uint32_t panels) {
  return std::move(PanelPool::create(kSmall, panels * kSmall.panel_bytes())).value();
}

using Counters = std::array<int64_t, 4>;  // steps, queries, n_tree_sum, path_sum

Counters counters(const TreeCounts& c) {
  return {c.steps, c.queries, static_cast<int64_t>(c.n_tree_sum), static_cast<int64_t>(c.path_sum)};
}

TreeWorkload forest_of(const TraceTree& tree) { return ForestWorkload{{tree}}; }

// A replay behind prompts without K and V.
std::unique_ptr<TreeReplay> started(const TreeWorkload& workload, int64_t most_steps,
                                    PanelPool& pool, KvTree& tree) {
  const auto prompts = open_prompts(workload, tree);
  EXPECT_TRUE(prompts) << prompts.error().message;
  return start_replay(workload, most_steps, pool, tree, *prompts);
}

Counters counted(const TreeWorkload& workload, int64_t most_steps = kAll) {
  const auto counts = count_steps(workload, most_steps);
  EXPECT_TRUE(counts) << counts.error().message;
  return counts ? counters(*counts) : Counters{};
}
Counters counted(const TraceTree& tree, int64_t most_steps = kAll) {
  return counted(forest_of(tree), most_steps);
}

// From the definition alone: a node lives from the step after its parent's last, a tree's first
// ones from the step after its arrival, to its own last; what has no rows is no step.
Counters simulated(const std::vector<TraceTree>& trees, int64_t most_steps = kAll) {
  std::vector<std::vector<int64_t>> start;
  std::vector<std::vector<int64_t>> end;
  int64_t last = 0;
  for (const TraceTree& tree : trees) {
    const size_t n = tree.len.size() + 1;
    std::vector<int64_t>& first = start.emplace_back(n, 0);
    std::vector<int64_t>& own_last = end.emplace_back(n, tree.arrive);
    for (size_t i = 1; i < n; ++i) {
      first[i] = own_last[tree.parent[i - 1]] + 1;
      own_last[i] = first[i] + tree.len[i - 1] - 1;
      last = std::max(last, own_last[i]);
    }
  }
  Counters sum{};
  for (int64_t step = 1; step <= last && sum[0] < most_steps; ++step) {
    int64_t rows = 0;
    for (size_t t = 0; t < trees.size(); ++t) {
      const TraceTree& tree = trees[t];
      const size_t n = tree.len.size() + 1;
      std::vector<bool> used(n, false);
      int64_t live = 0;
      for (size_t i = 1; i < n; ++i) {
        if (tree.len[i - 1] == 0 || step < start[t][i] || step > end[t][i]) continue;
        ++live;
        for (size_t at = i; at > 0; at = tree.parent[at - 1]) used[at] = true;
      }
      if (live == 0) continue;
      rows += live;
      sum[2] += tree.prompt;
      for (size_t i = 1; i < n; ++i) {
        if (used[i]) sum[2] += std::min(end[t][i], step) - start[t][i] + 1;
      }
      sum[3] += live * (tree.prompt + step - tree.arrive);
    }
    sum[0] += rows > 0;
    sum[1] += rows;
  }
  return sum;
}
Counters simulated(const TraceTree& tree, int64_t most_steps = kAll) {
  return simulated(std::vector{tree}, most_steps);
}

// Replays to its end and looks at the tree and its pool there.
void expect_nothing_left(const TreeWorkload& workload, int64_t most_steps) {
  const auto counts = count_steps(workload, most_steps);
  ASSERT_TRUE(counts);
  PanelPool pool = small_pool(counts->most_panels);
  KvTree tree(pool);
  const auto replay = started(workload, most_steps, pool, tree);
  int64_t steps = 0;
  for (; *replay->next(); ++steps) ASSERT_FALSE(replay->pieces().empty());
  EXPECT_EQ(steps, counts->steps);
  EXPECT_TRUE(replay->pieces().empty());
  tree.check_integrity();
  EXPECT_EQ(tree.first_sequence(), kNoSequence);
  EXPECT_EQ(tree.positions(), 0U);
  EXPECT_EQ(pool.used(), 0U);
  EXPECT_EQ(pool.peak_bytes(), pool.budget_bytes()) << "no panel more than counted";
}

TEST(TreeReplay, CountsASmallTree) {
  const TraceTree tree{16, {0, 0, 1}, {3, 5, 2}};
  EXPECT_EQ(counted(tree), (Counters{5, 10, 110, 190}));
  EXPECT_EQ(counted(tree, 2), (Counters{2, 4, 38, 70}));
  EXPECT_EQ(counted(TraceTree{16, {}, {}}), (Counters{}));
  EXPECT_EQ(counted(TraceTree{16, {0, 0}, {0, 0}}), (Counters{}));
}

// Of fewer than `most_nodes`. New ones come near the end, near the root, or anywhere: `kind` 0 to
// 2, chains, fans, both.
TraceTree random_tree(std::mt19937& random, uint32_t most_nodes, int kind) {
  TraceTree tree{static_cast<int32_t>(1 + random() % 50), {}, {}};
  std::vector<uint32_t> created = {0};
  const uint32_t nodes = random() % most_nodes;
  for (uint32_t i = 1; i <= nodes; ++i) {
    const uint32_t n = static_cast<uint32_t>(created.size());
    const uint32_t back = kind == 0 ? random() % std::min(n, 2U) : random() % n;
    tree.parent.push_back(kind == 1 ? created[back / 4] : created[n - 1 - back]);
    tree.len.push_back(random() % 5 == 0 ? 0 : 1 + random() % (random() % 2 == 0 ? 2 : 40));
    if (tree.len.back() > 0) created.push_back(i);
  }
  return tree;
}

TEST(TreeReplay, RandomTreesCountAsTheirDefinitionSays) {
  std::mt19937 random(3);
  int64_t most_leaves = 0;
  for (int trial = 0; trial < 400; ++trial) {
    const TraceTree tree = random_tree(random, trial % 20 == 0 ? 300 : 25, trial % 3);
    const int64_t most_steps = trial % 4 == 0 ? random() % 40 : kAll;
    ASSERT_EQ(counted(tree, most_steps), simulated(tree, most_steps)) << trial;
    expect_nothing_left(forest_of(tree), most_steps);
    most_leaves = std::max(most_leaves, int64_t{count_steps(forest_of(tree), kAll)->most_rows});
  }
  EXPECT_GT(most_leaves, 64);
}

TEST(TreeReplay, AForestCountsAsItsTreesTogether) {
  const TraceTree trees[] = {
      {16, {0, 0, 1}, {3, 5, 2}}, {40, {0}, {9}}, {1, {}, {}}, {16, {0, 0, 1}, {3, 5, 2}}};
  for (const int64_t most_steps : {kAll, int64_t{4}}) {
    Counters sum{};
    for (const TraceTree& tree : trees) {
      const Counters own = counted(tree, most_steps);
      sum[0] = std::max(sum[0], own[0]);
      for (size_t i = 1; i < sum.size(); ++i) sum[i] += own[i];
    }
    const ForestWorkload forest{{std::begin(trees), std::end(trees)}};
    // A tree without steps is there until the first step ends what is over.
    EXPECT_EQ(counted(TreeWorkload(forest), most_steps), sum);
    expect_nothing_left(forest, most_steps);
  }
}

TEST(TreeReplay, ATreeGrowsFromTheStepAfterItsArrival) {
  // Steps 1 to 3 of the first, 3 and 4 of the second, none, then 9 of the third.
  const ForestWorkload forest{{{10, {0}, {3}}, {20, {0, 0}, {2, 1}, 2}, {30, {0}, {1}, 8}}};
  PanelPool pool = small_pool(64);
  KvTree tree(pool);
  const auto replay = started(forest, kAll, pool, tree);
  std::vector<std::vector<Position>> lengths;
  std::vector<uint64_t> waiting;
  while (*replay->next()) {
    tree.check_integrity();
    lengths.emplace_back();
    for (const Piece& piece : replay->pieces()) lengths.back().push_back(tree.length(piece.seq));
    waiting.push_back(replay->waiting_positions());
  }
  EXPECT_EQ(lengths, (std::vector<std::vector<Position>>{{11}, {12}, {13, 21, 21}, {22}, {31}}));
  EXPECT_EQ(waiting, (std::vector<uint64_t>{50, 50, 30, 30, 0}));
  EXPECT_EQ(counted(TreeWorkload(forest)),
            (Counters{5, 7, 11 + 12 + (13 + 22) + 22 + 31, 11 + 12 + (13 + 42) + 22 + 31}));
}

TEST(TreeReplay, RandomForestsCountAsTheirDefinitionSays) {
  std::mt19937 random(4);
  int n_passed_over = 0;
  for (int trial = 0; trial < 200; ++trial) {
    ForestWorkload forest;
    const uint32_t latest = trial % 2 == 0 ? 20 : 400;
    for (uint32_t n = 1 + random() % 6; n > 0; --n) {
      forest.trees.push_back(random_tree(random, 12, static_cast<int>(random() % 3)));
      forest.trees.back().arrive = random() % 3 == 0 ? 0 : static_cast<int32_t>(random() % latest);
    }
    const int64_t most_steps = trial % 4 == 0 ? random() % 40 : kAll;
    const Counters want = simulated(forest.trees, most_steps);
    ASSERT_EQ(counted(TreeWorkload(forest), most_steps), want) << trial;
    expect_nothing_left(forest, most_steps);
    const auto last = std::ranges::max(forest.trees, {}, &TraceTree::arrive);
    n_passed_over += want[0] < last.arrive ? 1 : 0;
  }
  EXPECT_GT(n_passed_over, 20);
}

// A wait that is passed over takes no time, however long.
TEST(TreeReplay, ATreeMayArriveLate) {
  const TraceTree late{3, {0}, {2}, kMostTreeTokens};
  EXPECT_EQ(counted(late), (Counters{2, 2, 9, 9}));
}

TEST(TreeReplay, EveryRowIsTheEndOfItsPath) {
  const TraceTree shape{20, {0, 0, 1, 1, 4}, {3, 9, 2, 17, 1}};
  PanelPool pool = small_pool(64);
  KvTree tree(pool);
  const auto replay = started(forest_of(shape), kAll, pool, tree);
  for (int step = 1; *replay->next(); ++step) {
    tree.check_integrity();
    std::set<SeqId> live;
    for (SeqId seq = tree.first_sequence(); seq != kNoSequence; seq = tree.next_sequence(seq)) {
      live.insert(seq);
    }
    std::set<SeqId> rows;
    for (const Piece& piece : replay->pieces()) {
      rows.insert(piece.seq);
      EXPECT_EQ(tree.length(piece.seq), 20 + step);
      EXPECT_EQ(piece.tokens.size(), 1U);
      EXPECT_EQ(tree.node(tree.leaf(piece.seq)).tokens.back(), piece.tokens[0]);
    }
    EXPECT_EQ(rows, live);
  }
}

// --- drafts

// The first path of `n` tokens in the order of children, found by trying all.
bool leftmost(const std::vector<uint32_t>& parent, size_t n, std::vector<uint32_t>& path) {
  if (path.size() == n) return true;
  for (uint32_t i = 1; i <= parent.size(); ++i) {
    if (parent[i - 1] != path.back()) continue;
    path.push_back(i);
    if (leftmost(parent, n, path)) return true;
    path.pop_back();
  }
  return false;
}

class KvNumbers {
 public:
  explicit KvNumbers(const PanelPool& pool) : pool_(pool) {}

  void write(const KvSlot& slot, float value) {
    each(slot, [&](float& at) { at = value++; });
  }
  bool holds(const KvSlot& slot, float value) {
    bool all = true;
    each(slot, [&](float& at) { all = all && at == value++; });
    return all;
  }

 private:
  template <class F>
  void each(const KvSlot& slot, F visit) {
    for (int layer = 0; layer < kSmall.n_layers; ++layer) {
      const KvPlanes planes = pool_.planes(layer);
      auto* k = reinterpret_cast<float*>(planes.k_panel(0, slot.panel));
      auto* v = reinterpret_cast<float*>(planes.v_panel(0, slot.panel));
      for (int d = 0; d < kSmall.head_dim; ++d) {
        visit(k[d * kPanelTokens + slot.slot]);
        visit(v[slot.slot * kSmall.head_dim + d]);
      }
    }
  }
  const PanelPool& pool_;
};

// Every token of every draft sees the tokens that were kept and its ancestors, by what their slots
// hold.
void replay_drafts(const SpecWorkload& workload) {
  const auto counts = count_steps(workload, kAll);
  ASSERT_TRUE(counts);
  PanelPool pool = small_pool(counts->most_panels);
  KvTree tree(pool);
  KvNumbers numbers(pool);
  const auto replay = started(workload, kAll, pool, tree);
  const size_t n_draft = workload.parent.size() + 1;
  std::vector<float> known;  // what each known position holds first
  float next_value = 0;
  int64_t n_tree = 0;
  int64_t paths = 0;
  for (size_t step = 0; step < workload.accept.size(); ++step) {
    ASSERT_TRUE(*replay->next());
    tree.check_integrity();
    const auto pieces = replay->pieces();
    ASSERT_EQ(pieces.size(), n_draft);
    if (step == 0) {
      for (Position p = 0; p < workload.prompt; ++p) {
        known.push_back(next_value += 100);
        numbers.write(tree.slot(pieces[0].seq, p), known.back());
      }
    }
    std::vector<std::vector<float>> path(n_draft);
    for (size_t i = 0; i < n_draft; ++i) {
      path[i] = i == 0 ? known : path[workload.parent[i - 1]];
      path[i].push_back(next_value += 100);
      const auto end = static_cast<Position>(path[i].size());
      ASSERT_EQ(tree.length(pieces[i].seq), end);
      numbers.write(tree.slot(pieces[i].seq, end - 1), path[i].back());
      for (Position p = 0; p < end; ++p) {
        ASSERT_TRUE(numbers.holds(tree.slot(pieces[i].seq, p), path[i][p])) << step << " " << p;
      }
      paths += end;
    }
    n_tree += static_cast<int64_t>(known.size() + n_draft);
    std::vector<uint32_t> kept = {0};
    const size_t n = workload.accept[step];
    if (n > 0) {
      ASSERT_TRUE(leftmost(workload.parent, n, kept));
      known = path[kept.back()];
    }
  }
  ASSERT_FALSE(*replay->next());
  EXPECT_EQ(tree.positions(), 0U);
  EXPECT_EQ(pool.used(), 0U);
  const auto steps = static_cast<int64_t>(workload.accept.size());
  EXPECT_EQ(counters(*counts),
            (Counters{steps, steps * static_cast<int64_t>(n_draft), n_tree, paths}));
}

TEST(TreeReplay, DraftsSeeWhatWasKeptAndTheirAncestors) {
  std::mt19937 random(8);
  for (int trial = 0; trial < 60; ++trial) {
    SpecWorkload workload{static_cast<int32_t>(1 + random() % 40), {}, {}};
    const uint32_t n = random() % 60;
    std::vector<int32_t> depth = {1};
    for (uint32_t i = 1; i <= n; ++i) {
      // Every third: mostly a chain, longer than a panel.
      const bool chain = trial % 3 == 0 && random() % 8 != 0;
      workload.parent.push_back(chain ? i - 1 : random() % i);
      depth.push_back(depth[workload.parent.back()] + 1);
    }
    const int32_t deepest = *std::ranges::max_element(depth);
    for (int step = 0; step < 12; ++step) {
      workload.accept.push_back(static_cast<int32_t>(random() % (deepest + 1)));
    }
    replay_drafts(workload);
    if (HasFatalFailure()) return;
  }
}

// --- published traces

class PublishedTraces : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(folder_)) GTEST_SKIP() << folder_ << " is not on this machine";
  }
  TreeTrace trace(const std::string& name) {
    auto trace = open_tree_trace(folder_ + name + ".trace.json");
    EXPECT_TRUE(trace) << trace.error().message;
    return trace ? *std::move(trace) : TreeTrace();
  }
  std::string folder_ = BANYAN_SHARED_DATA "/traces/";
};

// The counters that the DeFT repository's own runs logged, and those of its first trees in full.
TEST_F(PublishedTraces, CountersAreThePublishedOnes) {
  const TreeTrace sorting = trace("sorting128ToT");
  const TreeTrace keyword = trace("keywordToT");
  const auto chosen = [](const TreeTrace& from, std::optional<int32_t> prompt = {}) {
    return *choose_workload(from, {}, prompt);
  };
  EXPECT_EQ(counted(chosen(sorting)), (Counters{3708, 33206, 18419741, 94328852}));
  EXPECT_EQ(counted(chosen(keyword)), (Counters{564, 5633, 1214791, 9729536}));
  const Counters cut_sorting = counted(chosen(sorting, 1000), 1999);
  EXPECT_EQ(cut_sorting[0], 1999);
  EXPECT_EQ(cut_sorting[2], 9481051);
  EXPECT_EQ(cut_sorting[3], 43560105);
  const Counters cut_keyword = counted(chosen(keyword, 1000), 1999);
  EXPECT_EQ(cut_keyword[2], 963811);
  EXPECT_EQ(cut_keyword[3], 7222851);
  EXPECT_EQ(counted(TraceTree{4000, std::vector<uint32_t>(20, 0), std::vector<int32_t>(20, 399)}),
            (Counters{399, 399 * 20, 3192000, 33516000}));
}

TEST_F(PublishedTraces, EveryTreeCountsAsItsDefinitionSaysAndLeavesNothing) {
  for (const char* name : {"sorting128ToT", "keywordToT"}) {
    for (const TraceTree& tree : trace(name).trees) {
      ASSERT_EQ(counted(tree), simulated(tree)) << name;
      expect_nothing_left(forest_of(tree), kAll);
    }
  }
}

// Of flatten with its blocks of 128: groups of rows that read a block, and rows of all groups.
TEST_F(PublishedTraces, FlattenCutsThePublishedBlocks) {
  const auto blocks = [](const TreeTrace& from) {
    const TreeWorkload workload = *choose_workload(from, {}, {});
    PanelPool pool = small_pool(count_steps(workload, kAll)->most_panels);
    KvTree tree(pool);
    StepView view(tree);
    const auto replay = started(workload, kAll, pool, tree);
    Plan plan;
    std::array<uint64_t, 2> sum{};
    while (*replay->next()) {
      view.update(replay->pieces());
      make_plan(PlanMethod::kFlatten, view.tree(), {32, 8, 128},
                {.n_workers = 2, .deterministic = false}, plan);
      sum[0] += plan.items.size();
      for (const Partial& partial : plan.partials) sum[1] += partial.row_end - partial.row_begin;
    }
    return sum;
  };
  EXPECT_EQ(blocks(trace("sorting128ToT")), (std::array<uint64_t, 2>{145752, 790774}));
  EXPECT_EQ(blocks(trace("keywordToT")), (std::array<uint64_t, 2>{9772, 82974}));
}

TEST_F(PublishedTraces, EveryDraftIsReplayed) {
  const TreeTrace spec = trace("spec");
  for (const auto& [size, parent] : spec.topologies) {
    const auto workload = choose_workload(spec, std::array{static_cast<int>(size)}, 50);
    ASSERT_TRUE(workload);
    auto drafts = std::get<SpecWorkload>(*workload);
    drafts.accept.resize(8);
    replay_drafts(drafts);
    if (HasFatalFailure()) return;
    const Counters all = counted(*workload);
    EXPECT_EQ(all[0], 401);
    EXPECT_EQ(all[1], 401 * static_cast<int64_t>(size));
  }
}

TEST(ChooseWorkload, NamesWhatThereIs) {
  TreeTrace trees;
  trees.trees = {{5, {}, {}}, {6, {0}, {1}}};
  TreeTrace forest = trees;
  forest.is_forest = true;
  TreeTrace spec;
  spec.topologies = {{1, {}}, {3, {0, 1}}};
  spec.records = {{0, {1}}};
  using Which = std::vector<int>;
  using Prompts = std::vector<int32_t>;
  const auto prompts = [&](const Which& which, std::optional<int32_t> prompt) {
    return prompt_lengths(*choose_workload(trees, which, prompt));
  };
  EXPECT_EQ(prompts({}, {}), Prompts{5});
  EXPECT_EQ(prompts({1}, {}), Prompts{6});
  EXPECT_EQ(prompts({1}, 77), Prompts{77});
  EXPECT_EQ(prompts({1, 0, 1}, {}), (Prompts{6, 5, 6}));
  EXPECT_EQ(prompt_lengths(*choose_workload(forest, {}, {})), (Prompts{5, 6}));
  EXPECT_EQ(prompt_lengths(*choose_workload(forest, Which{1}, 9)), Prompts{9});
  EXPECT_EQ(std::get<SpecWorkload>(*choose_workload(spec, Which{3}, 4)).parent.size(), 2U);
  const auto refusal = [](const Result<TreeWorkload>& refused) {
    EXPECT_FALSE(refused);
    return refused ? "" : refused.error().message;
  };
  EXPECT_EQ(refusal(choose_workload(trees, Which{0, 2}, {})),
            "--tree is 2, expected places from 0 to 1");
  EXPECT_EQ(refusal(choose_workload(trees, Which{-1}, {})),
            "--tree is -1, expected places from 0 to 1");
  EXPECT_EQ(refusal(choose_workload(forest, {}, kMostTreeTokens / 2)),
            "the trees have more than 134217728 tokens together");
  EXPECT_EQ(refusal(choose_workload(spec, {}, 4)),
            "--tree is 0, expected the size of a topology: 1, 3");
  EXPECT_EQ(refusal(choose_workload(spec, Which{1, 3}, 4)),
            "--tree is 1,3, expected the size of a topology: 1, 3");
  EXPECT_NE(refusal(choose_workload(spec, Which{3}, {})).find("--prompt N"), std::string::npos);
}

}  // namespace
}  // namespace banyan
