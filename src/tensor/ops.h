// SPDX-License-Identifier: Apache-2.0
#pragma once
// The operations a forward pass is written in, attention apart. One implementation per device;
// model/ speaks to this interface only. Calls are made from one thread, run on the device's own
// workers and are complete on return (CPU). Rows are independent of each other in every operation.

#include <cstdint>
#include <span>

#include "base/ids.h"
#include "tensor/kv_layout.h"
#include "tensor/matrix.h"

namespace banyan {

// How products of weights and activations may be computed.
enum class Compute {
  kAuto,  // bf16, 16-bit or 8-bit activations where the weights are bf16 or quantised
  kF32,   // every weight expanded to f32, products and sums in f32
};

// What a feed-forward block does between its products.
enum class Activation {
  kSilu,      // x / (1 + exp(-x))
  kGelu,      // x (1 + erf(x / sqrt(2))) / 2
  kGeluTanh,  // its approximation x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2
  kRelu,
};
inline constexpr int kActivations = 4;

// One product of a linear(): out[r][n] = sum_k x[r][k] * weight[n][k] (+ bias[n]) (+ out[r][n]).
struct LinearTarget {
  Weight weight;
  Matrix out;                   // [x.rows][weight.rows]
  const float* bias = nullptr;  // [weight.rows] or none
  bool accumulate = false;      // add to what `out` holds (residual)
};

// Angles of one step: cos and sin already hold the attention factor of YaRN and its kin.
struct RopeAngles {
  const float* cos = nullptr;  // [rows][rot_dim / 2]
  const float* sin = nullptr;  // [rows][rot_dim / 2]
  int rot_dim = 0;             // leading dimensions of a head that turn; even, <= head_dim
  bool interleaved = false;    // pairs are (2i, 2i + 1), else (i, i + rot_dim / 2)
};

class Ops {
 public:
  virtual ~Ops() = default;

  // The calls that follow are for rows of this many sequences, until the next begin_step(). One at
  // first. Products for many sequences may be rounded as those of many rows are.
  virtual void begin_step(int n_sequences) = 0;

  // out[r] = table[tokens[r]] as f32. Requires 0 <= tokens[r] < table.rows.
  virtual void embed(const Weight& table, std::span<const TokenId> tokens, Matrix out) = 0;

  // out[r][i] = x[r][i] / sqrt(mean_i(x[r]^2) + eps) * weight[i]; out may be x.
  virtual void rms_norm(ConstMatrix x, const float* weight, float eps, Matrix out) = 0;

  // out[r][i] = (x[r][i] - mean(x[r])) / sqrt(variance(x[r]) + eps) * weight[i] + bias[i]; out may
  // be x.
  virtual void layer_norm(ConstMatrix x, const float* weight, const float* bias, float eps,
                          Matrix out) = 0;

  // All targets read the same x; they run as one parallel region. Outputs must not overlap x.
  virtual void linear(ConstMatrix x, std::span<const LinearTarget> targets) = 0;

  // Turns x, [rows][n_heads * head_dim], in place.
  virtual void rope(Matrix x, int n_heads, int head_dim, const RopeAngles& angles) = 0;

  // Writes row r of k and v, each [rows][n_kv_heads * head_dim], into slots[r] of one layer's
  // planes, rounded to the planes' types.
  virtual void store_kv(const KvPlanes& planes, std::span<const KvSlot> slots, ConstMatrix k,
                        ConstMatrix v) = 0;

  // out = activation(gate) * up, element by element; out may be gate.
  virtual void gated(Activation activation, ConstMatrix gate, ConstMatrix up, Matrix out) = 0;

  // A feed-forward block: down.out (+)= down.weight * (activation(gate) * up) + down.bias, where
  // gate and up are as linear() makes them of x. gate.out and up.out may be used for them or not.
  virtual void feed_forward(ConstMatrix x, const LinearTarget& gate, const LinearTarget& up,
                            Activation activation, const LinearTarget& down) = 0;

  // x = activation(x), element by element.
  virtual void activate(Activation activation, Matrix x) = 0;

  // x += y; x *= factor; x = cap * tanh(x / cap): element by element.
  virtual void add(ConstMatrix y, Matrix x) = 0;
  virtual void scale(float factor, Matrix x) = 0;
  virtual void soft_cap(float cap, Matrix x) = 0;

  // x, [rows][n_heads][3][head_dim], into q, k and v, each [rows][n_heads * head_dim].
  virtual void split_heads(ConstMatrix x, int head_dim, Matrix q, Matrix k, Matrix v) = 0;

  // out[i] = x[rows[i]].
  virtual void gather_rows(ConstMatrix x, std::span<const uint32_t> rows, Matrix out) = 0;

  // x[rows[i]] += weights[i] * y[i]. Rows differ.
  virtual void scatter_add(ConstMatrix y, std::span<const uint32_t> rows,
                           std::span<const float> weights, Matrix x) = 0;
};

}  // namespace banyan
