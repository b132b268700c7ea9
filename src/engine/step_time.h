// SPDX-License-Identifier: Apache-2.0
#pragma once
// How long a step takes, learned from the steps that were done: so many rows of prompts may go
// along with rows that decode. Only a prediction: nothing else depends on it.

#include <array>
#include <cstddef>
#include <cstdint>

namespace banyan {

// What a step does. A pair is a row and a key that it sees.
struct StepShape {
  int64_t rows = 0;
  int64_t decode_pairs = 0;  // of sequences with one row, whose keys are read for that row alone
  int64_t prompt_pairs = 0;  // of sequences with many rows

  void add(int64_t n, int64_t end);  // n rows of one sequence, the last of which sees `end` keys
};

class StepTimeModel {
 public:
  // Milliseconds of any step, for each row, and for each thousand decode and prompt pairs: assumed
  // until steps tell.
  using Vector = std::array<double, 4>;
  static constexpr Vector kPrior = {5, 0.5, 1, 0.3};  // a small model on two cores
  explicit StepTimeModel(const Vector& assumed = kPrior) : assumed_(assumed), ms_(assumed) {}

  void observe(const StepShape& shape, double ms);
  double predict_ms(const StepShape& shape) const;

 private:
  static constexpr size_t kTerms = std::tuple_size_v<Vector>;
  static Vector terms(const StepShape& shape);
  void solve();

  Vector assumed_;
  Vector ms_;
  std::array<Vector, kTerms> products_{};  // of the terms, weighed
  Vector times_{};                         // of the terms and the time, weighed
};

}  // namespace banyan
