// SPDX-License-Identifier: Apache-2.0
#include "model/forward.h"

#include <algorithm>
#include <array>
#include <cmath>

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

Activations::Activations(const Hyperparameters& hp, int max_rows) : max_rows_(max_rows) {
  const int64_t q_width = int64_t{hp.n_heads} * hp.head_dim;
  const int64_t kv_width = int64_t{hp.n_kv_heads} * hp.head_dim;
  struct Part {
    Matrix* view;
    int64_t cols;
    int64_t stride;
  };
  // The executor takes q and gives its output densely, [rows][n_heads][head_dim].
  const std::array parts = {Part{&residual_, hp.hidden, padded(hp.hidden)},
                            Part{&normed_, hp.hidden, padded(hp.hidden)},
                            Part{&q_, q_width, q_width},
                            Part{&k_, kv_width, padded(kv_width)},
                            Part{&v_, kv_width, padded(kv_width)},
                            Part{&attended_, q_width, q_width},
                            Part{&gate_, hp.ffn, padded(hp.ffn)},
                            Part{&up_, hp.ffn, padded(hp.ffn)}};
  int64_t floats = 0;
  for (const Part& part : parts) floats += padded(max_rows * part.stride);
  memory_ = AlignedArray<float>(floats);
  float* next = memory_.data();
  for (const Part& part : parts) {
    *part.view = {next, max_rows, part.cols, part.stride};
    next += padded(max_rows * part.stride);
  }
}

void forward(const Model& model, const StepInputs& in, Ops& ops, AttentionExecutor& attention,
             Activations& activations, Matrix logits, StepTimes& times) {
  const Hyperparameters& hp = model.hp;
  const auto rows = static_cast<int64_t>(in.tokens.size());
  BANYAN_CHECK(rows >= 1 && rows <= activations.max_rows(), "step does not fit the activations");
  Matrix x = first_rows(activations.residual_, rows);
  Matrix h = first_rows(activations.normed_, rows);
  const Matrix q = first_rows(activations.q_, rows);
  const Matrix k = first_rows(activations.k_, rows);
  const Matrix v = first_rows(activations.v_, rows);
  Matrix attended = first_rows(activations.attended_, rows);
  Matrix gate = first_rows(activations.gate_, rows);
  Matrix up = first_rows(activations.up_, rows);
  const float scale = 1.0F / std::sqrt(static_cast<float>(hp.head_dim));

  Stopwatch watch;
  const RopeAngles angles = model.rope.angles(in.plan->row_pos, activations.cos_, activations.sin_);
  ops.embed(model.token_embedding, in.tokens, x);
  for (int layer = 0; layer < hp.n_layers; ++layer) {
    const LayerWeights& w = model.layers[layer];
    ops.rms_norm(x, w.attention_norm, hp.rms_eps, h);
    watch.lap(times.other_ns);
    const std::array qkv = {LinearTarget{w.q, q}, LinearTarget{w.k, k}, LinearTarget{w.v, v}};
    ops.linear(h, qkv);
    watch.lap(times.weights_ns);
    ops.rope(q, hp.n_heads, hp.head_dim, angles);
    ops.rope(k, hp.n_kv_heads, hp.head_dim, angles);
    ops.store_kv(in.planes[layer], in.slots, k, v);
    watch.lap(times.other_ns);
    // What the last layer adds is read by the logits alone.
    const bool is_last = layer == hp.n_layers - 1;
    if (is_last && in.logit_rows.empty()) return;
    attention.attend(*in.plan, {q.data, in.planes[layer], hp.n_heads, scale}, {attended.data});
    watch.lap(times.attention_ns);
    if (is_last) {
      x = keep_rows(x, in.logit_rows);
      attended = keep_rows(attended, in.logit_rows);
      for (Matrix* m : {&h, &gate, &up}) *m = first_rows(*m, x.rows);
    }
    const LinearTarget attention_output{w.attention_output, x, nullptr, /*accumulate=*/true};
    ops.linear(attended, {&attention_output, 1});
    watch.lap(times.weights_ns);

    ops.rms_norm(x, w.ffn_norm, hp.rms_eps, h);
    watch.lap(times.other_ns);
    const std::array gate_up = {LinearTarget{w.gate, gate}, LinearTarget{w.up, up}};
    ops.linear(h, gate_up);
    watch.lap(times.weights_ns);
    ops.swiglu(gate, up, gate);
    watch.lap(times.other_ns);
    const LinearTarget down{w.down, x, nullptr, /*accumulate=*/true};
    ops.linear(gate, {&down, 1});
    watch.lap(times.weights_ns);
  }

  ops.rms_norm(x, model.output_norm, hp.rms_eps, h);
  watch.lap(times.other_ns);
  const LinearTarget head{model.output, first_rows(logits, x.rows)};
  ops.linear(h, {&head, 1});
  watch.lap(times.weights_ns);
}

}  // namespace banyan
