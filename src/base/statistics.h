// SPDX-License-Identifier: Apache-2.0
#pragma once
// What of samples is reported.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

namespace banyan {

// The value that a share `q`, 0 to 1, of the values lies below, between neighbours in proportion; 0
// of none.
inline double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::ranges::sort(values);
  const double place = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, values.size() - 1);
  return std::lerp(values[below], values[above], place - static_cast<double>(below));
}

inline double median(std::vector<double> values) { return quantile(std::move(values), 0.5); }

// How many times as fast one thing was as another, both timed in turns: of the quotients of all
// turns.
struct RatioFigures {
  double median = 0;
  double p25 = 0;
  double p75 = 0;
};

// Of base / own, times of the same turns; of as many as both have.
inline RatioFigures ratio_of_times(const std::vector<double>& base,
                                   const std::vector<double>& own) {
  std::vector<double> ratios;
  for (size_t i = 0; i < std::min(base.size(), own.size()); ++i) ratios.push_back(base[i] / own[i]);
  return {quantile(ratios, 0.5), quantile(ratios, 0.25), quantile(ratios, 0.75)};
}

}  // namespace banyan
