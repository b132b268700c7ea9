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
      view_(tree),
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
Result<void> StepRunner::check_positions(std::span<const Piece> pieces, bool extended) const {
  const int most = model_.hp.max_positions;
  if (most == 0) return {};
  for (const Piece& piece : pieces) {
    const size_t added = extended ? 0 : piece.tokens.size();
    if (tree_.length(piece.seq) + added <= static_cast<size_t>(most)) continue;
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

Result<void> StepRunner::run(std::span<const Piece> pieces, StepOutput output) {
  BANYAN_TRY(check_positions(pieces, /*extended=*/false));
  const int64_t start = now_ns();
  BANYAN_TRY(extend(pieces));
  tree_ns_ += now_ns() - start;
  return run_extended(pieces, output);
}

Result<void> StepRunner::run_extended(std::span<const Piece> pieces, StepOutput output) {
  size_t rows = 0;
  size_t wanted = 0;
  for (const Piece& piece : pieces) {
    BANYAN_CHECK(!piece.tokens.empty(), "a piece without tokens");
    rows += piece.tokens.size();
    wanted += piece.wanted.size();
  }
  BANYAN_CHECK(rows <= static_cast<size_t>(max_rows()), "more rows than a step may have");
  BANYAN_TRY(check_positions(pieces, /*extended=*/true));
  const int64_t plan_start = now_ns();
  const bool is_next = view_.update(pieces);
  const TreeView view = view_.tree();
  const DeviceDescription device{.n_workers = device_.n_workers,
                                 .deterministic = device_.deterministic,
                                 .block = device_.block};
  for (size_t group = 0; group < plans_.size(); ++group) {
    if (!is_next || !advance_plan(view, device, plans_[group])) {
      make_plan(method_, view, shapes_[group], device, plans_[group]);
    }
    device_.attention->prepare(plans_[group], planes_[0].shape, shapes_[group].n_heads);
  }
  plan_ns_ += now_ns() - plan_start;

  wanted_rows_.clear();
  output_begin_.resize(pieces.size());
  for (const uint32_t p : view_.order()) {
    output_begin_[p] = static_cast<uint32_t>(wanted_rows_.size());
    for (const uint32_t index : pieces[p].wanted) {
      wanted_rows_.push_back(view_.row_begin(p) + index);
    }
  }
  output_width_ = output == StepOutput::kLogits ? model_.hp.vocab : model_.hp.hidden;
  const auto width = static_cast<int64_t>(output_width_);
  output_.reserve_discarding(wanted * output_width_);
  const Matrix rows_out{output_.data(), static_cast<int64_t>(wanted), width, width};
  forward(model_,
          {view_.tokens(), view_.slots(), plans_, planes_, wanted_rows_, output,
           static_cast<int>(pieces.size())},
          *device_.ops, *device_.attention, activations_, rows_out, times_);
  if (has_nan({output_.data(), wanted * output_width_})) {
    return bad_input(
        "the model gives logits that are not numbers; its weights or its config are damaged, a "
        "whole copy is needed");
  }
  return {};
}

}  // namespace banyan
