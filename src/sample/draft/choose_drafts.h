// SPDX-License-Identifier: Apache-2.0
#pragma once
// How much of what is drafted is worth its rows.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/function_ref.h"

namespace banyan {

class DraftChooser {
 public:
  // Of each of some sequences that share a step, which of its drafted tokens to let the model
  // verify: those that give the step the most tokens for its time. reach[i]: of the tokens drafted
  // for sequence i, as Draft::reach, so that a token's is never above its parent's, which comes
  // before it. milliseconds(counts) is what a step with so many of each takes (> 0). At most `most`
  // tokens together. O(tokens * (sequences + log tokens)) beside as many calls of milliseconds() as
  // there are tokens. Allocates nothing once as many were seen.
  void choose(std::span<const std::span<const double>> reach, size_t most,
              FunctionRef<double(std::span<const size_t>)> milliseconds);

  // Of the last choice: places among the tokens of sequence i, rising; with each its parent.
  std::span<const uint32_t> taken(size_t i) const { return taken_[i]; }

 private:
  struct Row {
    double reach;
    uint32_t sequence;
    uint32_t place;
  };
  std::vector<Row> rows_;
  std::vector<size_t> counts_;
  std::vector<std::vector<uint32_t>> taken_;
};

}  // namespace banyan
