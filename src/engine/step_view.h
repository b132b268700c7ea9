// SPDX-License-Identifier: Apache-2.0
#pragma once
// What planners see of a step: its rows, numbered along the tree, and the nodes that they attend
// to.

#include <cstdint>
#include <span>
#include <vector>

#include "attention/plan.h"
#include "base/ids.h"
#include "kv/tree.h"
#include "tensor/kv_layout.h"

namespace banyan {

// New tokens of one sequence, in order; they become its next positions.
struct Piece {
  SeqId seq = 0;
  std::span<const TokenId> tokens;   // at least one
  std::span<const uint32_t> wanted;  // of these tokens, ascending; whose output is wanted
};

// The rows of one step after another. Not thread safe; allocates nothing once steps of a size have
// been seen.
class StepView {
 public:
  // `tree` must outlive the view.
  explicit StepView(const KvTree& tree) : tree_(tree) {}

  // Views the step that these pieces make, whose tokens are the newest of their sequences already.
  // Its rows are those of the pieces in the tree's order of sequences; a sequence may end where
  // others go on. True if rows and nodes are the last step's but for one more token of every
  // sequence, as advance_plan() wants it. Requires pieces of distinct sequences.
  bool update(std::span<const Piece> pieces);

  // The next update() takes nothing over from the last step, and is false.
  void restart() { viewed_.clear(); }

  // Of the last step; these hold until the tree next changes.
  TreeView tree() const { return {nodes_, sequences_, positions_}; }
  const std::vector<uint32_t>& order() const { return order_; }  // of pieces: that of their rows
  uint32_t row_begin(size_t piece) const { return row_begin_[piece]; }  // its first row
  const std::vector<TokenId>& tokens() const { return tokens_; }        // by row
  const std::vector<KvSlot>& slots() const { return slots_; }           // by row

 private:
  bool continues(std::span<const Piece> pieces) const;
  void advance(std::span<const Piece> pieces);
  void view(std::span<const Piece> pieces);
  void order_pieces(std::span<const Piece> pieces);
  uint32_t view_node(NodeId id, uint32_t row);

  const KvTree& tree_;
  std::vector<uint32_t> order_;
  std::vector<uint32_t> row_begin_;
  std::vector<NodeView> nodes_;
  std::vector<SequenceView> sequences_;
  std::vector<Position> positions_;
  std::vector<TokenId> tokens_;
  std::vector<KvSlot> slots_;
  std::vector<SeqId> viewed_;               // sequences of the last step's pieces
  uint64_t viewed_version_ = ~uint64_t{0};  // of the tree's structure in the last step

  // Scratch, kept for its capacity.
  std::vector<NodeId> path_nodes_;    // of view_node()
  std::vector<uint32_t> piece_of_;    // by SeqId
  std::vector<uint32_t> view_index_;  // by NodeId: its place in nodes_, where stamp_ is current
  std::vector<uint64_t> stamp_;       // by NodeId
  uint64_t current_stamp_ = 0;
};

}  // namespace banyan
