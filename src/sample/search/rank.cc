// SPDX-License-Identifier: Apache-2.0
#include "sample/search/rank.h"

#include <algorithm>
#include <numeric>

namespace banyan {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

std::vector<size_t> best_first(std::span<const double> scores, size_t most) {
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::ranges::greater(), [&](size_t i) { return scores[i]; });
  order.resize(std::min(order.size(), most));
  return order;
}

std::vector<Vote> count_votes(std::span<const std::string> answers) {
  std::vector<Vote> votes;
  for (size_t i = 0; i < answers.size(); ++i) {
    auto vote = std::ranges::find(votes, answers[i], &Vote::answer);
    if (vote == votes.end()) vote = votes.insert(votes.end(), {answers[i], {}});
    vote->voters.push_back(i);
  }
  std::ranges::stable_sort(votes, std::ranges::greater(),
                           [](const Vote& vote) { return vote.voters.size(); });
  return votes;
}

std::string answer_of(std::string_view text) {
  const auto last = std::find_if(text.rbegin(), text.rend(), is_digit);
  if (last != text.rend()) {
    const size_t end = text.rend() - last;
    size_t begin = end - 1;
    // Digits, and a point or commas between digits.
    while (begin > 0 &&
           (is_digit(text[begin - 1]) || ((text[begin - 1] == '.' || text[begin - 1] == ',') &&
                                          begin > 1 && is_digit(text[begin - 2])))) {
      --begin;
    }
    // A minus that does not stand between two words or numbers.
    if (begin > 0 && text[begin - 1] == '-' && (begin == 1 || text[begin - 2] == ' ')) --begin;
    return std::string(text.substr(begin, end - begin));
  }
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t end = text.find_last_not_of(kSpace);
  if (end == std::string_view::npos) return "";
  const std::string_view lines = text.substr(0, end + 1);
  const size_t line = lines.rfind('\n') + 1;  // 0 where there is none
  return std::string(lines.substr(lines.find_first_not_of(kSpace, line)));
}

}  // namespace banyan
