// SPDX-License-Identifier: Apache-2.0
#pragma once
// The steps of a generation that branches, as recorded: a real KV tree grows, forks and is pruned
// by them. Who computes what, and whether at all, is for others.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "base/result.h"
#include "engine/step_view.h"
#include "files/tree_trace_file.h"
#include "kv/pool.h"
#include "kv/tree.h"

namespace banyan {

// In every step a draft tree behind what is known: its root and every drafted token is a row that
// sees its ancestors. Of it the root and the leftmost path are kept, accept[step] tokens together.
struct SpecWorkload {
  int32_t prompt = 0;            // tokens
  std::vector<uint32_t> parent;  // of tokens 1, 2, .. of the draft; 0 is its root
  std::vector<int32_t> accept;
};

// Recorded trees (files/tree_trace_file.h says what their steps are), each behind a prompt of its
// own, that grow side by side: a step is one of all that have arrived and are not over. Steps are
// numbered from 1; those in which there is none, though one arrives later, are passed over.
struct ForestWorkload {
  std::vector<TraceTree> trees;
};

using TreeWorkload = std::variant<ForestWorkload, SpecWorkload>;

// What `which` names: places of trees (default: all of a forest, else the first), or the size of a
// topology, with the first record. Prompts are of `prompt` tokens, or as recorded. kBadInput,
// without the file's name, where there is no such thing, or trees have more than kMostTreeTokens
// together.
Result<TreeWorkload> choose_workload(const TreeTrace& trace, std::span<const int> which,
                                     std::optional<int32_t> prompt);

// Tokens of each prompt.
std::vector<int32_t> prompt_lengths(const TreeWorkload& workload);

// Puts the prompts into the tree, without K and V. kFailed where the pool is too small.
Result<std::vector<SeqId>> open_prompts(const TreeWorkload& workload, KvTree& tree);

class TreeReplay {
 public:
  virtual ~TreeReplay() = default;

  // What follows the last step (branches, prunes, what is kept of a draft), then the new tokens of
  // the next one. False if there is none; then nothing is left of the replay in the tree or pool.
  // kFailed where the pool is too small.
  virtual Result<bool> next() = 0;

  // The new tokens of the step, whose outputs are wanted: one for each live leaf of a tree, or for
  // each token of a draft. Tokens are numbers from 0 on, fewer than a tree or a draft has nodes.
  std::span<const Piece> pieces() const { return pieces_; }

  // Positions of prompts whose trees arrive after this step. Their KV is there from the beginning,
  // so that a replay takes the same memory for prompts that are computed before it.
  uint64_t waiting_positions() const { return waiting_positions_; }

 protected:
  std::vector<Piece> pieces_;
  uint64_t waiting_positions_ = 0;
};

// A replay of `most_steps` steps at most, behind `prompts`, sequences of the lengths asked for,
// which it drops. All references must outlive it; pool and tree, which are each other's, hold
// nothing else.
std::unique_ptr<TreeReplay> start_replay(const TreeWorkload& workload, int64_t most_steps,
                                         PanelPool& pool, KvTree& tree,
                                         std::span<const SeqId> prompts);

struct TreeCounts {
  int64_t steps = 0;
  int64_t queries = 0;      // rows of all steps
  uint64_t n_tree_sum = 0;  // positions of trees that grow, each once, the new ones with them
  uint64_t path_sum = 0;    // positions of all rows' paths
  uint32_t most_rows = 0;   // of a step
  uint32_t most_panels = 0;
};

// Replays without K, V and attention. kFailed if there is no memory for that.
Result<TreeCounts> count_steps(const TreeWorkload& workload, int64_t most_steps);

}  // namespace banyan
