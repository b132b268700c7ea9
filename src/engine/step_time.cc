// SPDX-License-Identifier: Apache-2.0
#include "engine/step_time.h"

#include <algorithm>

namespace banyan {

void StepShape::add(int64_t n, int64_t end) {
  if (n == 0) return;
  rows += n;
  (n == 1 ? decode_pairs : prompt_pairs) += n * end - n * (n - 1) / 2;
}

StepTimeModel::Vector StepTimeModel::terms(const StepShape& shape) {
  return {1, static_cast<double>(shape.rows), static_cast<double>(shape.decode_pairs) * 1e-3,
          static_cast<double>(shape.prompt_pairs) * 1e-3};
}

double StepTimeModel::predict_ms(const StepShape& shape) const {
  const Vector x = terms(shape);
  double ms = 0;
  for (size_t i = 0; i < kTerms; ++i) ms += ms_[i] * x[i];
  return ms;
}

// Least squares of relative errors, so that short steps count as much as long ones and one that was
// held up hardly counts; old steps fade.
void StepTimeModel::observe(const StepShape& shape, double ms) {
  constexpr double kFade = 0.98;
  const double weight = 1 / std::max(ms * ms, 1e-6);
  const Vector x = terms(shape);
  for (size_t i = 0; i < kTerms; ++i) {
    for (size_t j = 0; j < kTerms; ++j) {
      products_[i][j] = kFade * products_[i][j] + weight * x[i] * x[j];
    }
    times_[i] = kFade * times_[i] + weight * x[i] * ms;
  }
  solve();
}

// Terms that no step has told apart stay near what was assumed.
void StepTimeModel::solve() {
  constexpr double kTrust = 1e-4;  // in the prior, where a step that was done has 1
  std::array<Vector, kTerms> a = products_;
  Vector b = times_;
  for (size_t i = 0; i < kTerms; ++i) {
    const double weight = kTrust / (assumed_[i] * assumed_[i]);
    a[i][i] += weight;
    b[i] += weight * assumed_[i];
  }
  // Gauss; the matrix is symmetric and positive, so that no pivot is zero.
  for (size_t i = 0; i < kTerms; ++i) {
    for (size_t row = i + 1; row < kTerms; ++row) {
      const double factor = a[row][i] / a[i][i];
      for (size_t column = i; column < kTerms; ++column) a[row][column] -= factor * a[i][column];
      b[row] -= factor * b[i];
    }
  }
  for (size_t i = kTerms; i-- > 0;) {
    for (size_t column = i + 1; column < kTerms; ++column) b[i] -= a[i][column] * ms_[column];
    ms_[i] = std::max(0.0, b[i] / a[i][i]);
  }
}

}  // namespace banyan
