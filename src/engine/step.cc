// SPDX-License-Identifier: Apache-2.0
#include "engine/step.h"

#include <algorithm>
#include <numeric>

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

// Depth-first order: sequences sorted by their paths, so that the users of every node are
// neighbours.
void StepRunner::order_pieces(std::span<const Piece> pieces) {
  path_nodes_.clear();
  path_begin_.assign(1, 0);
  for (const Piece& piece : pieces) {
    tree_.path(piece.seq, path_nodes_);
    path_begin_.push_back(static_cast<uint32_t>(path_nodes_.size()));
  }
  order_.resize(pieces.size());
  std::iota(order_.begin(), order_.end(), 0);
  const auto path = [&](uint32_t piece) {
    return std::span(path_nodes_)
        .subspan(path_begin_[piece], path_begin_[piece + 1] - path_begin_[piece]);
  };
  std::sort(order_.begin(), order_.end(), [&](uint32_t a, uint32_t b) {
    const auto pa = path(a);
    const auto pb = path(b);
    return std::lexicographical_compare(pa.begin(), pa.end(), pb.begin(), pb.end());
  });
}

// Numbers the rows and lists the nodes that they see.
void StepRunner::view_tree(std::span<const Piece> pieces) {
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
    uint32_t parent = NodeView::kNoParent;
    for (uint32_t i = path_begin_[p]; i < path_begin_[p + 1]; ++i) {
      const NodeId id = path_nodes_[i];
      if (id >= stamp_.size()) {
        stamp_.resize(id + 64, 0);
        view_index_.resize(id + 64, 0);
      }
      if (stamp_[id] != current_stamp_) {
        stamp_[id] = current_stamp_;
        view_index_[id] = static_cast<uint32_t>(nodes_.size());
        const KvTree::Node& node = tree_.node(id);
        nodes_.push_back({parent, node.begin, static_cast<int32_t>(node.tokens.size()),
                          node.refs, row, row_end});
      }
      parent = view_index_[id];
      nodes_[parent].row_end = row_end;
    }
    sequences_.push_back({parent, row, row_end});
    const Position end = tree_.length(piece.seq);
    Position position = end - static_cast<Position>(piece.tokens.size());
    for (const TokenId token : piece.tokens) {
      tokens_.push_back(token);
      slots_.push_back(tree_.slot(piece.seq, position));
      positions_.push_back(position++);
    }
  }
}

Result<void> StepRunner::run(std::span<const Piece> pieces, StepOutput output) {
  const int64_t plan_start = now_ns();
  size_t rows = 0;
  size_t wanted = 0;
  for (const Piece& piece : pieces) {
    BANYAN_CHECK(!piece.tokens.empty(), "a piece without tokens");
    rows += piece.tokens.size();
    wanted += piece.wanted.size();
  }
  BANYAN_CHECK(rows <= static_cast<size_t>(max_rows()), "more rows than a step may have");
  BANYAN_TRY(check_positions(pieces));
  BANYAN_TRY(extend(pieces));
  order_pieces(pieces);
  view_tree(pieces);
  for (size_t group = 0; group < plans_.size(); ++group) {
    make_plan(method_, {nodes_, sequences_, positions_}, shapes_[group],
              {.n_workers = device_.n_workers, .deterministic = device_.deterministic},
              plans_[group]);
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
  forward(model_, {tokens_, slots_, plans_, planes_, wanted_rows_, output}, *device_.ops,
          *device_.attention, activations_, rows_out, times_);
  if (has_nan({output_.data(), wanted * output_width_})) {
    return bad_input(
        "the model gives logits that are not numbers; its weights or its config are damaged, a "
        "whole copy is needed");
  }
  return {};
}

}  // namespace banyan
