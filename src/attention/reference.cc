// SPDX-License-Identifier: Apache-2.0
// The definition, in double: softmax(scale * q k^T) v over the visible keys of each item, and the
// merge of states as it is written down. No blocks, no tiles.

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "attention/executor.h"
#include "attention/kv_element.h"
#include "base/check.h"

namespace banyan {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

struct State {
  std::vector<double> o;  // [head_dim], not divided by l
  double m = kMinusInfinity;
  double l = 0;
};

struct Key {
  Position position = 0;
  PanelId panel = 0;
  int slot = 0;
};

class ReferenceExecutor final : public AttentionExecutor {
 public:
  void prepare(const Plan& plan, const KvShape& shape, int n_heads) override;
  void attend(const Plan& plan, const AttendInputs& in, const AttendOutputs& out) override;
  uint64_t workspace_bytes() const override { return workspace_.size() * sizeof(double); }

 private:
  std::vector<double> workspace_;  // laid out as the plan's partials
};

std::vector<Key> keys_of(const Plan& plan, const RunPart& of) {
  std::vector<Key> keys;
  RefWalk walk(plan, of);
  while (walk.position() < of.kv_end) {
    const RefWalk::Piece piece = walk.next();
    for (Position p = piece.begin; p < std::min(piece.end, of.kv_end); ++p) {
      keys.push_back({p, piece.panel, p % kPanelTokens});
    }
  }
  return keys;
}

bool visible(Band band, Position row, Position key) {
  if (band.window == Band::kNone) return true;
  if (key > row) return false;
  return band.window == Band::kCausal || int64_t{key} > int64_t{row} - band.window;
}

State attend_row(const std::vector<Key>& keys, Band band, Position row_pos, const float* q,
                 int kv_head, const AttendInputs& in) {
  const KvShape& shape = in.kv.shape;
  const int dim = shape.head_dim;
  State state;
  state.o.assign(dim, 0.0);
  std::vector<double> scores;
  for (const Key& key : keys) {
    double score = kMinusInfinity;
    if (visible(band, row_pos, key.position)) {
      const std::byte* k = in.kv.k_panel(kv_head, key.panel);
      score = 0;
      for (int d = 0; d < dim; ++d) {
        score += q[d] * load_k(shape, k, key.slot, d);
      }
      score *= in.scale;
      if (in.softcap > 0) score = in.softcap * std::tanh(score / in.softcap);
    }
    scores.push_back(score);
    state.m = std::max(state.m, score);
  }
  for (size_t i = 0; i < keys.size(); ++i) {
    if (scores[i] == kMinusInfinity) continue;
    const double p = std::exp(scores[i] - state.m);
    const std::byte* v = in.kv.v_panel(kv_head, keys[i].panel);
    state.l += p;
    for (int d = 0; d < dim; ++d) {
      state.o[d] += p * load_v(shape, v, keys[i].slot, d);
    }
  }
  return state;
}

void merge_into(State& into, const State& from) {
  const double m = std::max(into.m, from.m);
  if (m == kMinusInfinity) return;
  const double a = std::exp(into.m - m);
  const double b = std::exp(from.m - m);
  for (size_t d = 0; d < into.o.size(); ++d) into.o[d] = into.o[d] * a + from.o[d] * b;
  into.l = into.l * a + from.l * b;
  into.m = m;
}

void write_final(const State& state, uint32_t row, int head, const AttendInputs& in,
                 const AttendOutputs& out) {
  const size_t index = size_t{row} * in.n_heads + head;
  for (size_t d = 0; d < state.o.size(); ++d) {
    out.out[index * state.o.size() + d] =
        state.l > 0 ? static_cast<float>(state.o[d] / state.l) : 0.0f;
  }
  if (out.lse != nullptr) out.lse[index] = static_cast<float>(state.m + std::log(state.l));
}

// Where a partial holds the state of (row, head).
struct PartialSlot {
  double* o;
  double* m;
  double* l;
};

PartialSlot partial_slot(std::vector<double>& workspace, const Partial& partial, uint32_t row,
                         int head, const AttendInputs& in) {
  const uint64_t state = partial.state(row, head, in.n_heads / in.kv.shape.n_kv_heads);
  double* ml = workspace.data() + partial.ml_offset;
  return {workspace.data() + partial.o_offset + state * in.kv.shape.head_dim, ml + state,
          ml + partial.states() + state};
}

void ReferenceExecutor::prepare(const Plan& plan, const KvShape&, int) {
  if (workspace_.size() < plan.workspace_floats) workspace_.resize(plan.workspace_floats);
}

void ReferenceExecutor::attend(const Plan& plan, const AttendInputs& in, const AttendOutputs& out) {
  const int dim = in.kv.shape.head_dim;
  BANYAN_CHECK(workspace_.size() >= plan.workspace_floats, "prepare() comes before attend()");
  for (const WorkItem& item : plan.items) {
    const HeadRange heads = plan.heads_of(item);
    const std::span<const RunPart> parts = plan.parts_of(item);
    std::vector<std::vector<Key>> keys;
    for (const RunPart& part : parts) keys.push_back(keys_of(plan, part));
    for (uint32_t row = item.row_begin; row < item.row_end; ++row) {
      for (int head = heads.begin; head < heads.end; ++head) {
        const float* q = in.q + (size_t{row} * in.n_heads + head) * dim;
        const int kv_head = head / (in.n_heads / in.kv.shape.n_kv_heads);
        State state;
        state.o.assign(dim, 0.0);
        for (size_t i = 0; i < parts.size(); ++i) {
          if (row < parts[i].row_begin || row >= parts[i].row_end) continue;
          const Band band = plan.runs[parts[i].run].band;
          merge_into(state, attend_row(keys[i], band, plan.row_pos[row], q, kv_head, in));
        }
        if (item.partial == WorkItem::kFinal) {
          write_final(state, row, head, in, out);
          continue;
        }
        const PartialSlot slot =
            partial_slot(workspace_, plan.partials[item.partial], row, head, in);
        std::copy(state.o.begin(), state.o.end(), slot.o);
        *slot.m = state.m;
        *slot.l = state.l;
      }
    }
  }
  for (const Merge& merge : plan.merges) {
    for (uint32_t row = merge.row_begin; row < merge.row_end; ++row) {
      for (int head = merge.heads.begin; head < merge.heads.end; ++head) {
        State state;
        state.o.assign(dim, 0.0);
        for (uint32_t i = 0; i < merge.list_count; ++i) {
          const Partial& partial = plan.partials[plan.merge_lists[merge.list_begin + i]];
          const PartialSlot slot = partial_slot(workspace_, partial, row, head, in);
          merge_into(state, {{slot.o, slot.o + dim}, *slot.m, *slot.l});
        }
        write_final(state, row, head, in, out);
      }
    }
  }
}

}  // namespace

std::unique_ptr<AttentionExecutor> make_reference_executor() {
  return std::make_unique<ReferenceExecutor>();
}

}  // namespace banyan
