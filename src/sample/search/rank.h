// SPDX-License-Identifier: Apache-2.0
#pragma once
// Which of several texts: the best by a score, or the answer that most of them give.

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace banyan {

// Indices of the `most` highest scores (all, if there are fewer), best first, equal ones as they
// come. No NaN.
std::vector<size_t> best_first(std::span<const double> scores, size_t most);

struct Vote {
  std::string answer;
  std::vector<size_t> voters;  // indices of the answers that are this one, rising
};
// Self-consistency (Wang et al. 2022): the answers by how many texts give each, most first, equal
// ones as they come.
std::vector<Vote> count_votes(std::span<const std::string> answers);

// What a text answers, for votes: its last number ("-12.5" of "so it is -12.5."), or where it has
// none, its last line that is not blank, without white space around it.
std::string answer_of(std::string_view text);

}  // namespace banyan
