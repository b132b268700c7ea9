// SPDX-License-Identifier: Apache-2.0
#include "engine/tree_replay.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "base/check.h"

namespace banyan {
namespace {

constexpr std::array<uint32_t, 1> kWanted = {0};  // of a piece of one token

class ForestReplay final : public TreeReplay {
 public:
  // Nodes of all trees follow each other. A node's tokens are all its place in its tree: siblings
  // differ.
  ForestReplay(const ForestWorkload& forest, int64_t most_steps, KvTree& tree,
               std::span<const SeqId> prompts)
      : tree_(tree), steps_left_(most_steps) {
    for (size_t i = 0; i < forest.trees.size(); ++i) add(forest.trees[i], prompts[i]);
    std::ranges::stable_sort(roots_, {}, [&](const Leaf& root) { return end_[root.node]; });
  }

  Result<bool> next() override {
    end_step();
    while (live_.empty() && n_arrived_ < roots_.size()) {
      step_ = end_[roots_[n_arrived_].node];
      end_step();
    }
    if (steps_left_-- == 0) drop_all();
    ++step_;
    pieces_.clear();
    for (const Leaf& leaf : live_) {
      pieces_.push_back({leaf.seq, std::span(&tokens_[leaf.node], 1), kWanted});
      BANYAN_TRY(tree_.extend(leaf.seq, pieces_.back().tokens));
    }
    return !live_.empty();
  }

 private:
  struct Leaf {
    uint32_t node;
    SeqId seq;
  };

  void add(const TraceTree& shape, SeqId prompt) {
    const auto root = static_cast<uint32_t>(end_.size());
    const size_t end = root + shape.len.size() + 1;
    end_.resize(end, shape.arrive);
    children_.resize(end);
    tokens_.resize(end);
    std::iota(tokens_.begin() + root, tokens_.end(), 0);
    for (uint32_t i = 0; i < shape.len.size(); ++i) {
      if (shape.len[i] == 0) continue;
      const uint32_t parent = root + shape.parent[i];
      end_[root + i + 1] = end_[parent] + shape.len[i];
      children_[parent].push_back(root + i + 1);
    }
    roots_.push_back({root, prompt});
    waiting_positions_ += static_cast<uint64_t>(shape.prompt);
  }

  // What comes after step_: trees arrive, then nodes that have all of their tokens branch or are
  // pruned.
  void end_step() {
    for (; n_arrived_ < roots_.size() && end_[roots_[n_arrived_].node] == step_; ++n_arrived_) {
      live_.push_back(roots_[n_arrived_]);
      waiting_positions_ -= static_cast<uint64_t>(tree_.length(live_.back().seq));
    }
    end_nodes();
  }

  void drop_all() {
    live_.insert(live_.end(), roots_.begin() + static_cast<ptrdiff_t>(n_arrived_), roots_.end());
    n_arrived_ = roots_.size();
    for (const Leaf& leaf : live_) tree_.drop(leaf.seq);
    live_.clear();
    waiting_positions_ = 0;
  }

  void end_nodes() {
    next_live_.clear();
    for (const Leaf& leaf : live_) {
      if (end_[leaf.node] != step_) {
        next_live_.push_back(leaf);
      } else if (children_[leaf.node].empty()) {
        tree_.drop(leaf.seq);
      } else {
        // The first goes on with its parent's sequence.
        for (const uint32_t child : children_[leaf.node]) {
          const bool first = child == children_[leaf.node].front();
          next_live_.push_back({child, first ? leaf.seq : tree_.fork(leaf.seq)});
        }
      }
    }
    live_.swap(next_live_);
  }

  KvTree& tree_;
  int64_t steps_left_;
  int64_t step_ = 0;  // the last one
  std::vector<int64_t>
      end_;  // by node: the step of its last token; its tree arrives after a root's
  std::vector<std::vector<uint32_t>> children_;
  std::vector<TokenId> tokens_;
  std::vector<Leaf> roots_;  // in the order of their arrival
  size_t n_arrived_ = 0;
  std::vector<Leaf> live_;
  std::vector<Leaf> next_live_;
};

class SpecReplay final : public TreeReplay {
 public:
  SpecReplay(const SpecWorkload& workload, int64_t most_steps, PanelPool& pool, KvTree& tree,
             SeqId prompt)
      : pool_(pool),
        tree_(tree),
        workload_(workload),
        steps_(std::min(most_steps, static_cast<int64_t>(workload.accept.size()))),
        drafts_(workload.parent.size() + 1, prompt),
        tokens_(workload.parent.size() + 1) {
    std::iota(tokens_.begin(), tokens_.end(), 0);
    find_paths();
  }

  Result<bool> next() override {
    if (step_ > 0) BANYAN_TRY(keep(workload_.accept[step_ - 1]));
    pieces_.clear();
    if (step_ == steps_) {
      tree_.drop(drafts_[0]);
      return false;
    }
    ++step_;
    for (size_t i = 0; i < drafts_.size(); ++i) {
      if (i > 0) drafts_[i] = tree_.fork(drafts_[workload_.parent[i - 1]]);
      pieces_.push_back({drafts_[i], std::span(&tokens_[i], 1), kWanted});
      BANYAN_TRY(tree_.extend(drafts_[i], pieces_.back().tokens));
    }
    return true;
  }

 private:
  // For each length the leftmost path: the first token of that depth, depth-first.
  void find_paths() {
    std::vector<std::vector<uint32_t>> children(drafts_.size());
    for (uint32_t i = 1; i < drafts_.size(); ++i) children[workload_.parent[i - 1]].push_back(i);
    std::vector<std::vector<uint32_t>> next = {{0}};
    std::vector<uint32_t> path;  // to where the search is
    paths_ = {{}};
    while (!next.empty()) {
      if (next.back().empty()) {
        next.pop_back();
        if (!path.empty()) path.pop_back();
        continue;
      }
      const uint32_t token = next.back().front();
      next.back().erase(next.back().begin());
      path.push_back(token);
      if (path.size() == paths_.size()) paths_.push_back(path);
      next.push_back(children[token]);
    }
  }

  // Keeps `n` tokens of the draft, from its root on. What lies in panels of the draft's own moves
  // behind what is known.
  Result<void> keep(int32_t n) {
    const std::vector<uint32_t>& path = paths_[n];
    from_.clear();
    for (const uint32_t token : path) {
      from_.push_back(tree_.slot(drafts_[token], tree_.length(drafts_[token]) - 1));
    }
    for (size_t i = drafts_.size(); i-- > 1;) tree_.drop(drafts_[i]);
    const SeqId known = drafts_[0];
    const Position begin = tree_.length(known) - 1;
    if (n == 0) {
      tree_.truncate(known, begin);
      return {};
    }
    kept_.clear();
    to_.clear();
    for (size_t i = 1; i < path.size(); ++i) kept_.push_back(tokens_[path[i]]);
    BANYAN_TRY(tree_.extend(known, kept_));
    for (int32_t i = 0; i < n; ++i) to_.push_back(tree_.slot(known, begin + i));
    pool_.copy(std::span(from_).subspan(1), std::span(to_).subspan(1));
    return {};
  }

  PanelPool& pool_;
  KvTree& tree_;
  SpecWorkload workload_;
  int64_t steps_;
  int64_t step_ = 0;
  std::vector<SeqId> drafts_;  // by token; the root's is that of all that is known
  std::vector<TokenId> tokens_;
  std::vector<std::vector<uint32_t>> paths_;  // by length
  std::vector<KvSlot> from_;
  std::vector<KvSlot> to_;
  std::vector<TokenId> kept_;
};

// More than any step of the replay can hold.
uint64_t panel_bound(const TreeWorkload& workload) {
  const auto of_node = [](uint64_t tokens) { return tokens / kPanelTokens + 2; };
  if (const auto* spec = std::get_if<SpecWorkload>(&workload)) {
    const auto kept = std::accumulate(spec->accept.begin(), spec->accept.end(), uint64_t{0});
    return of_node(spec->prompt + kept + 1) + spec->parent.size();
  }
  uint64_t panels = 0;
  for (const TraceTree& tree : std::get<ForestWorkload>(workload).trees) {
    panels += of_node(tree.prompt);
    for (const int32_t tokens : tree.len) panels += of_node(tokens);
  }
  return panels;
}

Result<TreeWorkload> choose_trees(const std::vector<TraceTree>& trees, std::span<const int> places,
                                  std::optional<int32_t> prompt) {
  ForestWorkload forest;
  int64_t tokens = 0;
  for (const int place : places) {
    if (place < 0 || static_cast<size_t>(place) >= trees.size()) {
      return bad_input(
          fmt::format("--tree is {}, expected places from 0 to {}", place, trees.size() - 1));
    }
    TraceTree& tree = forest.trees.emplace_back(trees[place]);
    tree.prompt = prompt.value_or(tree.prompt);
    tokens += std::accumulate(tree.len.begin(), tree.len.end(), int64_t{tree.prompt});
    if (tokens > kMostTreeTokens) {
      return bad_input(fmt::format("the trees have more than {} tokens together", kMostTreeTokens));
    }
  }
  return TreeWorkload(std::move(forest));
}

}  // namespace

Result<TreeWorkload> choose_workload(const TreeTrace& trace, std::span<const int> which,
                                     std::optional<int32_t> prompt) {
  std::vector<int> places(trace.is_forest ? trace.trees.size() : 1);  // by default
  std::iota(places.begin(), places.end(), 0);
  if (which.empty()) which = places;
  if (trace.topologies.empty()) return choose_trees(trace.trees, which, prompt);
  const auto topology = trace.topologies.find(which[0]);
  if (which.size() > 1 || topology == trace.topologies.end()) {
    std::vector<uint32_t> sizes;
    for (const auto& [size, parents] : trace.topologies) sizes.push_back(size);
    return bad_input(fmt::format("--tree is {}, expected the size of a topology: {}",
                                 fmt::join(which, ","), fmt::join(sizes, ", ")));
  }
  const SpecRecord& record = trace.records.front();
  if (!prompt && record.prompt == 0) {
    return bad_input("record 0 does not say how long its prompt was; --prompt N does");
  }
  return TreeWorkload(
      SpecWorkload{prompt.value_or(record.prompt), topology->second, record.accept});
}

std::vector<int32_t> prompt_lengths(const TreeWorkload& workload) {
  if (const auto* drafts = std::get_if<SpecWorkload>(&workload)) return {drafts->prompt};
  std::vector<int32_t> lengths;
  for (const TraceTree& tree : std::get<ForestWorkload>(workload).trees) {
    lengths.push_back(tree.prompt);
  }
  return lengths;
}

Result<std::vector<SeqId>> open_prompts(const TreeWorkload& workload, KvTree& tree) {
  std::vector<SeqId> prompts;
  for (const int32_t length : prompt_lengths(workload)) {
    const auto token = static_cast<TokenId>(prompts.size());
    prompts.push_back(tree.open({}, 0).seq);
    BANYAN_TRY(tree.extend(prompts.back(), std::vector<TokenId>(length, token)));
  }
  return prompts;
}

std::unique_ptr<TreeReplay> start_replay(const TreeWorkload& workload, int64_t most_steps,
                                         PanelPool& pool, KvTree& tree,
                                         std::span<const SeqId> prompts) {
  if (const auto* drafts = std::get_if<SpecWorkload>(&workload)) {
    return std::make_unique<SpecReplay>(*drafts, most_steps, pool, tree, prompts[0]);
  }
  return std::make_unique<ForestReplay>(std::get<ForestWorkload>(workload), most_steps, tree,
                                        prompts);
}

Result<TreeCounts> count_steps(const TreeWorkload& workload, int64_t most_steps) {
  constexpr KvShape kSmallest{.n_layers = 1, .n_kv_heads = 1, .head_dim = 1};
  auto pool = PanelPool::create(kSmallest, panel_bound(workload) * kSmallest.panel_bytes());
  if (!pool) return pool.error();
  KvTree tree(*pool);
  const auto prompts = open_prompts(workload, tree);
  if (!prompts) return prompts.error();
  const auto replay = start_replay(workload, most_steps, *pool, tree, *prompts);
  TreeCounts counts;
  while (true) {
    const auto more = replay->next();
    if (!more) return more.error();
    if (!*more) break;
    const auto pieces = replay->pieces();
    ++counts.steps;
    counts.queries += static_cast<int64_t>(pieces.size());
    counts.n_tree_sum += tree.positions() - replay->waiting_positions();
    for (const Piece& piece : pieces) counts.path_sum += tree.length(piece.seq);
    counts.most_rows = std::max(counts.most_rows, static_cast<uint32_t>(pieces.size()));
  }
  counts.most_panels = static_cast<uint32_t>(pool->peak_bytes() / pool->panel_bytes());
  return counts;
}

}  // namespace banyan
