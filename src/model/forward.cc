// SPDX-License-Identifier: Apache-2.0
#include "model/forward.h"

#include <algorithm>
#include <array>

#include "base/check.h"
#include "base/clock.h"

namespace banyan {
namespace {

// Row length in floats such that every row starts on a cache line.
int64_t padded(int64_t cols) { return (cols + 15) / 16 * 16; }

Matrix first_rows(const Matrix& m, int64_t rows) { return {m.data, rows, m.cols, m.stride}; }

// Moves some rows, given ascending, to the front. Returns a view of them.
Matrix keep_rows(const Matrix& m, std::span<const uint32_t> rows) {
  for (size_t i = 0; i < rows.size(); ++i) {
    const float* from = m.row(rows[i]);
    if (rows[i] != i) std::copy(from, from + m.cols, m.row(static_cast<int64_t>(i)));
  }
  return first_rows(m, static_cast<int64_t>(rows.size()));
}

Matrix first_cols(const Matrix& m, int64_t cols) { return {m.data, m.rows, cols, m.stride}; }

// The same memory as rows of `cols` without gaps between them.
Matrix dense(const Matrix& m, int64_t cols) { return {m.data, m.rows, cols, cols}; }

// Every head of every row as a row of its own. Requires rows without gaps.
Matrix heads_of(const Matrix& m, int head_dim) {
  return {m.data, m.rows * (m.cols / head_dim), head_dim, head_dim};
}

bool any_layer(const Model& model, auto predicate) {
  return std::ranges::any_of(model.layers, predicate);
}

// Adds the time since the last lap to one of the step's accounts.
class Stopwatch {
 public:
  void lap(int64_t& account) {
    const int64_t now = now_ns();
    account += now - last_;
    last_ = now;
  }

 private:
  int64_t last_ = now_ns();
};

}  // namespace

Activations::Activations(const Model& model, int max_rows)
    : max_rows_(max_rows), angles_(model.ropes.size()), rope_(model.ropes.size()) {
  const Hyperparameters& hp = model.hp;
  const int64_t q_width = int64_t{hp.n_heads} * hp.head_dim;
  const int64_t kv_width = int64_t{hp.n_kv_heads} * hp.head_dim;
  const bool adds_later = any_layer(model, [](const LayerWeights& w) {
    return w.attention_post_norm || w.ffn_post_norm || w.router;
  });
  const bool by_head =
      any_layer(model, [](const LayerWeights& w) { return static_cast<bool>(w.qkv_by_head); });
  const bool routes = hp.n_experts > 0;
  struct Part {
    Matrix* view;
    int64_t cols;
    int64_t stride;
  };
  const auto used = [](bool is_used, int64_t cols) { return is_used ? cols : 0; };
  // The executor takes q and gives its output densely, [rows][n_heads][head_dim]; norms of heads
  // want k densely too.
  const std::array parts = {
      Part{&residual_, hp.hidden, padded(hp.hidden)},
      Part{&normed_, hp.hidden, padded(hp.hidden)},
      Part{&q_, q_width, q_width},
      Part{&k_, kv_width, kv_width},
      Part{&v_, kv_width, kv_width},
      Part{&attended_, q_width, q_width},
      Part{&gate_, hp.ffn, padded(hp.ffn)},
      Part{&up_, hp.ffn, padded(hp.ffn)},
      Part{&ffn_normed_, used(hp.parallel_residual, hp.hidden), padded(hp.hidden)},
      Part{&block_, used(adds_later, hp.hidden), padded(hp.hidden)},
      Part{&qkv_, used(by_head, 3 * q_width), padded(3 * q_width)},
      Part{&scores_, used(routes, hp.n_experts), padded(hp.n_experts)},
      Part{&gathered_, used(routes, hp.hidden), padded(hp.hidden)}};
  const auto floats_of = [&](const Part& part) {
    return part.cols == 0 ? 0 : padded(max_rows * part.stride);
  };
  int64_t floats = 0;
  for (const Part& part : parts) floats += floats_of(part);
  memory_ = AlignedArray<float>(floats);
  float* next = memory_.data();
  for (const Part& part : parts) {
    *part.view = {next, max_rows, part.cols, part.stride};
    next += floats_of(part);
  }
}

// One forward pass: what it is given, and the parts it is made of.
class Pass {
 public:
  Pass(const Model& model, const StepInputs& in, Ops& ops, AttentionExecutor& attention,
       Activations& a, StepTimes& times)
      : model_(model),
        hp_(model.hp),
        in_(in),
        ops_(ops),
        attention_(attention),
        a_(a),
        times_(times),
        rows_(static_cast<int64_t>(in.tokens.size())),
        x_(first_rows(a.residual_, rows_)),
        h_(first_rows(a.normed_, rows_)) {}

  void run(Matrix output) {
    ops_.begin_step(in_.n_sequences);
    turn_angles();
    embed();
    for (int layer = 0; layer < hp_.n_layers; ++layer) {
      const LayerWeights& w = model_.layers[layer];
      norm(x_, w.attention_norm, h_);
      // The feed-forward block reads x as it is now, or as attention leaves it.
      if (hp_.parallel_residual) norm(x_, w.ffn_norm, first_rows(a_.ffn_normed_, rows_));
      // What the last layer adds is read by the output alone.
      const bool is_last = layer == hp_.n_layers - 1;
      store_kv(layer, w);
      if (is_last && in_.wanted_rows.empty()) return;
      attend(layer, w, is_last);
      const Matrix ffn_input = hp_.parallel_residual ? first_rows(a_.ffn_normed_, rows_) : h_;
      if (!hp_.parallel_residual) norm(x_, w.ffn_norm, ffn_input);
      feed_forward(hp_.layers[layer], w, ffn_input);
    }
    head(output);
  }

 private:
  void norm(ConstMatrix x, const NormWeights& w, Matrix out) {
    if (hp_.norm == NormKind::kRms) {
      ops_.rms_norm(x, w.weight, hp_.norm_eps, out);
    } else {
      ops_.layer_norm(x, w.weight, w.bias, hp_.norm_eps, out);
    }
  }

  void linear(ConstMatrix x, std::span<const LinearTarget> targets) {
    watch_.lap(times_.other_ns);
    ops_.linear(x, targets);
    watch_.lap(times_.weights_ns);
  }

  static LinearTarget target(const LinearWeights& w, Matrix out, bool accumulate = false) {
    return {w.weight, out, w.bias, accumulate};
  }

  void turn_angles() {
    for (size_t i = 0; i < model_.ropes.size(); ++i) {
      a_.rope_[i] =
          model_.ropes[i].angles(in_.plans[0].row_pos, a_.angles_[i].cos, a_.angles_[i].sin);
    }
  }

  void embed() {
    ops_.embed(model_.token_embedding, in_.tokens, x_);
    if (hp_.embedding_scale != 1) ops_.scale(hp_.embedding_scale, x_);
    if (!model_.position_embedding) return;
    a_.position_rows_.clear();
    for (const Position position : in_.plans[0].row_pos) {
      BANYAN_CHECK(position < hp_.max_positions, "a position without an embedding");
      a_.position_rows_.push_back(position + hp_.position_offset);
    }
    ops_.embed(model_.position_embedding, a_.position_rows_, h_);
    ops_.add(h_, x_);
  }

  // Adds to x what product(target) makes with `w`, through a norm where there is one.
  template <class F>
  void add_block(const LinearWeights& w, const NormWeights& post_norm, F product) {
    if (!post_norm) return product(target(w, x_, /*accumulate=*/true));
    const Matrix block = first_rows(a_.block_, rows_);
    product(target(w, block));
    norm(block, post_norm, block);
    ops_.add(block, x_);
  }

  void project(const LayerWeights& w, Matrix q, Matrix k, Matrix v) {
    if (w.qkv_by_head) {
      const Matrix qkv = first_rows(a_.qkv_, rows_);
      const LinearTarget all = target(w.qkv_by_head, qkv);
      linear(h_, {&all, 1});
      return ops_.split_heads(qkv, hp_.head_dim, q, k, v);
    }
    const std::array qkv = {target(w.q, q), target(w.k, k), target(w.v, v)};
    linear(h_, qkv);
  }

  Matrix q_of(const LayerShape& shape) const {
    return dense(first_rows(a_.q_, rows_), int64_t{shape.n_heads} * hp_.head_dim);
  }

  // h holds the normed x; writes the layer's Q and stores its K and V.
  void store_kv(int layer, const LayerWeights& w) {
    const LayerShape& shape = hp_.layers[layer];
    const int head_dim = hp_.head_dim;
    const int64_t kv_width = int64_t{shape.n_kv_heads} * head_dim;
    const Matrix q = q_of(shape);
    const Matrix k = dense(first_rows(a_.k_, rows_), kv_width);
    const Matrix v = dense(first_rows(a_.v_, rows_), kv_width);
    project(w, q, k, v);
    if (w.q_norm) norm(heads_of(q, head_dim), w.q_norm, heads_of(q, head_dim));
    if (w.k_norm) norm(heads_of(k, head_dim), w.k_norm, heads_of(k, head_dim));
    if (!a_.rope_.empty()) {
      ops_.rope(q, shape.n_heads, head_dim, a_.rope_[shape.rope]);
      ops_.rope(k, shape.n_kv_heads, head_dim, a_.rope_[shape.rope]);
    }
    ops_.store_kv(in_.planes[layer], in_.slots, k, v);
    watch_.lap(times_.other_ns);
  }

  // Adds the layer's attention to x; of the last layer, for the wanted rows alone.
  void attend(int layer, const LayerWeights& w, bool is_last) {
    const LayerShape& shape = hp_.layers[layer];
    const Matrix q = q_of(shape);
    Matrix attended = dense(first_rows(a_.attended_, rows_), q.cols);
    attention_.attend(
        in_.plans[shape.group],
        {q.data, in_.planes[layer], shape.n_heads, hp_.attention_scale, hp_.attention_softcap},
        {attended.data});
    watch_.lap(times_.attention_ns);
    if (is_last) {
      attended = keep_rows(attended, in_.wanted_rows);
      x_ = keep_rows(x_, in_.wanted_rows);
      if (hp_.parallel_residual) keep_rows(first_rows(a_.ffn_normed_, rows_), in_.wanted_rows);
      rows_ = x_.rows;
      h_ = first_rows(h_, rows_);
    }
    add_block(w.attention_output, w.attention_post_norm, [&](const LinearTarget& out) {
      linear(attended, {&out, 1});
    });
  }

  void feed_forward(ConstMatrix from, const FfnWeights& w, int ffn, const LinearTarget& down) {
    const Matrix gate = first_cols(first_rows(a_.gate_, from.rows), ffn);
    const Matrix up = first_cols(first_rows(a_.up_, from.rows), ffn);
    watch_.lap(times_.other_ns);
    if (w.gate) {
      ops_.feed_forward(from, target(w.gate, gate), target(w.up, up), hp_.activation, down);
    } else {
      const LinearTarget only = target(w.up, up);
      ops_.linear(from, {&only, 1});
      ops_.activate(hp_.activation, up);
      ops_.linear(up, {&down, 1});
    }
    watch_.lap(times_.weights_ns);
  }

  void feed_forward(const LayerShape& shape, const LayerWeights& w, Matrix from) {
    if (!w.router) {
      return add_block(w.ffn.down, w.ffn_post_norm, [&](const LinearTarget& down) {
        feed_forward(from, w.ffn, shape.ffn, down);
      });
    }
    BANYAN_CHECK(!w.ffn_post_norm, "experts add to x at once");
    const Matrix scores = first_rows(a_.scores_, rows_);
    const LinearTarget to_scores = target(w.router, scores);
    linear(from, {&to_scores, 1});
    Routing& routing = a_.routing_;
    route(scores, hp_.n_experts_used, routing);
    // Expert by expert in a fixed order, so that a row's sum does not depend on other rows.
    for (int e = 0; e < hp_.n_experts; ++e) {
      const uint32_t begin = routing.begin[e];
      const uint32_t n = routing.begin[e + 1] - begin;
      if (n == 0) continue;
      const auto rows = std::span<const uint32_t>(routing.rows).subspan(begin, n);
      const auto weights = std::span<const float>(routing.weights).subspan(begin, n);
      const Matrix gathered = first_rows(a_.gathered_, n);
      const Matrix block = first_rows(a_.block_, n);
      ops_.gather_rows(from, rows, gathered);
      feed_forward(gathered, w.experts[e], shape.ffn, target(w.experts[e].down, block));
      ops_.scatter_add(block, rows, weights, x_);
    }
  }

  void head(Matrix output) {
    const Matrix wanted = first_rows(output, rows_);
    if (in_.output == StepOutput::kHidden) return norm(x_, model_.output_norm, wanted);
    norm(x_, model_.output_norm, h_);
    const LinearTarget to_logits = target(model_.output, wanted);
    linear(h_, {&to_logits, 1});
    if (hp_.logit_softcap > 0) ops_.soft_cap(hp_.logit_softcap, wanted);
    watch_.lap(times_.other_ns);
  }

  const Model& model_;
  const Hyperparameters& hp_;
  const StepInputs& in_;
  Ops& ops_;
  AttentionExecutor& attention_;
  Activations& a_;
  StepTimes& times_;
  int64_t rows_;  // all, and in the last layer those whose output is wanted
  Matrix x_;      // the residual stream
  Matrix h_;      // its norm
  Stopwatch watch_;
};

void forward(const Model& model, const StepInputs& in, Ops& ops, AttentionExecutor& attention,
             Activations& activations, Matrix output, StepTimes& times) {
  BANYAN_CHECK(!in.tokens.empty() && in.tokens.size() <= size_t(activations.max_rows()),
               "step does not fit the activations");
  BANYAN_CHECK(in.plans.size() == model.hp.groups.size(), "a plan for each layer group");
  Pass(model, in, ops, attention, activations, times).run(output);
}

}  // namespace banyan
