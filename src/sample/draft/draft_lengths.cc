// SPDX-License-Identifier: Apache-2.0
#include "sample/draft/draft_lengths.h"

#include <algorithm>

namespace banyan {

void choose_draft_lengths(std::span<const std::span<const double>> reach, size_t most,
                          FunctionRef<double(std::span<const size_t>)> milliseconds,
                          std::vector<size_t>& lengths) {
  struct Row {
    double reach;
    size_t sequence;
  };
  std::vector<Row> rows;
  for (size_t i = 0; i < reach.size(); ++i) {
    for (const double each : reach[i]) rows.push_back({each, i});
  }
  // The likeliest first; of a sequence that are its first ones.
  std::ranges::stable_sort(rows, std::ranges::greater(), &Row::reach);
  rows.resize(std::min(rows.size(), most));

  lengths.assign(reach.size(), 0);
  if (rows.empty()) return;
  std::vector<size_t> tried = lengths;
  auto tokens = static_cast<double>(reach.size());
  double best = tokens / milliseconds(tried);
  for (const Row& row : rows) {
    ++tried[row.sequence];
    tokens += row.reach;
    const double rate = tokens / milliseconds(tried);
    if (rate <= best) continue;
    best = rate;
    lengths = tried;
  }
}

}  // namespace banyan
