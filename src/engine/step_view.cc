// SPDX-License-Identifier: Apache-2.0
#include "engine/step_view.h"

#include <algorithm>

#include "base/check.h"

namespace banyan {

bool StepView::update(std::span<const Piece> pieces) {
  const bool is_next = continues(pieces);
  if (is_next) {
    advance(pieces);
  } else {
    view(pieces);
  }
  return is_next;
}

// Whether the rows and nodes of the last step stand but for one more token of every sequence.
bool StepView::continues(std::span<const Piece> pieces) const {
  return viewed_version_ == tree_.structure_version() && positions_.size() == pieces.size() &&
         std::ranges::equal(pieces, viewed_, [](const Piece& piece, SeqId seq) {
           return piece.seq == seq && piece.tokens.size() == 1;
         });
}

// The pieces in the tree's depth-first order.
void StepView::order_pieces(std::span<const Piece> pieces) {
  constexpr uint32_t kNone = ~uint32_t{0};
  piece_of_.assign(piece_of_.size(), kNone);
  for (uint32_t i = 0; i < pieces.size(); ++i) {
    if (pieces[i].seq >= piece_of_.size()) piece_of_.resize(pieces[i].seq + 64, kNone);
    piece_of_[pieces[i].seq] = i;
  }
  order_.clear();
  for (SeqId seq = tree_.first_sequence(); seq != kNoSequence; seq = tree_.next_sequence(seq)) {
    if (seq < piece_of_.size() && piece_of_[seq] != kNone) order_.push_back(piece_of_[seq]);
  }
  BANYAN_CHECK(order_.size() == pieces.size(), "pieces are of distinct live sequences");
}

// The place of a tree's node in nodes_, where it and what is above it are listed if they are not
// yet.
uint32_t StepView::view_node(NodeId id, uint32_t row) {
  path_nodes_.clear();
  for (; id != 0; id = tree_.node(id).parent) {
    if (id >= stamp_.size()) {
      stamp_.resize(id + 64, 0);
      view_index_.resize(id + 64, 0);
    }
    if (stamp_[id] == current_stamp_) break;
    path_nodes_.push_back(id);
  }
  uint32_t parent = id == 0 ? NodeView::kNoParent : view_index_[id];
  for (size_t i = path_nodes_.size(); i-- > 0;) {
    const NodeId next = path_nodes_[i];
    const KvTree::Node& node = tree_.node(next);
    stamp_[next] = current_stamp_;
    view_index_[next] = static_cast<uint32_t>(nodes_.size());
    nodes_.push_back(
        {parent, node.begin, static_cast<int32_t>(node.tokens.size()), node.refs, row, row});
    parent = view_index_[next];
  }
  return parent;
}

// Numbers the rows and lists the nodes that they see.
void StepView::view(std::span<const Piece> pieces) {
  order_pieces(pieces);
  nodes_.clear();
  sequences_.clear();
  positions_.clear();
  tokens_.clear();
  slots_.clear();
  row_begin_.resize(pieces.size());
  ++current_stamp_;
  for (const uint32_t p : order_) {
    const Piece& piece = pieces[p];
    const auto row = static_cast<uint32_t>(tokens_.size());
    const auto row_end = row + static_cast<uint32_t>(piece.tokens.size());
    row_begin_[p] = row;
    const uint32_t leaf = view_node(tree_.leaf(piece.seq), row);
    nodes_[leaf].row_end = row_end;
    sequences_.push_back({leaf, row, row_end});
    const Position end = tree_.length(piece.seq);
    Position position = end - static_cast<Position>(piece.tokens.size());
    for (const TokenId token : piece.tokens) {
      tokens_.push_back(token);
      slots_.push_back(tree_.slot(piece.seq, position));
      positions_.push_back(position++);
    }
  }
  for (size_t i = nodes_.size(); i-- > 0;) {
    if (nodes_[i].parent == NodeView::kNoParent) continue;
    NodeView& parent = nodes_[nodes_[i].parent];
    parent.row_end = std::max(parent.row_end, nodes_[i].row_end);
  }
  viewed_.clear();
  for (const Piece& piece : pieces) viewed_.push_back(piece.seq);
  viewed_version_ = tree_.structure_version();
}

// The same rows, each a position further.
void StepView::advance(std::span<const Piece> pieces) {
  for (size_t row = 0; row < order_.size(); ++row) {
    const Piece& piece = pieces[order_[row]];
    const KvTree::Node& leaf = tree_.node(tree_.leaf(piece.seq));
    NodeView& view = nodes_[sequences_[row].leaf];
    view.kv_len = static_cast<int32_t>(leaf.tokens.size());
    view.refs = leaf.refs;
    positions_[row] = leaf.end() - 1;
    tokens_[row] = piece.tokens[0];
    slots_[row] = {leaf.refs.back().panel, positions_[row] % kPanelTokens};
  }
}

}  // namespace banyan
