// SPDX-License-Identifier: Apache-2.0
#pragma once
// Passes over a whole vocabulary of logits, four to sixteen at a time. No NaN anywhere
// but in has_nan().

#include <cstddef>
#include <span>

namespace banyan {

bool has_nan(std::span<const float> x);

// The largest value; -infinity of nothing.
float max_value(std::span<const float> x);

// Index of the first largest value, 0 of nothing. 0.0 and -0.0 are equal.
size_t first_max(std::span<const float> x);

// Index of the first value above `threshold` in [from, x.size()); x.size() if there is none.
size_t next_above(std::span<const float> x, size_t from, float threshold);

// log(sum_i exp(x[i])), `max` being max_value(x); `max` itself if that is infinite. Relative error
// of the sum below 1e-6 (tested), whatever the size.
double log_sum_exp(std::span<const float> x, float max);

}  // namespace banyan
