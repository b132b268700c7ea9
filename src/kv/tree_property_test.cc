// SPDX-License-Identifier: Apache-2.0
// Random operations on a KvTree against the plainest model there is: each sequence is a vector of
// tokens, and each slot of the pool holds a hash of the whole prefix that was written there. A slot
// that is overwritten, freed or matched wrongly shows as a wrong hash.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "kv/tree.h"

namespace banyan {
namespace {

constexpr KvShape kShape{.n_layers = 1, .n_kv_heads = 1, .head_dim = 1};

using Tokens = std::vector<TokenId>;

int32_t common_prefix(const Tokens& a, const Tokens& b) {
  return static_cast<int32_t>(std::ranges::mismatch(a, b).in1 - a.begin());
}

struct Mix {
  uint32_t panels;
  int vocabulary;  // small: much is shared
  int max_length;  // of a sequence, roughly
  int max_live;
  bool truncates;
  int salts = 1;
  bool approximate = false;  // some sequences are
};

// What a sequence has, or had.
struct Past {
  Tokens tokens;
  KvScope scope;
  int32_t exact = 0;  // of its first positions
};

// How much of a prompt a past can give to a sequence of `scope`.
int32_t gives(const Past& past, const Tokens& prompt, const KvScope& scope) {
  if (past.scope.salt != scope.salt) return 0;
  const int32_t same = common_prefix(past.tokens, prompt);
  return scope.accepts_approximate ? same : std::min(same, past.exact);
}

class Simulation {
 public:
  Simulation(const Mix& mix, uint32_t seed)
      : mix_(mix),
        random_(seed),
        pool_(std::move(PanelPool::create(kShape, mix.panels * kShape.panel_bytes())).value()),
        tree_(pool_),
        written_(size_t{mix.panels} * kPanelTokens) {}

  void run(int n_operations) {
    for (int i = 0; i < n_operations && !::testing::Test::HasFatalFailure(); ++i) {
      step();
      tree_.check_integrity();
      check_all();
      ASSERT_LE(pool_.used_bytes(), pool_.budget_bytes());
    }
    pins_.clear();
    while (!live_.empty()) close(live_.begin()->first);
    tree_.check_integrity();
    // What is left goes when all is asked for, and then every byte is back.
    const SeqId all = tree_.open({}, 0).seq;
    ASSERT_TRUE(tree_.extend(all, Tokens(size_t{mix_.panels} * kPanelTokens, -1)).has_value());
    tree_.truncate(all, 0);
    tree_.close(all);
    tree_.check_integrity();
    ASSERT_EQ(pool_.used_bytes(), 0U);
    ASSERT_EQ(tree_.positions(), 0U);
  }

  const std::map<KvTree::Why, int>& explained() const { return explained_; }
  int failures() const { return failures_; }
  int64_t matched_positions() const { return matched_positions_; }
  bool evicted() const { return evicted_; }

 private:
  uint32_t below(uint32_t n) { return random_() % n; }

  Tokens random_tokens(int32_t max_size) {
    Tokens tokens(below(max_size + 1));
    for (TokenId& token : tokens) token = static_cast<TokenId>(below(mix_.vocabulary));
    return tokens;
  }

  // Often the beginning of something seen before.
  Tokens random_prompt() {
    Tokens prompt;
    if (!ever_.empty() && below(4) != 0) {
      prompt = ever_[below(ever_.size())].tokens;
      prompt.resize(below(prompt.size() + 1));
    }
    const Tokens tail = random_tokens(mix_.max_length / 2);
    prompt.insert(prompt.end(), tail.begin(), tail.end());
    return prompt;
  }

  SeqId any_live() { return std::next(live_.begin(), below(live_.size()))->first; }

  void step() {
    const uint32_t dice = below(100);
    if (live_.empty() || (dice < 20 && int(live_.size()) < mix_.max_live)) return open();
    const SeqId seq = any_live();
    if (dice < 23) return pin(seq);
    if (dice < 26 && !pins_.empty()) {
      std::swap(pins_[below(pins_.size())], pins_.back());
      return pins_.pop_back();
    }
    if (dice < 65) return extend(seq, random_tokens(below(3) == 0 ? mix_.max_length / 2 : 3));
    if (dice < 78 && int(live_.size()) < mix_.max_live) return fork(seq);
    if (dice < 88 && mix_.truncates) return truncate(seq);
    close(seq);
  }

  void open() {
    const Tokens prompt = random_prompt();
    const int32_t max_match = below(3) == 0 ? static_cast<int32_t>(below(prompt.size() + 2))
                                            : static_cast<int32_t>(prompt.size());
    KvScope scope{.salt = below(mix_.salts)};
    if (mix_.approximate) {
      scope.accepts_approximate = below(2) == 0;
      scope.stores_approximate = scope.accepts_approximate && below(2) == 0;
    }
    check_explain(prompt, scope);
    const auto [seq, matched] = tree_.open(prompt, max_match, scope);
    const int32_t limit = std::min(max_match, static_cast<int32_t>(prompt.size()));
    int32_t ever = 0;
    for (const Past& past : ever_) ever = std::max(ever, gives(past, prompt, scope));
    int32_t live = 0;
    for (const auto& [id, past] : live_) live = std::max(live, gives(past, prompt, scope));
    for (const Pinned& pinned : pins_) live = std::max(live, gives(pinned.past, prompt, scope));
    ASSERT_LE(matched, std::min(limit, std::max(ever, live)));
    ASSERT_GE(matched, std::min(limit, live)) << "what is live cannot be gone";
    if (!evicted_ && !mix_.truncates) {
      ASSERT_EQ(matched, std::min(limit, std::max(ever, live)));
    }
    matched_positions_ += matched;
    Past past{Tokens(prompt.begin(), prompt.begin() + matched), scope};
    while (past.exact < matched && written(seq, past.exact).exact) ++past.exact;
    ASSERT_TRUE(scope.accepts_approximate || past.exact == matched);
    ASSERT_TRUE(live_.emplace(seq, std::move(past)).second);
    if (below(8) != 0) extend(seq, Tokens(prompt.begin() + matched, prompt.end()));
  }

  // Against what is and what ever was; and that nothing changes.
  void check_explain(const Tokens& prompt, const KvScope& scope) {
    using Why = KvTree::Why;
    const std::string before = tree_.to_text();
    const KvTree::Explanation explained = tree_.explain(prompt, scope);
    ASSERT_EQ(tree_.to_text(), before);
    tree_.check_integrity();
    const bool all_is_there = !evicted_ && !mix_.truncates;
    const int32_t at = explained.matched;
    int32_t own = 0;
    int32_t approximate = 0;
    int32_t others = 0;
    bool had = false;  // at `at`, behind the same past
    bool goes_on = false;
    const auto look = [&](const Past& past) {
      KvScope theirs = scope;
      theirs.salt = past.scope.salt;
      const int32_t given = gives(past, prompt, theirs);
      others = std::max(others, given);
      if (past.scope.salt != scope.salt) return;
      own = std::max(own, given);
      approximate = std::max(approximate, common_prefix(past.tokens, prompt));
      if (given < at) return;
      const int32_t visible =
          scope.accepts_approximate ? static_cast<int32_t>(past.tokens.size()) : past.exact;
      goes_on = goes_on || visible > at;
      had = had || (visible > at && past.tokens[at] == explained.had);
    };
    for (const Past& past : ever_) look(past);
    for (const auto& [seq, past] : live_) look(past);
    ASSERT_LE(at, own);
    ASSERT_TRUE(at == own || !all_is_there);
    switch (explained.why) {
      case Why::kHit:
        ASSERT_TRUE(at == int32_t(prompt.size()) || !goes_on || !all_is_there);
        break;
      case Why::kEmpty:
        ASSERT_EQ(at, 0);
        ASSERT_FALSE(goes_on && all_is_there);
        break;
      case Why::kDiverged:
        ASSERT_TRUE(had);
        ASSERT_EQ(explained.got, prompt[at]);
        ASSERT_NE(explained.got, explained.had);
        break;
      case Why::kEvicted:
        ASSERT_TRUE(evicted_);
        ASSERT_GT(std::max(own, approximate), at);
        break;
      case Why::kApproximateOnly:
        ASSERT_FALSE(scope.accepts_approximate);
        ASSERT_GT(approximate, at);
        break;
      case Why::kOtherTenant:
        ASSERT_GT(others, at);
        break;
    }
    if (explained.why != Why::kDiverged) {
      ASSERT_EQ(explained.had, kNoToken);
      ASSERT_EQ(explained.got, kNoToken);
    }
    if (all_is_there && std::max(approximate, others) > own) {
      ASSERT_EQ(explained.why, others > approximate ? Why::kOtherTenant : Why::kApproximateOnly);
    }
    ++explained_[explained.why];
  }

  struct Pinned {
    KvTree::Pin pin;
    Past past;
    std::vector<size_t> slots;  // of written_
  };

  void pin(SeqId seq) {
    pins_.push_back({tree_.pin(seq), live_.at(seq), {}});
    Pinned& pinned = pins_.back();
    for (Position p = 0; p < Position(pinned.past.tokens.size()); ++p) {
      pinned.slots.push_back(&written(seq, p) - written_.data());
    }
  }

  // What the live sequences and pins hold, counted through the public interface.
  size_t held_panels() const {
    std::set<PanelId> panels;
    for (const Pinned& pinned : pins_) {
      for (const size_t slot : pinned.slots) panels.insert(slot / kPanelTokens);
    }
    for (const auto& [seq, past] : live_) {
      for (Position p = 0; p < Position(past.tokens.size()); ++p) {
        panels.insert(tree_.slot(seq, p).panel);
      }
    }
    return panels.size();
  }

  void extend(SeqId seq, const Tokens& added) {
    Past& past = live_.at(seq);
    Tokens& tokens = past.tokens;
    const size_t begin = tokens.size();
    const bool exact = past.exact == int32_t(begin) && !past.scope.stores_approximate;
    const size_t touched =
        added.empty() ? 0 : (begin + added.size() - 1) / kPanelTokens - begin / kPanelTokens + 1;
    const size_t held = held_panels();
    ASSERT_EQ(tree_.available_panels(), mix_.panels - held);
    const std::string before = tree_.to_text();
    const uint64_t positions_before = tree_.positions();
    if (below(4) == 0) tree_.reserve(seq, static_cast<int32_t>(begin + added.size() + below(40)));
    if (!tree_.extend(seq, added)) {
      ++failures_;
      ASSERT_EQ(tree_.to_text(), before);
      ASSERT_GE(held + touched, mix_.panels) << "refused though it fits";
      return;
    }
    evicted_ = evicted_ || tree_.positions() < positions_before + added.size();
    tokens.insert(tokens.end(), added.begin(), added.end());
    ASSERT_EQ(tree_.length(seq), static_cast<int32_t>(tokens.size()));
    if (exact) past.exact = static_cast<int32_t>(tokens.size());
    uint64_t hash = seed(past);
    for (size_t p = 0; p < tokens.size(); ++p) {
      hash = next_hash(hash, tokens[p]);
      if (p >= begin) written(seq, static_cast<Position>(p)) = {hash, exact};
    }
  }

  void fork(SeqId seq) {
    const SeqId second = tree_.fork(seq);
    ASSERT_TRUE(live_.emplace(second, live_.at(seq)).second);
    ASSERT_EQ(tree_.shared_length(seq), tree_.length(seq));
    ASSERT_EQ(tree_.shared_length(second), tree_.length(seq));
  }

  // Down to where another live sequence may have positions in common: those must stay.
  void truncate(SeqId seq) {
    Past& past = live_.at(seq);
    int32_t shared = 0;
    for (const auto& [other, its] : live_) {
      if (other != seq) shared = std::max(shared, common_prefix(past.tokens, its.tokens));
    }
    ASSERT_LE(tree_.shared_length(seq), shared);
    const int32_t length = shared + static_cast<int32_t>(below(past.tokens.size() - shared + 1));
    ever_.push_back(past);
    tree_.truncate(seq, length);
    past.tokens.resize(length);
    past.exact = std::min(past.exact, length);
    ASSERT_EQ(tree_.length(seq), length);
  }

  void close(SeqId seq) {
    ever_.push_back(live_.at(seq));
    live_.erase(seq);
    if (mix_.truncates && below(3) == 0) {
      tree_.drop(seq);
    } else {
      tree_.close(seq);
    }
  }

  static constexpr uint64_t kSeed = 0xcbf29ce484222325;
  static uint64_t next_hash(uint64_t hash, TokenId token) {
    return (hash ^ static_cast<uint64_t>(token + 1)) * 0x100000001b3;
  }

  static uint64_t seed(const Past& past) { return kSeed + past.scope.salt; }

  struct Written {
    uint64_t hash = 0;
    bool exact = false;
  };

  Written& written(SeqId seq, Position position) {
    const KvSlot slot = tree_.slot(seq, position);
    return written_[size_t{slot.panel} * kPanelTokens + slot.slot];
  }

  // Every position of every live sequence holds what that sequence, or one with the same past,
  // wrote there; and the path spells its tokens.
  void check_all() {
    check_order();
    check_version();
    for (const Pinned& pinned : pins_) {
      uint64_t hash = seed(pinned.past);
      for (size_t p = 0; p < pinned.slots.size(); ++p) {
        hash = next_hash(hash, pinned.past.tokens[p]);
        ASSERT_EQ(written_[pinned.slots[p]].hash, hash) << "pinned, at " << p;
      }
    }
    std::vector<NodeId> path;
    Tokens spelled;
    for (const auto& [seq, past] : live_) {
      const Tokens& tokens = past.tokens;
      uint64_t hash = seed(past);
      for (size_t p = 0; p < tokens.size(); ++p) {
        hash = next_hash(hash, tokens[p]);
        const Written& slot = written(seq, static_cast<Position>(p));
        ASSERT_EQ(slot.hash, hash) << "sequence " << seq << " at " << p;
        ASSERT_EQ(slot.exact, int32_t(p) < past.exact) << "sequence " << seq << " at " << p;
        ASSERT_EQ(tree_.slot(seq, static_cast<Position>(p)).slot, int(p) % kPanelTokens);
      }
      path.clear();
      spelled.clear();
      tree_.path(seq, path);
      for (const NodeId id : path) {
        const Tokens& part = tree_.node(id).tokens;
        spelled.insert(spelled.end(), part.begin(), part.end());
        ASSERT_EQ(tree_.node(id).salt, past.scope.salt);
        ASSERT_EQ(tree_.node(id).exact, int32_t(spelled.size()) <= past.exact);
      }
      ASSERT_EQ(spelled, tokens);
    }
  }

  // Every live sequence once, and those that share a node's slots next to each other.
  void check_order() {
    std::vector<SeqId> order;
    for (SeqId seq = tree_.first_sequence(); seq != kNoSequence; seq = tree_.next_sequence(seq)) {
      ASSERT_LT(order.size(), live_.size());
      order.push_back(seq);
    }
    ASSERT_EQ(order.size(), live_.size());
    ASSERT_TRUE(std::ranges::all_of(order, [&](SeqId seq) { return live_.contains(seq); }));
    std::map<std::pair<PanelId, int>, std::vector<size_t>> rows_of_slot;
    for (size_t row = 0; row < order.size(); ++row) {
      for (Position p = 0; p < tree_.length(order[row]); ++p) {
        const KvSlot slot = tree_.slot(order[row], p);
        rows_of_slot[{slot.panel, slot.slot}].push_back(row);
      }
    }
    for (const auto& [slot, rows] : rows_of_slot) {
      ASSERT_EQ(rows.back() - rows.front() + 1, rows.size()) << "users are one interval";
    }
  }

  // Whatever changed a live path or the order grew the version.
  void check_version() {
    std::vector<uint64_t> structure;
    std::vector<NodeId> path;
    for (SeqId seq = tree_.first_sequence(); seq != kNoSequence; seq = tree_.next_sequence(seq)) {
      path.clear();
      tree_.path(seq, path);
      structure.push_back(seq);
      structure.push_back(path.empty() ? 0 : path.back());
      ASSERT_EQ(structure.back(), tree_.leaf(seq));
      for (const NodeId id : path) {
        const KvTree::Node& node = tree_.node(id);
        structure.insert(structure.end(), {id, node.parent, uint64_t(node.begin), node.users});
        if (id != path.back()) structure.push_back(node.tokens.size());
      }
    }
    ASSERT_TRUE(structure == structure_ || tree_.structure_version() > version_);
    structure_ = std::move(structure);
    version_ = tree_.structure_version();
  }

  const Mix mix_;
  std::mt19937 random_;
  PanelPool pool_;
  KvTree tree_;
  std::vector<Written> written_;  // [panel][slot]
  std::map<SeqId, Past> live_;
  std::vector<Pinned> pins_;
  std::map<KvTree::Why, int> explained_;
  std::vector<uint64_t> structure_;  // of the live sequences, as last seen
  uint64_t version_ = 0;
  std::vector<Past> ever_;  // as they were when closed or truncated
  bool evicted_ = false;
  int failures_ = 0;
  int64_t matched_positions_ = 0;
};

TEST(KvTreeProperty, WithoutEvictionEveryMatchIsTheLongestOverAllThatWasEverStored) {
  for (uint32_t seed = 0; seed < 6; ++seed) {
    Simulation simulation({.panels = 60000,
                           .vocabulary = seed % 2 == 0 ? 2 : 3,
                           .max_length = 24 + 20 * int(seed),
                           .max_live = 8,
                           .truncates = false},
                          seed);
    simulation.run(1000);
    ASSERT_FALSE(HasFatalFailure());
    EXPECT_FALSE(simulation.evicted());
    EXPECT_EQ(simulation.failures(), 0);
    EXPECT_GT(simulation.matched_positions(), 500);
  }
}

TEST(KvTreeProperty, UnderASmallBudgetNoLiveSequenceLosesAPosition) {
  int failures = 0;
  bool evicted = false;
  for (uint32_t seed = 0; seed < 24; ++seed) {
    Simulation simulation({.panels = 6 + 5 * (seed % 6),
                           .vocabulary = seed % 3 == 0 ? 2 : 4,
                           .max_length = 20 + 12 * int(seed % 5),
                           .max_live = 2 + int(seed % 7),
                           .truncates = seed % 2 == 0},
                          100 + seed);
    simulation.run(1500);
    ASSERT_FALSE(HasFatalFailure());
    failures += simulation.failures();
    evicted = evicted || simulation.evicted();
  }
  EXPECT_GT(failures, 100) << "the budget was never met";
  EXPECT_TRUE(evicted);
}

TEST(KvTreeProperty, TruncatingAndForkingWithRoomToSpareKeepsEveryPosition) {
  for (uint32_t seed = 0; seed < 6; ++seed) {
    Simulation simulation(
        {.panels = 20000, .vocabulary = 2, .max_length = 60, .max_live = 12, .truncates = true},
        200 + seed);
    simulation.run(1000);
    ASSERT_FALSE(HasFatalFailure());
  }
}

TEST(KvTreeProperty, TenantsShareNothingAndExactSequencesNothingApproximate) {
  std::map<KvTree::Why, int> explained;
  for (uint32_t seed = 0; seed < 12; ++seed) {
    Simulation simulation({.panels = seed % 2 == 0 ? 20000U : 16U,
                           .vocabulary = 2,
                           .max_length = 40,
                           .max_live = 8,
                           .truncates = seed % 4 == 3,
                           .salts = 1 + int(seed % 3),
                           .approximate = true},
                          300 + seed);
    simulation.run(1000);
    ASSERT_FALSE(HasFatalFailure());
    EXPECT_GT(simulation.matched_positions(), 100);
    for (const auto& [why, count] : simulation.explained()) explained[why] += count;
  }
  EXPECT_EQ(explained.size(), 6U);
  for (const auto& [why, count] : explained) EXPECT_GT(count, 5) << name(why);
}

// Requests over one system prompt, each with its own question, and between two of them more prompts
// that never come again than the pool holds. Tokens that need not be computed, here and in the
// plainest LRU: of panels named by their prefix, a prompt's last panel older than its first.
TEST(KvTreeProperty, AScanDoesNotFlushASystemPromptAsItDoesWithLru) {
  constexpr uint32_t kPanels = 64;
  constexpr int kRounds = 40;
  std::mt19937 random(7);
  PanelPool pool = std::move(PanelPool::create(kShape, kPanels * kShape.panel_bytes())).value();
  KvTree tree(pool);
  std::vector<Tokens> lru;  // oldest first
  int64_t tree_hits = 0;
  int64_t lru_hits = 0;
  const auto request = [&](const Tokens& prompt) {
    const auto [seq, matched] = tree.open(prompt, static_cast<int32_t>(prompt.size()));
    tree_hits += matched;
    ASSERT_TRUE(tree.extend(seq, std::span(prompt).subspan(matched)).has_value());
    tree.close(seq);
    bool hit = true;
    std::vector<Tokens> used;
    for (size_t end = kPanelTokens; end <= prompt.size(); end += kPanelTokens) {
      used.emplace(used.begin(), prompt.begin(), prompt.begin() + end);
      hit = hit && std::erase(lru, used.front()) > 0;
      lru_hits += hit ? kPanelTokens : 0;
    }
    lru.insert(lru.end(), used.begin(), used.end());
    if (lru.size() > kPanels) lru.erase(lru.begin(), lru.end() - kPanels);
  };
  const auto random_tokens = [&](size_t size) {
    Tokens tokens(size);
    for (TokenId& token : tokens) token = static_cast<TokenId>(random() % 50000);
    return tokens;
  };
  const Tokens system = random_tokens(20 * kPanelTokens);
  for (int round = 0; round < kRounds; ++round) {
    Tokens prompt = system;
    const Tokens question = random_tokens(2 * kPanelTokens);
    prompt.insert(prompt.end(), question.begin(), question.end());
    request(prompt);
    if (round < 1) continue;  // it must come again before the first scan
    for (int i = 0; i < 30; ++i) request(random_tokens(4 * kPanelTokens));
  }
  EXPECT_EQ(tree_hits, int64_t(kRounds - 1) * int64_t(system.size()));
  EXPECT_EQ(lru_hits, int64_t(system.size())) << "only before the first scan";
}

}  // namespace
}  // namespace banyan
