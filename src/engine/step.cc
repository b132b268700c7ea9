// SPDX-License-Identifier: Apache-2.0
#include "engine/step.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/check.h"
#include "base/clock.h"
#include "sample/scan.h"

namespace banyan {

StepRunner::StepRunner(const Model& model, PanelPool& pool, KvTree& tree, StepDevice device,
                       PlanMethod method, int max_rows)
    : model_(model),
      tree_(tree),
      device_(device),
      method_(method),
      activations_(model, max_rows),
      plans_(model.hp.groups.size()) {
  for (const LayerGroup& group : model.hp.groups) {
    shapes_.push_back({group.n_heads, group.n_kv_heads, model.hp.head_dim, group.window});
  }
  for (int layer = 0; layer < model.hp.n_layers; ++layer) planes_.push_back(pool.planes(layer));
}

void StepRunner::reserve(int64_t positions) {
  const auto segments = static_cast<size_t>(positions / kSegmentTokens) + 64;
  for (Plan& plan : plans_) {
    plan.items.reserve(segments);
    plan.partials.reserve(segments);
    plan.merge_lists.reserve(segments);
  }
}

// Positions that are learned one by one end somewhere.
Result<void> StepRunner::check_positions(std::span<const Piece> pieces) const {
  const int most = model_.hp.max_positions;
  if (most == 0) return {};
  for (const Piece& piece : pieces) {
    if (tree_.length(piece.seq) + piece.tokens.size() <= static_cast<size_t>(most)) continue;
    return bad_input(fmt::format("the model has embeddings for {} positions, and no more", most));
  }
  return {};
}

// Either all pieces get their slots or none does.
Result<void> StepRunner::extend(std::span<const Piece> pieces) {
  for (size_t i = 0; i < pieces.size(); ++i) {
    auto extended = tree_.extend(pieces[i].seq, pieces[i].tokens);
    if (extended) continue;
    for (size_t j = 0; j < i; ++j) {
      const auto added = static_cast<int32_t>(pieces[j].tokens.size());
      tree_.truncate(pieces[j].seq, tree_.length(pieces[j].seq) - added);
    }
    return extended.error();
  }
  return {};
}

// Whether the rows and nodes of the last step stand but for one more token of every sequence.
bool StepRunner::continues(std::span<const Piece> pieces) const {
  return viewed_version_ == tree_.structure_version() &&
         std::ranges::equal(pieces, viewed_, [](const Piece& piece, SeqId seq) {
           return piece.seq == seq && piece.tokens.size() == 1;
         });
}

// The pieces in the tree's depth-first order.
void StepRunner::order_pieces(std::span<const Piece> pieces) {
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
uint32_t StepRunner::view_node(NodeId id, uint32_t row) {
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
void StepRunner::view_tree(std::span<const Piece> pieces) {
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
void StepRunner::advance_view(std::span<const Piece> pieces) {
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

Result<void> StepRunner::run(std::span<const Piece> pieces, StepOutput output) {
  size_t rows = 0;
  size_t wanted = 0;
  for (const Piece& piece : pieces) {
    BANYAN_CHECK(!piece.tokens.empty(), "a piece without tokens");
    rows += piece.tokens.size();
    wanted += piece.wanted.size();
  }
  BANYAN_CHECK(rows <= static_cast<size_t>(max_rows()), "more rows than a step may have");
  BANYAN_TRY(check_positions(pieces));
  const int64_t tree_start = now_ns();
  BANYAN_TRY(extend(pieces));
  const int64_t plan_start = now_ns();
  tree_ns_ += plan_start - tree_start;
  const bool is_next = continues(pieces) && positions_.size() == pieces.size();
  if (is_next) {
    advance_view(pieces);
  } else {
    view_tree(pieces);
  }
  const TreeView view{nodes_, sequences_, positions_};
  const DeviceDescription device{.n_workers = device_.n_workers,
                                 .deterministic = device_.deterministic};
  for (size_t group = 0; group < plans_.size(); ++group) {
    if (!is_next || !advance_plan(view, device, plans_[group])) {
      make_plan(method_, view, shapes_[group], device, plans_[group]);
    }
    device_.attention->prepare(plans_[group], planes_[0].shape, shapes_[group].n_heads);
  }
  plan_ns_ += now_ns() - plan_start;

  wanted_rows_.clear();
  output_begin_.resize(pieces.size());
  for (const uint32_t p : order_) {
    output_begin_[p] = static_cast<uint32_t>(wanted_rows_.size());
    for (const uint32_t index : pieces[p].wanted) {
      wanted_rows_.push_back(row_begin_[p] + index);
    }
  }
  output_width_ = output == StepOutput::kLogits ? model_.hp.vocab : model_.hp.hidden;
  const auto width = static_cast<int64_t>(output_width_);
  output_.reserve_discarding(wanted * output_width_);
  const Matrix rows_out{output_.data(), static_cast<int64_t>(wanted), width, width};
  forward(model_,
          {tokens_, slots_, plans_, planes_, wanted_rows_, output, static_cast<int>(pieces.size())},
          *device_.ops, *device_.attention, activations_, rows_out, times_);
  if (has_nan({output_.data(), wanted * output_width_})) {
    return bad_input(
        "the model gives logits that are not numbers; its weights or its config are damaged, a "
        "whole copy is needed");
  }
  return {};
}

}  // namespace banyan
