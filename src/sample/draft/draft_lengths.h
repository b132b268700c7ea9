// SPDX-License-Identifier: Apache-2.0
#pragma once
// How much of what is drafted is worth its rows.

#include <cstddef>
#include <span>
#include <vector>

#include "base/function_ref.h"

namespace banyan {

// Of each of some sequences that share a step, how many of its drafted tokens to let the model
// verify: so many that the step gives the most tokens for its time. reach[i]: of the tokens drafted
// for sequence i, the probabilities that they are accepted; they do not rise. milliseconds(lengths)
// is what a step with so many of them takes (> 0). At most `most` tokens together; what `lengths`
// gets has the size of `reach`. O(tokens * (sequences + log tokens)) beside as many calls of
// milliseconds() as there are tokens.
void choose_draft_lengths(std::span<const std::span<const double>> reach, size_t most,
                          FunctionRef<double(std::span<const size_t>)> milliseconds,
                          std::vector<size_t>& lengths);

}  // namespace banyan
