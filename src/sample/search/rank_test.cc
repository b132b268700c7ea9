// SPDX-License-Identifier: Apache-2.0
#include "sample/search/rank.h"

#include <gtest/gtest.h>

namespace banyan {
namespace {

TEST(Rank, BestFirstAndEqualOnesAsTheyCome) {
  EXPECT_EQ(best_first(std::vector{1.0, 3.0, 2.0, 3.0}, 3), (std::vector<size_t>{1, 3, 2}));
  EXPECT_EQ(best_first(std::vector{-2.0, -1.0}, 5), (std::vector<size_t>{1, 0}));
  EXPECT_TRUE(best_first({}, 2).empty());
}

TEST(Rank, VotesCountEqualAnswers) {
  const auto votes = count_votes(std::vector<std::string>{"4", "5", "6", "5", "4", "5"});
  ASSERT_EQ(votes.size(), 3U);
  EXPECT_EQ(votes[0].answer, "5");
  EXPECT_EQ(votes[0].voters, (std::vector<size_t>{1, 3, 5}));
  EXPECT_EQ(votes[1].answer, "4");
  EXPECT_EQ(votes[2].answer, "6");
}

TEST(Rank, AnAnswerIsTheLastNumberOrTheLastLine) {
  EXPECT_EQ(answer_of("3 apples and 4 make 7."), "7");
  EXPECT_EQ(answer_of("so it is -12.5."), "-12.5");
  EXPECT_EQ(answer_of("10-3"), "3");
  EXPECT_EQ(answer_of("-3"), "-3");
  EXPECT_EQ(answer_of("It costs $1,234,567."), "1,234,567");
  EXPECT_EQ(answer_of("yes\n  No, never.  \n\n"), "No, never.");
  EXPECT_EQ(answer_of(" maybe"), "maybe");
  EXPECT_EQ(answer_of(" \n"), "");
}

}  // namespace
}  // namespace banyan
