// SPDX-License-Identifier: Apache-2.0
#include "kv/tree.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <cstdlib>
#include <new>
#include <numeric>
#include <set>

namespace {
uint64_t allocations = 0;  // by this program
}

// Not inlined, because g++ then takes new and free() for a mismatch.
[[gnu::noinline]] void* operator new(size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(size_t size, const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(size);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace banyan {
namespace {

constexpr KvShape kShape{.n_layers = 1, .n_kv_heads = 1, .head_dim = 1};

PanelPool make_pool(uint32_t panels) {
  Result<PanelPool> pool = PanelPool::create(kShape, panels * kShape.panel_bytes());
  EXPECT_TRUE(pool.has_value());
  return std::move(pool).value();
}

using Tokens = std::vector<TokenId>;

// first, first + 1, ..
Tokens count_up(int32_t size, TokenId first = 0) {
  Tokens tokens(size);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

// A closed sequence, so that `tokens` are in the tree.
void store(KvTree& tree, const Tokens& tokens) {
  const auto [seq, matched] = tree.open(tokens, static_cast<int32_t>(tokens.size()));
  ASSERT_TRUE(tree.extend(seq, std::span(tokens).subspan(matched)).has_value());
  tree.close(seq);
}

int32_t matched(KvTree& tree, const Tokens& tokens) {
  const auto opened = tree.open(tokens, static_cast<int32_t>(tokens.size()));
  tree.close(opened.seq);
  return opened.matched;
}

std::set<PanelId> panels_of(const KvTree& tree, SeqId seq) {
  std::set<PanelId> panels;
  for (Position p = 0; p < tree.length(seq); ++p) panels.insert(tree.slot(seq, p).panel);
  return panels;
}

TEST(KvTree, AnEmptyTreeMatchesNothingAndHoldsNothing) {
  PanelPool pool = make_pool(4);
  KvTree tree(pool);
  const auto opened = tree.open(count_up(20), 20);
  EXPECT_EQ(opened.matched, 0);
  EXPECT_EQ(tree.length(opened.seq), 0);
  EXPECT_TRUE(tree.extend(opened.seq, {}).has_value());
  EXPECT_EQ(tree.positions(), 0U);
  tree.close(opened.seq);
  EXPECT_EQ(pool.used(), 0U);
  tree.check_integrity();
}

TEST(KvTree, PositionsKeepToTheirGridSlotAndFillPanelsInOrder) {
  PanelPool pool = make_pool(4);
  KvTree tree(pool);
  const SeqId seq = tree.open({}, 0).seq;
  ASSERT_TRUE(tree.extend(seq, count_up(5)).has_value());
  ASSERT_TRUE(tree.extend(seq, count_up(30, 5)).has_value());
  EXPECT_EQ(tree.length(seq), 35);
  EXPECT_EQ(pool.used(), 3U);
  for (Position p = 0; p < 35; ++p) {
    EXPECT_EQ(tree.slot(seq, p).slot, p % 16);
    EXPECT_EQ(tree.slot(seq, p).panel, tree.slot(seq, p / 16 * 16).panel);
  }
  std::vector<NodeId> path;
  tree.path(seq, path);
  EXPECT_EQ(path.size(), 1U) << "its sole user continues its own leaf";
  tree.check_integrity();
}

TEST(KvTree, AMatchThatEndsInsideAPanelSplitsTheNodeAndCopiesNothing) {
  PanelPool pool = make_pool(8);
  KvTree tree(pool);
  const SeqId a = tree.open({}, 0).seq;
  ASSERT_TRUE(tree.extend(a, count_up(40)).has_value());
  Tokens other = count_up(21);
  other.push_back(99);
  const auto [b, n_matched] = tree.open(other, 22);
  EXPECT_EQ(n_matched, 21);
  EXPECT_EQ(pool.used(), 3U);
  tree.check_integrity();

  ASSERT_TRUE(tree.extend(b, std::span(other).subspan(21)).has_value());
  EXPECT_EQ(pool.used(), 4U) << "the child opens its own panel";
  EXPECT_EQ(tree.slot(b, 21).slot, 21 % 16);
  EXPECT_NE(tree.slot(b, 21).panel, tree.slot(a, 21).panel);
  for (Position p = 0; p < 21; ++p) EXPECT_EQ(tree.slot(a, p).panel, tree.slot(b, p).panel);
  EXPECT_EQ(tree.positions(), 41U);
  EXPECT_EQ(tree.to_text(),
            "tree: 41 positions, 4 of 8 panels, 2 live sequences\n"
            "node 2 [0, 21) users 2 panels 0:0-16 1:0-5 tokens 0 1 2 3 4 5 6 7 ..\n"
            "  node 1 [21, 40) users 1 panels 1:5-16 2:0-8 tokens 21 22 23 24 25 26 27 28 ..\n"
            "  node 3 [21, 22) users 1 panels 3:5-6 tokens 99\n");
  ASSERT_TRUE(tree.extend(a, count_up(1, 40)).has_value());
  EXPECT_EQ(pool.used(), 4U) << "the lower half is still its user's own";
  tree.check_integrity();
}

TEST(KvTree, NoMoreThanMaxMatchIsMatched) {
  PanelPool pool = make_pool(8);
  KvTree tree(pool);
  store(tree, count_up(32));
  for (const int32_t limit : {0, 1, 15, 16, 17, 31, 32, 100}) {
    const auto opened = tree.open(count_up(32), limit);
    EXPECT_EQ(opened.matched, std::min(limit, 32));
    EXPECT_EQ(tree.length(opened.seq), opened.matched);
    tree.close(opened.seq);
    tree.check_integrity();
  }
}

TEST(KvTree, AfterAForkNeitherChangesWhatTheyShare) {
  PanelPool pool = make_pool(8);
  KvTree tree(pool);
  const SeqId a = tree.open({}, 0).seq;
  ASSERT_TRUE(tree.extend(a, count_up(20)).has_value());
  const SeqId b = tree.fork(a);
  ASSERT_TRUE(tree.extend(a, Tokens{100}).has_value());
  ASSERT_TRUE(tree.extend(b, Tokens{200}).has_value());
  EXPECT_EQ(pool.used(), 4U);
  const std::set<PanelId> slots{tree.slot(a, 20).panel, tree.slot(b, 20).panel,
                                tree.slot(a, 19).panel};
  EXPECT_EQ(slots.size(), 3U);
  EXPECT_EQ(tree.slot(a, 19).panel, tree.slot(b, 19).panel);
  tree.check_integrity();
}

TEST(KvTree, WhatAClosedSequenceLeftIsMatchedAgain) {
  PanelPool pool = make_pool(8);
  KvTree tree(pool);
  store(tree, count_up(37));
  EXPECT_EQ(tree.positions(), 37U);
  EXPECT_EQ(matched(tree, count_up(50)), 37);
  EXPECT_EQ(matched(tree, count_up(7)), 7);
  EXPECT_EQ(matched(tree, count_up(37)), 37) << "over the split that the last match left";
}

TEST(KvTree, EveryBranchThatBeginsAlikeIsSearchedForTheLongestMatch) {
  PanelPool pool = make_pool(32);
  KvTree tree(pool);
  const SeqId a = tree.open({}, 0).seq;
  ASSERT_TRUE(tree.extend(a, count_up(3)).has_value());
  std::vector<SeqId> forks{a, tree.fork(a), tree.fork(a), tree.fork(a)};
  // All compute 3, 4, 5, .. side by side; the third goes on longest.
  const int32_t lengths[] = {4, 2, 9, 5};
  for (size_t i = 0; i < forks.size(); ++i) {
    ASSERT_TRUE(tree.extend(forks[i], count_up(lengths[i], 3)).has_value());
  }
  tree.check_integrity();
  EXPECT_EQ(matched(tree, count_up(50)), 12);
}

TEST(KvTree, CloseDropsWhatASiblingHoldsToo) {
  PanelPool pool = make_pool(32);
  KvTree tree(pool);
  const SeqId a = tree.open({}, 0).seq;
  ASSERT_TRUE(tree.extend(a, count_up(16)).has_value());
  const SeqId b = tree.fork(a);
  const SeqId c = tree.fork(a);
  ASSERT_TRUE(tree.extend(a, count_up(8, 16)).has_value());
  ASSERT_TRUE(tree.extend(b, count_up(20, 16)).has_value());
  ASSERT_TRUE(tree.extend(c, count_up(4, 16)).has_value());
  EXPECT_EQ(pool.used(), 5U);
  tree.close(a);  // the live sibling b holds all of it
  EXPECT_EQ(pool.used(), 4U);
  tree.close(b);  // c is shorter, but live
  EXPECT_EQ(pool.used(), 4U);
  tree.close(c);
  EXPECT_EQ(pool.used(), 3U);
  EXPECT_EQ(tree.positions(), 36U);
  EXPECT_EQ(matched(tree, count_up(40)), 36);
  tree.check_integrity();
}

std::vector<SeqId> order_of(const KvTree& tree) {
  std::vector<SeqId> order;
  for (SeqId seq = tree.first_sequence(); seq != kNoSequence; seq = tree.next_sequence(seq)) {
    order.push_back(seq);
  }
  return order;
}

TEST(KvTree, ANewSequenceStandsBehindThoseThatShareMostWithIt) {
  PanelPool pool = make_pool(32);
  KvTree tree(pool);
  const auto add = [&](const Tokens& tokens) {
    const auto [seq, n_matched] = tree.open(tokens, static_cast<int32_t>(tokens.size()));
    EXPECT_TRUE(tree.extend(seq, std::span(tokens).subspan(n_matched)).has_value());
    return seq;
  };
  const SeqId a = add({1, 1, 1});
  const SeqId b = add({2, 2, 2});
  const SeqId c = add({1, 1, 5});
  const SeqId d = add({1, 7});
  const SeqId e = add({2, 2, 2, 2});
  const SeqId f = add({1, 1, 5, 6});
  EXPECT_EQ(order_of(tree), (std::vector<SeqId>{a, c, f, d, b, e}));
  tree.close(a);
  tree.close(f);
  EXPECT_EQ(order_of(tree), (std::vector<SeqId>{c, d, b, e}));
  tree.close(c);
  tree.close(d);
  const SeqId g = add({1, 1});  // below nothing that is used: behind all
  EXPECT_EQ(order_of(tree), (std::vector<SeqId>{b, e, g}));
  tree.check_integrity();
}

// Users of each node on the sequence's path.
std::vector<uint32_t> users_on_path(const KvTree& tree, SeqId seq) {
  std::vector<NodeId> path;
  tree.path(seq, path);
  std::vector<uint32_t> users;
  for (const NodeId id : path) users.push_back(tree.node(id).users);
  return users;
}

// The trees that ChunkAttention's own tests build (microsoft/chunk-attention,
// tests/test_chunk_attn_cpu.py), with their rows and counts of users. Its chunks of 2 tokens are
// matched whole, which max_match stands for.
TEST(KvTree, RowsAndUsersAreThoseOfThePublishedTree) {
  using Users = std::vector<uint32_t>;
  PanelPool pool = make_pool(32);
  KvTree tree(pool);
  std::vector<SeqId> seqs;
  const auto insert = [&](const Tokens& tokens, int32_t whole_chunks) {
    const auto [seq, n_matched] = tree.open(tokens, whole_chunks);
    ASSERT_TRUE(tree.extend(seq, std::span(tokens).subspan(n_matched)).has_value());
    seqs.push_back(seq);
    tree.check_integrity();
  };
  insert({1, 2, 3, 4, 5}, 4);
  insert({1, 2, 3, 4, 6}, 4);
  insert({1, 2, 3, 4}, 4);
  EXPECT_EQ(order_of(tree), (std::vector<SeqId>{seqs[0], seqs[1], seqs[2]}));
  insert({1, 7}, 0);
  insert({1, 2}, 2);
  EXPECT_EQ(order_of(tree), (std::vector<SeqId>{seqs[0], seqs[1], seqs[2], seqs[4], seqs[3]}));
  insert({1, 2, 3, 4, 5}, 4);
  EXPECT_EQ(order_of(tree),
            (std::vector<SeqId>{seqs[0], seqs[1], seqs[2], seqs[5], seqs[4], seqs[3]}));
  EXPECT_EQ(users_on_path(tree, seqs[0]), (Users{5, 4, 1}));
  EXPECT_EQ(users_on_path(tree, seqs[5]), (Users{5, 4, 1}));
  EXPECT_EQ(users_on_path(tree, seqs[2]), (Users{5, 4}));
  EXPECT_EQ(users_on_path(tree, seqs[4]), (Users{5}));
  EXPECT_EQ(users_on_path(tree, seqs[3]), (Users{1}));

  tree.close(seqs[0]);  // row 0
  EXPECT_EQ(order_of(tree), (std::vector<SeqId>{seqs[1], seqs[2], seqs[5], seqs[4], seqs[3]}));
  EXPECT_EQ(users_on_path(tree, seqs[1]), (Users{4, 3, 1}));
  tree.check_integrity();
}

TEST(KvTree, AppendingToAllOpensAPanelOnlyWhereOneIsFull) {
  PanelPool pool = make_pool(32);
  KvTree tree(pool);
  const SeqId a = tree.open({}, 0).seq;
  ASSERT_TRUE(tree.extend(a, count_up(14)).has_value());
  const SeqId b = tree.fork(a);
  ASSERT_TRUE(tree.extend(a, Tokens{50}).has_value());
  ASSERT_TRUE(tree.extend(b, Tokens{60, 61}).has_value());
  EXPECT_EQ(pool.used(), 3U);
  ASSERT_TRUE(tree.extend(a, Tokens{80}).has_value());
  EXPECT_EQ(pool.used(), 3U);
  ASSERT_TRUE(tree.extend(b, Tokens{90}).has_value());
  EXPECT_EQ(pool.used(), 4U);
  EXPECT_EQ(tree.slot(b, 16).slot, 0);
  EXPECT_EQ(order_of(tree), (std::vector<SeqId>{a, b}));
  EXPECT_EQ(users_on_path(tree, b), (std::vector<uint32_t>{2, 1}));
  tree.check_integrity();
}

TEST(KvTree, TheStructureIsAsItWasWhileLastNodesGrowAndUnusedOnesGo) {
  PanelPool pool = make_pool(4);
  KvTree tree(pool);
  store(tree, count_up(32, 100));
  const SeqId seq = tree.open({}, 0).seq;
  EXPECT_EQ(tree.leaf(seq), 0U);
  ASSERT_TRUE(tree.extend(seq, Tokens{0}).has_value());
  const NodeId leaf = tree.leaf(seq);
  const uint64_t version = tree.structure_version();
  ASSERT_TRUE(tree.extend(seq, count_up(63, 1)).has_value());
  EXPECT_EQ(tree.structure_version(), version);
  EXPECT_EQ(tree.leaf(seq), leaf);
  EXPECT_EQ(matched(tree, count_up(32, 100)), 0) << "evicted";
}

TEST(KvTree, TruncateFreesPanelsAndTheSequenceGoesOnFromThere) {
  PanelPool pool = make_pool(8);
  KvTree tree(pool);
  const SeqId seq = tree.open({}, 0).seq;
  ASSERT_TRUE(tree.extend(seq, count_up(50)).has_value());
  tree.truncate(seq, 50);
  EXPECT_EQ(pool.used(), 4U);
  tree.truncate(seq, 33);
  EXPECT_EQ(pool.used(), 3U);
  tree.truncate(seq, 32);
  EXPECT_EQ(pool.used(), 2U);
  tree.truncate(seq, 7);
  EXPECT_EQ(pool.used(), 1U);
  tree.check_integrity();
  ASSERT_TRUE(tree.extend(seq, Tokens{70, 71}).has_value());
  EXPECT_EQ(tree.length(seq), 9);
  Tokens expected = count_up(7);
  expected.insert(expected.end(), {70, 71, 72});
  EXPECT_EQ(matched(tree, expected), 9);
  tree.truncate(seq, 0);
  EXPECT_EQ(pool.used(), 0U);
  tree.check_integrity();
}

TEST(KvTree, TruncateKeepsWhatUnusedKvBuildsOn) {
  PanelPool pool = make_pool(8);
  KvTree tree(pool);
  const SeqId a = tree.open({}, 0).seq;
  ASSERT_TRUE(tree.extend(a, count_up(20)).has_value());
  const SeqId b = tree.fork(a);
  ASSERT_TRUE(tree.extend(b, count_up(4, 20)).has_value());
  tree.close(b);
  tree.truncate(a, 10);
  EXPECT_EQ(tree.length(a), 10);
  tree.check_integrity();
  EXPECT_EQ(matched(tree, count_up(30)), 24);
  ASSERT_TRUE(tree.extend(a, Tokens{500}).has_value());
  EXPECT_NE(tree.slot(a, 10).panel, tree.slot(a, 9).panel) << "slot 10 there is in the cache";
  tree.check_integrity();
}

using KvTreeDeathTest = ::testing::Test;

TEST(KvTreeDeathTest, TruncatingWhatAnotherLiveSequenceSharesIsABrokenInvariant) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  PanelPool pool = make_pool(8);
  KvTree tree(pool);
  const SeqId a = tree.open({}, 0).seq;
  ASSERT_TRUE(tree.extend(a, count_up(20)).has_value());
  const SeqId b = tree.fork(a);
  tree.truncate(b, 20);  // nothing to forget
  EXPECT_DEATH(tree.truncate(b, 19), "one live sequence");
  ASSERT_TRUE(tree.extend(b, Tokens{1}).has_value());
  tree.truncate(b, 20);
  EXPECT_DEATH(tree.truncate(b, 19), "one live sequence");
}

TEST(KvTree, ExtendPastTheBudgetFailsWithASentenceAndChangesNothing) {
  PanelPool pool = make_pool(4);
  KvTree tree(pool);
  store(tree, count_up(16, 1000));
  const SeqId seq = tree.open({}, 0).seq;
  ASSERT_TRUE(tree.extend(seq, count_up(20)).has_value());
  const std::string before = tree.to_text();
  const Result<void> result = tree.extend(seq, count_up(45, 20));
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, ErrorCode::kFailed);
  EXPECT_EQ(result.error().message,
            "--kv-budget 256 B holds 64 positions and is used up: 45 more were needed and 44 fit "
            "beside what live sequences use");
  EXPECT_EQ(tree.to_text(), before);
  ASSERT_TRUE(tree.extend(seq, count_up(44, 20)).has_value()) << "as many as were said to fit";
  EXPECT_EQ(pool.used(), 4U);
  tree.check_integrity();
}

TEST(KvTree, EvictionTakesTheLeastRecentlyUsedLeafFirstAndFromItsEnd) {
  PanelPool pool = make_pool(6);
  KvTree tree(pool);
  store(tree, count_up(32, 100));
  store(tree, count_up(32, 200));
  store(tree, count_up(32, 300));
  EXPECT_EQ(matched(tree, count_up(32, 100)), 32);  // now the newest
  const SeqId seq = tree.open({}, 0).seq;
  ASSERT_TRUE(tree.extend(seq, count_up(16)).has_value());
  tree.check_integrity();
  ASSERT_TRUE(tree.extend(seq, count_up(32, 16)).has_value());
  tree.check_integrity();
  EXPECT_EQ(matched(tree, count_up(32, 200)), 0);
  EXPECT_EQ(matched(tree, count_up(32, 300)), 16);
  EXPECT_EQ(matched(tree, count_up(32, 100)), 32);
}

TEST(KvTree, WhatWasMatchedAgainOutlivesAScan) {
  PanelPool pool = make_pool(16);
  KvTree tree(pool);
  store(tree, count_up(50));
  Tokens question = count_up(40);
  question.push_back(7);
  store(tree, question);  // 40 positions have come again, the rest has not
  for (TokenId i = 1; i <= 100; ++i) store(tree, count_up(32, 1000 * i));
  tree.check_integrity();
  EXPECT_EQ(matched(tree, question), 40);
}

TEST(KvTree, WhatWasAppendedToAMatchGoesBeforeIt) {
  PanelPool pool = make_pool(16);
  KvTree tree(pool);
  store(tree, count_up(40));
  store(tree, count_up(100));  // the same node goes on
  for (TokenId i = 1; i <= 100; ++i) {
    store(tree, count_up(32, 1000 * i));
    tree.check_integrity();
  }
  EXPECT_EQ(matched(tree, count_up(100)), 40);
}

TEST(KvTree, APrefixThatLosesItsLastContinuationIsAsOldAsThatWas) {
  PanelPool pool = make_pool(6);
  KvTree tree(pool);
  const SeqId a = tree.open({}, 0).seq;
  ASSERT_TRUE(tree.extend(a, count_up(32)).has_value());
  const SeqId b = tree.fork(a);
  ASSERT_TRUE(tree.extend(a, count_up(16, 100)).has_value());
  ASSERT_TRUE(tree.extend(b, count_up(16, 200)).has_value());
  tree.close(a);
  tree.close(b);
  store(tree, count_up(32, 300));
  const SeqId seq = tree.open({}, 0).seq;
  ASSERT_TRUE(tree.extend(seq, count_up(48, 400)).has_value());
  tree.check_integrity();
  EXPECT_EQ(matched(tree, count_up(32)), 16);
  EXPECT_EQ(matched(tree, count_up(32, 300)), 32);
}

TEST(KvTree, WhatWasMatchedAgainLongAgoMakesRoom) {
  PanelPool pool = make_pool(10);
  KvTree tree(pool);
  store(tree, count_up(64));
  EXPECT_EQ(matched(tree, count_up(64)), 64);
  for (TokenId i = 1; i <= 3; ++i) {  // as much as the protected segment holds, and 64 more
    store(tree, count_up(64, 1000 * i));
    EXPECT_EQ(matched(tree, count_up(64, 1000 * i)), 64);
    tree.check_integrity();
  }
  EXPECT_EQ(matched(tree, count_up(64)), 0);
  EXPECT_EQ(matched(tree, count_up(64, 3000)), 64);
}

TEST(KvTree, EvictionNeverTakesWhatALiveSequenceUses) {
  PanelPool pool = make_pool(4);
  KvTree tree(pool);
  store(tree, count_up(40));
  const SeqId pinning = tree.open(count_up(40), 20).seq;
  const SeqId seq = tree.open({}, 0).seq;
  ASSERT_TRUE(tree.extend(seq, count_up(32, 500)).has_value());
  tree.check_integrity();
  EXPECT_EQ(matched(tree, count_up(40)), 32) << "what shares a pinned panel costs nothing";
  ASSERT_FALSE(tree.extend(seq, Tokens{1}).has_value());
  EXPECT_EQ(panels_of(tree, pinning).size(), 2U);
}

TEST(KvTree, APinHoldsWhatItsSequenceHadAndNoMore) {
  PanelPool pool = make_pool(6);
  KvTree tree(pool);
  SeqId seq = tree.open({}, 0).seq;
  ASSERT_TRUE(tree.extend(seq, count_up(24)).has_value());
  KvTree::Pin pin = tree.pin(seq);
  ASSERT_TRUE(tree.extend(seq, count_up(8, 24)).has_value());
  EXPECT_EQ(tree.available_panels(), 3U) << "the pinned node ends where it did";
  tree.truncate(seq, 10);
  tree.close(seq);
  tree.check_integrity();
  EXPECT_EQ(tree.available_panels(), 4U);

  seq = tree.open({}, 0).seq;
  ASSERT_TRUE(tree.extend(seq, count_up(64, 100)).has_value());
  const Result<void> failure = tree.extend(seq, Tokens{1});
  ASSERT_FALSE(failure.has_value());
  EXPECT_EQ(failure.error().message,
            "--kv-budget 384 B holds 96 positions and is used up: 1 more were needed and 0 fit "
            "beside what live sequences and pins use");
  EXPECT_EQ(matched(tree, count_up(32)), 24);
  KvTree::Pin moved = std::move(pin);
  EXPECT_EQ(tree.available_panels(), 0U);
  moved = {};
  EXPECT_EQ(tree.available_panels(), 2U);
  ASSERT_TRUE(tree.extend(seq, count_up(32, 164)).has_value());
  EXPECT_EQ(matched(tree, count_up(32)), 0);
  tree.check_integrity();
}

TEST(KvTree, SequencesOfDifferentSaltsShareNothing) {
  constexpr uint64_t kSalts[] = {0, 1, 1ULL << 63, ~0ULL};
  PanelPool pool = make_pool(16);
  KvTree tree(pool);
  for (const uint64_t salt : kSalts) {
    const KvScope scope{.salt = salt};
    const auto [empty, n_matched] = tree.open(count_up(20), 20, scope);
    EXPECT_EQ(n_matched, 0);
    const SeqId seq = tree.fork(empty);
    tree.close(empty);
    ASSERT_TRUE(tree.extend(seq, count_up(5)).has_value());
    tree.truncate(seq, 0);
    ASSERT_TRUE(tree.extend(seq, count_up(20)).has_value());
    tree.close(seq);
  }
  EXPECT_EQ(tree.positions(), 80U);
  for (const uint64_t salt : kSalts) {
    const auto [seq, n_matched] = tree.open(count_up(20), 20, {.salt = salt});
    EXPECT_EQ(n_matched, 20);
    tree.close(seq);
  }
  EXPECT_EQ(tree.open(count_up(20), 20, {.salt = 2}).matched, 0);
  tree.check_integrity();
}

TEST(KvTree, ApproximateKvIsForThoseWhoAcceptIt) {
  PanelPool pool = make_pool(32);
  KvTree tree(pool);
  constexpr KvScope kApproximate{.accepts_approximate = true, .stores_approximate = true};
  constexpr KvScope kAny{.accepts_approximate = true};
  const auto open = [&](int32_t length, const KvScope& scope) {
    return tree.open(count_up(length), length, scope);
  };
  store(tree, count_up(10));
  const auto sparse = open(30, kApproximate);
  EXPECT_EQ(sparse.matched, 10) << "exact KV serves everyone";
  ASSERT_TRUE(tree.extend(sparse.seq, count_up(20, 10)).has_value());
  tree.check_integrity();
  const auto exact = open(30, {});
  EXPECT_EQ(exact.matched, 10);
  const auto any = open(30, kAny);
  EXPECT_EQ(any.matched, 30);
  ASSERT_TRUE(tree.extend(any.seq, count_up(5, 30)).has_value());
  EXPECT_FALSE(tree.node(tree.leaf(any.seq)).exact) << "computed exactly, from what is not";
  ASSERT_TRUE(tree.extend(exact.seq, count_up(20, 10)).has_value());
  const auto either = open(30, kAny);
  EXPECT_TRUE(tree.node(tree.leaf(either.seq)).exact) << "of two as long";
  EXPECT_EQ(open(35, kAny).matched, 35);
  EXPECT_EQ(open(35, {}).matched, 30);
  tree.close(sparse.seq);
  tree.close(exact.seq);
  tree.check_integrity();
}

TEST(KvTree, CloseDropsAnApproximateCopyOfWhatIsExactButNotTheOtherWayRound) {
  constexpr KvScope kApproximate{.stores_approximate = true};
  for (const bool exact_first : {false, true}) {
    PanelPool pool = make_pool(8);
    KvTree tree(pool);
    const SeqId exact = tree.open({}, 0).seq;
    const SeqId approximate = tree.open({}, 0, kApproximate).seq;
    ASSERT_TRUE(tree.extend(exact, count_up(16)).has_value());
    ASSERT_TRUE(tree.extend(approximate, count_up(16)).has_value());
    tree.close(exact_first ? exact : approximate);
    tree.close(exact_first ? approximate : exact);
    EXPECT_EQ(tree.positions(), 16U);
    EXPECT_EQ(matched(tree, count_up(16)), 16);
    tree.check_integrity();
  }
}

TEST(KvTree, ExplainSaysWhatWouldBeMatchedAndWhyNoMore) {
  using Why = KvTree::Why;
  using Explanation = KvTree::Explanation;
  PanelPool pool = make_pool(16);
  KvTree tree(pool);
  EXPECT_EQ(tree.explain({}), (Explanation{Why::kHit}));
  EXPECT_EQ(tree.explain(count_up(5)), (Explanation{Why::kEmpty}));
  store(tree, count_up(70));
  Tokens other = count_up(30);
  other.insert(other.end(), {500, 501});
  store(tree, other);
  const std::string before = tree.to_text();

  EXPECT_EQ(tree.explain(count_up(70)), (Explanation{Why::kHit, 70}));
  EXPECT_EQ(tree.explain(count_up(20)), (Explanation{Why::kHit, 20}));
  EXPECT_EQ(tree.explain(count_up(90)), (Explanation{Why::kHit, 70})) << "nothing is behind it";
  Tokens asked = count_up(64);
  asked[50] = 7;
  EXPECT_EQ(tree.explain(asked), (Explanation{Why::kDiverged, 50, 50, 7}));
  asked[30] = 500;
  asked[31] = 7;
  EXPECT_EQ(tree.explain(asked), (Explanation{Why::kDiverged, 31, 501, 7}));
  asked[30] = 7;
  EXPECT_EQ(tree.explain(asked), (Explanation{Why::kDiverged, 30, 30, 7}));
  asked[0] = 7;
  EXPECT_EQ(tree.explain(asked), (Explanation{Why::kDiverged, 0, 0, 7}));
  EXPECT_EQ(tree.explain(count_up(50), {.salt = 3}), (Explanation{Why::kOtherTenant}));
  const auto behind = [&](const Tokens& prefix, const KvScope& scope = {}) {
    const auto found = tree.stored_behind(prefix, scope);
    return Tokens(found.begin(), found.end());
  };
  EXPECT_EQ(behind(count_up(65)), (Tokens{65, 66, 67, 68, 69}));
  EXPECT_EQ(behind(other), Tokens());
  EXPECT_EQ(behind({0, 2}), Tokens()) << "is not stored itself";
  EXPECT_EQ(behind(count_up(50), {.salt = 3}), Tokens());
  EXPECT_EQ(tree.explain(count_up(50, 1), {.salt = 3}), (Explanation{Why::kEmpty}));
  EXPECT_EQ(tree.to_text(), before);
}

TEST(KvTree, ExplainTellsOfApproximateKvAndOfOtherTenantsByWhatTheyWouldGive) {
  using Why = KvTree::Why;
  using Explanation = KvTree::Explanation;
  PanelPool pool = make_pool(32);
  KvTree tree(pool);
  const auto store_in = [&](const Tokens& tokens, const KvScope& scope) {
    const auto [seq, n_matched] = tree.open(tokens, static_cast<int32_t>(tokens.size()), scope);
    ASSERT_TRUE(tree.extend(seq, std::span(tokens).subspan(n_matched)).has_value());
    tree.close(seq);
  };
  store_in(count_up(10), {});
  store_in(count_up(20), {.accepts_approximate = true, .stores_approximate = true});
  store_in(count_up(30), {.salt = 1});
  EXPECT_EQ(tree.explain(count_up(20)), (Explanation{Why::kApproximateOnly, 10}));
  EXPECT_EQ(tree.explain(count_up(40)), (Explanation{Why::kOtherTenant, 10}));
  EXPECT_EQ(tree.explain(count_up(20), {.accepts_approximate = true}),
            (Explanation{Why::kHit, 20}));
  EXPECT_EQ(tree.explain(count_up(40), {.salt = 1}), (Explanation{Why::kHit, 30}));
  Tokens asked = count_up(10);
  asked.push_back(7);
  EXPECT_EQ(tree.explain(asked), (Explanation{Why::kHit, 10}))
      << "what is approximate there is not for this request to see";
}

TEST(KvTree, ExplainRemembersWhatWasEvicted) {
  using Why = KvTree::Why;
  using Explanation = KvTree::Explanation;
  PanelPool pool = make_pool(20);
  KvTree tree(pool);
  store(tree, count_up(205));
  const SeqId seq = tree.open({}, 0).seq;
  ASSERT_TRUE(tree.extend(seq, count_up(140, 1000)).has_value());
  ASSERT_EQ(tree.explain(count_up(176)).matched, 176);
  EXPECT_EQ(tree.explain(count_up(205)), (Explanation{Why::kEvicted, 176}));
  EXPECT_EQ(tree.explain(count_up(195)), (Explanation{Why::kEvicted, 176})) << "by its chunks";
  EXPECT_EQ(tree.explain(count_up(205), {.salt = 1}), (Explanation{Why::kOtherTenant}));
  ASSERT_TRUE(tree.extend(seq, count_up(180, 1140)).has_value());
  EXPECT_EQ(tree.explain(count_up(70)), (Explanation{Why::kEvicted}));
  EXPECT_EQ(tree.explain(count_up(70), {.salt = 1}), (Explanation{Why::kEmpty}));
}

TEST(KvTree, WhereOnlyUnusedChildrenStandInTheWayTheSoleUserAppendsInPlace) {
  PanelPool pool = make_pool(2);
  KvTree tree(pool);
  const SeqId a = tree.open({}, 0).seq;
  ASSERT_TRUE(tree.extend(a, count_up(10)).has_value());
  const SeqId b = tree.fork(a);
  ASSERT_TRUE(tree.extend(b, Tokens{77}).has_value());
  tree.close(b);
  ASSERT_TRUE(tree.extend(a, count_up(22, 10)).has_value());  // needs both panels
  EXPECT_EQ(tree.slot(a, 10).panel, tree.slot(a, 9).panel);
  tree.check_integrity();
}

TEST(KvTree, UnusedHalvesOfAPinnedPanelDoNotStandInTheWayEither) {
  PanelPool pool = make_pool(1);
  KvTree tree(pool);
  store(tree, count_up(12));
  const SeqId seq = tree.open(count_up(12), 5).seq;
  ASSERT_TRUE(tree.extend(seq, count_up(11, 50)).has_value());
  EXPECT_EQ(tree.length(seq), 16);
  EXPECT_EQ(tree.positions(), 16U);
  tree.check_integrity();
}

TEST(KvTree, AReservedSequenceGrowsTokenByTokenWithoutAllocation) {
  constexpr int32_t kLength = 3000;
  PanelPool pool = make_pool(200);
  KvTree tree(pool);
  for (TokenId i = 0; i < 10; ++i) store(tree, count_up(20 * 16, 10000 * (i + 1)));  // to evict
  const SeqId seq = tree.open({}, 0).seq;
  tree.reserve(seq, kLength);
  ASSERT_TRUE(tree.extend(seq, Tokens{0}).has_value());  // opens the node
  const uint64_t before = allocations;
  for (TokenId t = 1; t < kLength; ++t) {
    if (!tree.extend(seq, {&t, 1}).has_value()) FAIL() << "at " << t;
  }
  EXPECT_EQ(allocations - before, 0U);
  tree.check_integrity();
}

// Runs on a stack too small for a call for each node.
void* work_on_a_deep_chain(void*) {
  constexpr int32_t kDepth = 10000;
  PanelPool pool = make_pool(kDepth + 8);
  KvTree tree(pool);
  SeqId seq = tree.open({}, 0).seq;
  for (TokenId t = 0; t < kDepth; ++t) {
    const SeqId next = tree.fork(seq);  // its end is now shared: the next token opens a node
    EXPECT_TRUE(tree.extend(next, {&t, 1}).has_value());
    tree.close(seq);
    seq = next;
  }
  tree.check_integrity();
  EXPECT_GT(tree.to_text().size(), 100U);
  std::vector<NodeId> path;
  tree.path(seq, path);
  EXPECT_EQ(path.size(), static_cast<size_t>(kDepth));
  EXPECT_EQ(tree.slot(seq, 0).slot, 0);
  EXPECT_EQ(matched(tree, count_up(kDepth)), kDepth);
  tree.close(seq);
  const SeqId other = tree.open({}, 0).seq;
  EXPECT_TRUE(tree.extend(other, count_up((kDepth + 8) * 16, 1 << 20)).has_value());
  tree.check_integrity();
  return nullptr;
}

TEST(KvTree, ChainsOfAnyDepthNeedNoStack) {
  pthread_attr_t attributes;
  ASSERT_EQ(pthread_attr_init(&attributes), 0);
  ASSERT_EQ(pthread_attr_setstacksize(&attributes, 256 * 1024), 0);
  pthread_t thread;
  ASSERT_EQ(pthread_create(&thread, &attributes, work_on_a_deep_chain, nullptr), 0);
  ASSERT_EQ(pthread_join(thread, nullptr), 0);
  pthread_attr_destroy(&attributes);
}

}  // namespace
}  // namespace banyan
