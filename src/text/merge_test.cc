// SPDX-License-Identifier: Apache-2.0
#include "text/merge.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <utility>
#include <vector>

namespace banyan {
namespace {

using Pairs = std::map<std::pair<Symbol, Symbol>, Merge>;

// The definition: look at all neighbours, merge the best and leftmost, begin again.
std::vector<Symbol> merge_by_definition(const Pairs& pairs, std::vector<Symbol> symbols) {
  while (true) {
    size_t best = symbols.size();
    Merge merge{};
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto found = pairs.find({symbols[i], symbols[i + 1]});
      if (found == pairs.end()) continue;
      if (best == symbols.size() || found->second.rank < merge.rank) {
        best = i;
        merge = found->second;
      }
    }
    if (best == symbols.size()) return symbols;
    symbols[best] = merge.result;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
  }
}

struct Case {
  Pairs pairs;
  MergeTable table;
  void add(Symbol left, Symbol right, Merge merge) {
    pairs.emplace(std::pair(left, right), merge);
    table.insert(left, right, merge);
  }
};

// Ranks that follow the order of creation are byte-pair encoding; with `any_rank` longer symbols
// may come first and ranks repeat, as SentencePiece's scores have it.
Case random_case(std::mt19937& random, Symbol letters, int n_merges, bool any_rank) {
  Case made;
  Symbol next = letters;
  for (int i = 0; i < n_merges; ++i) {
    const Symbol left = random() % next;
    const Symbol right = random() % next;
    const auto rank = static_cast<uint32_t>(any_rank ? random() % 7 : i);
    made.add(left, right, {rank, next++});
  }
  return made;
}

TEST(Merge, GivesWhatTheDefinitionGives) {
  std::mt19937 random(7);
  std::vector<uint32_t> ranks;
  for (int trial = 0; trial < 400; ++trial) {
    const Symbol letters = 1 + random() % 4;
    const Case made = random_case(random, letters, 1 + random() % 30, trial % 2 == 0);
    // Both sides of the border between short and long words.
    const size_t length = trial % 4 == 0 ? 195 + random() % 12 : random() % 600;
    std::vector<Symbol> symbols(length);
    for (Symbol& symbol : symbols) symbol = random() % letters;
    const auto expected = merge_by_definition(made.pairs, symbols);
    merge_all(made.table, symbols, ranks);
    ASSERT_EQ(symbols, expected) << "trial " << trial;
  }
}

TEST(Merge, MergesARunOfOneLetterFromTheLeft) {
  Case made;
  made.add(0, 0, {0, 1});
  made.add(1, 1, {1, 2});
  std::vector<uint32_t> ranks;
  for (const size_t n : {size_t{7}, size_t{1'000'003}}) {
    std::vector<Symbol> symbols(n, 0);
    merge_all(made.table, symbols, ranks);
    std::vector<Symbol> expected(n / 4, 2);
    if (n % 4 >= 2) expected.push_back(1);
    if (n % 2 == 1) expected.push_back(0);
    EXPECT_EQ(symbols, expected);
  }
}

// The last pair comes first, so that what becomes of the first symbol is told by the last one.
TEST(Merge, MayDependOnTheOtherEnd) {
  for (const Symbol n : {300U, 301U, 10'000U, 10'001U}) {
    MergeTable table;
    std::vector<Symbol> symbols;
    std::vector<Symbol> expected(n % 2, 0);
    for (Symbol i = 0; i < n; ++i) {
      symbols.push_back(i);
      if (i == 0) continue;
      table.insert(i - 1, i, {n - i, n + i});
      if (i % 2 != n % 2) expected.push_back(n + i);
    }
    std::vector<uint32_t> ranks;
    merge_all(table, symbols, ranks);
    EXPECT_EQ(symbols, expected) << n;
  }
}

TEST(MergeTable, FindsWhatWasInsertedFirst) {
  std::mt19937 random(3);
  Pairs pairs;
  MergeTable table;
  for (uint32_t i = 0; i < 20'000; ++i) {
    const Symbol left = random() % 200;
    const Symbol right = random() % 200;
    pairs.emplace(std::pair(left, right), Merge{i, i});
    table.insert(left, right, {i, i});
  }
  for (Symbol left = 0; left < 201; ++left) {
    for (Symbol right = 0; right < 201; ++right) {
      const auto expected = pairs.find({left, right});
      const Merge* found = table.find(left, right);
      ASSERT_EQ(found != nullptr, expected != pairs.end());
      if (found == nullptr) continue;
      ASSERT_EQ(found->rank, expected->second.rank);
    }
  }
}

}  // namespace
}  // namespace banyan
