// SPDX-License-Identifier: Apache-2.0
#include "sample/draft/choose_drafts.h"

#include <algorithm>
#include <tuple>

namespace banyan {

void DraftChooser::choose(std::span<const std::span<const double>> reach, size_t most,
                          FunctionRef<double(std::span<const size_t>)> milliseconds) {
  rows_.clear();
  for (uint32_t i = 0; i < reach.size(); ++i) {
    for (uint32_t place = 0; place < reach[i].size(); ++place) {
      rows_.push_back({reach[i][place], i, place});
    }
  }
  // The likeliest first. As many of them as there may be hold the parents of all they hold: these
  // are as likely at least, and come first. (Not std::stable_sort, which allocates.)
  std::ranges::sort(rows_, [](const Row& a, const Row& b) {
    return std::tuple(-a.reach, a.sequence, a.place) < std::tuple(-b.reach, b.sequence, b.place);
  });
  rows_.resize(std::min(rows_.size(), most));

  // Tokens of one parent exclude each other, so the step's tokens are the sum of what is reached.
  counts_.assign(reach.size(), 0);
  auto tokens = static_cast<double>(reach.size());
  double best = rows_.empty() ? 0 : tokens / milliseconds(counts_);
  size_t n_best = 0;
  for (size_t n = 0; n < rows_.size();) {
    ++counts_[rows_[n].sequence];
    tokens += rows_[n].reach;
    ++n;
    const double rate = tokens / milliseconds(counts_);
    if (rate <= best) continue;
    best = rate;
    n_best = n;
  }

  if (taken_.size() < reach.size()) taken_.resize(reach.size());
  for (auto& places : taken_) places.clear();
  for (const Row& row : std::span(rows_).first(n_best)) taken_[row.sequence].push_back(row.place);
  for (auto& places : taken_) std::ranges::sort(places);
}

}  // namespace banyan
