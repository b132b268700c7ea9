// SPDX-License-Identifier: Apache-2.0
#pragma once
// Views of activations and weights. None owns; all are passed by value.

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace banyan {

// Activations: f32, row-major, [rows][cols], rows `stride` floats apart.
struct Matrix {
  float* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;
  float* row(int64_t r) const { return data + r * stride; }
};

struct ConstMatrix {
  const float* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;
  ConstMatrix() = default;
  ConstMatrix(const float* d, int64_t r, int64_t c, int64_t s)
      : data(d), rows(r), cols(c), stride(s) {}
  ConstMatrix(const Matrix& m)  // NOLINT: a view of what may be written is one of what may be read
      : data(m.data), rows(m.rows), cols(m.cols), stride(m.stride) {}
  const float* row(int64_t r) const { return data + r * stride; }
};

// Weights as they lie in the file: [rows][cols], rows = outputs, cols = inputs, each row
// `row_bytes` of `type` blocks.
struct Weight {
  const std::byte* data = nullptr;
  DType type = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_bytes = 0;
  explicit operator bool() const { return data != nullptr; }
  const std::byte* row(int64_t r) const { return data + r * row_bytes; }
  // Outputs [begin, begin + n). Requires begin + n <= rows.
  Weight slice(int64_t begin, int64_t n) const { return {row(begin), type, n, cols, row_bytes}; }
};

}  // namespace banyan
