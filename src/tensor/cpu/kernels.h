// SPDX-License-Identifier: Apache-2.0
#pragma once
// SIMD kernels of the CPU operations, one table for each instruction set. Each works on one row or
// one head, in f32, and rounds once at the end. Immutable; safe from any thread.

#include <cstddef>
#include <cstdint>

#include "base/isa.h"
#include "tensor/ops.h"

namespace banyan {

// sums[r] = dot product of one row of n weights with row r of x, for n_rows rows that lie x_stride
// floats apart. The arithmetic of a row does not depend on how many rows there are.
using RowDots = void (*)(const std::byte* weights, const float* x, int64_t x_stride, int64_t n_rows,
                         int64_t n, float* sums);

struct Kernels {
  RowDots dots_f32;
  RowDots dots_f16;
  RowDots dots_bf16;

  // Conversions; to 16 bits by rounding to nearest, ties to even.
  void (*f32_to_f16)(const float* in, uint16_t* out, int64_t n);
  void (*f32_to_bf16)(const float* in, uint16_t* out, int64_t n);
  void (*f16_to_f32)(const std::byte* in, float* out, int64_t n);
  void (*bf16_to_f32)(const std::byte* in, float* out, int64_t n);

  // out[i] += x[i]
  void (*add)(const float* x, float* out, int64_t n);
  // out[i] = x[i] / sqrt(mean(x^2) + eps) * weight[i]; out may be x
  void (*rms_norm)(const float* x, const float* weight, float eps, float* out, int64_t n);
  // out[i] = (x[i] - mean(x)) / sqrt(variance(x) + eps) * weight[i] + bias[i]; out may be x
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, float* out,
                     int64_t n);
  // By Activation: x[i] = activation(x[i]), and out[i] = activation(gate[i]) * up[i], where out may
  // be gate. erf is off by 4e-7 at most.
  void (*activate[kActivations])(float* x, int64_t n);
  void (*gated[kActivations])(const float* gate, const float* up, float* out, int64_t n);
  // x[i] *= factor
  void (*scale)(float factor, float* x, int64_t n);
  // out[i] += factor * x[i]
  void (*add_scaled)(float factor, const float* x, float* out, int64_t n);
  // x[i] = cap * tanh(x[i] / cap)
  void (*soft_cap)(float cap, float* x, int64_t n);
  // Turns n_pairs pairs of one head: (x[i], x[i + n_pairs]), or (x[2i], x[2i + 1]).
  void (*rope_halves)(float* x, const float* cos, const float* sin, int64_t n_pairs);
  void (*rope_pairs)(float* x, const float* cos, const float* sin, int64_t n_pairs);
};

// The kernels for `isa`, or for the next lower set that they were written for.
const Kernels& kernels(Isa isa);

}  // namespace banyan
