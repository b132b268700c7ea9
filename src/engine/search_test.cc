// SPDX-License-Identifier: Apache-2.0
// A search against a plain model of its tree: texts, and what a model says when it reads each of
// them anew from its beginning.
#include "engine/search.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>

#include "base/clock.h"
#include "engine/evaluate.h"
#include "engine/testing_tiny_engine.h"
#include "sample/scan.h"

namespace banyan {
namespace {

using Tokens = std::vector<TokenId>;

Tokens joined(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// Logits after each token of a text from `first` on, computed without any cache.
std::vector<std::vector<float>> read_anew(Engine& engine, const Tokens& text, size_t first) {
  std::vector<int> positions;
  for (size_t i = first; i < text.size(); ++i) positions.push_back(static_cast<int>(i));
  std::vector<std::vector<float>> logits;
  const auto found = evaluate_logits(engine, text, positions);
  EXPECT_TRUE(found.has_value()) << found.error().message;
  for (const LogitsAt& at : *found) logits.push_back(at.logits);
  return logits;
}

std::vector<TokenLogprob> likeliest(const std::vector<float>& logits, size_t k) {
  std::vector<Candidate> scratch;
  std::vector<TokenLogprob> out;
  top_logprobs(logits, k, scratch, out);
  return out;
}

double logprob_of(const std::vector<float>& logits, TokenId token) {
  return logits[token] - log_sum_exp(logits, max_value(logits));
}

void expect_equal(const std::vector<TokenLogprob>& a, const std::vector<TokenLogprob>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].token, b[i].token) << i;
    EXPECT_EQ(a[i].logprob, b[i].logprob) << i;  // bit-equal
  }
}

Search open_search(Engine& engine, const Tokens& prompt, uint64_t salt = 0) {
  auto search = Search::open(engine, prompt, salt);
  EXPECT_TRUE(search.has_value()) << search.error().message;
  return *std::move(search);
}

Extension forced(Tokens tokens) {
  Extension extension;
  extension.tokens = std::move(tokens);
  return extension;
}

Extension sampled(int max_tokens, float temperature = 0, uint64_t seed = 0) {
  Extension extension;
  extension.max_tokens = max_tokens;
  extension.sampler.temperature = temperature;
  extension.sampler.seed = seed;
  extension.ignore_eos = true;
  return extension;
}

void expect_fine(const Result<void>& done) {
  EXPECT_TRUE(done.has_value()) << done.error().message;
}

template <class T>
void expect_refused(const Result<T>& result, const std::string& part) {
  ASSERT_FALSE(result.has_value()) << "expected an error about " << part;
  EXPECT_EQ(result.error().code, ErrorCode::kBadInput);
  EXPECT_NE(result.error().message.find(part), std::string::npos) << result.error().message;
}

TEST(Search, BranchesSampleAsRequestsDo) {
  const auto engine = open();
  const Tokens prompt = tokens_from(5, 50);
  Request request = greedy(prompt, 12);
  request.sampler.temperature = 1;
  request.n = 3;
  request.best_of = 3;
  request.sampler.seed = 11;
  const Reply reply = *open()->generate(request);

  Search search = open_search(*engine, prompt);
  const auto leaves = *search.fork(search.root(), 3);
  for (int i = 0; i < 3; ++i) {
    expect_fine(search.extend(leaves[i], sampled(12, 1, stream_seed(11, i))));
  }
  search.run();
  for (const SearchNode leaf : leaves) {
    const Sample sample = *search.generated(leaf);
    EXPECT_EQ(sample.finish, FinishReason::kLength);
    EXPECT_EQ(*search.tokens(leaf), sample.tokens);
    const auto same = std::ranges::find(reply.samples, sample.tokens, &Sample::tokens);
    ASSERT_NE(same, reply.samples.end());
    EXPECT_EQ(sample.logprobs, same->logprobs);  // bit-equal
    EXPECT_EQ(sample.text, same->text);
  }
  // The prompt, then a pass for each token but the last ones.
  EXPECT_EQ(search.decode_steps(), 11);
}

TEST(Search, KnowsWhatMayFollowAndWhatWasSaid) {
  const auto engine = open();
  const Tokens prompt = tokens_from(1, 40);
  Search search = open_search(*engine, prompt);
  expect_refused(search.next_tokens(search.root(), 3), "not computed");
  expect_fine(search.extend(search.root(), {}));
  search.run();
  expect_equal(*search.next_tokens(search.root(), 9),
               likeliest(read_anew(*engine, prompt, 39)[0], 9));

  const Tokens text = tokens_from(100, 70);  // more than is scored in one pass
  const auto leaves = *search.fork(search.root(), 2);
  expect_fine(search.extend(leaves[0], forced(text)));
  Extension rest_unscored = forced(text);
  rest_unscored.unscored = 68;
  rest_unscored.keep_next = 4;
  expect_fine(search.extend(leaves[1], rest_unscored));
  search.run();
  const auto logits = read_anew(*engine, joined(prompt, text), 39);
  double all = 0;
  for (size_t i = 0; i < text.size(); ++i) all += logprob_of(logits[i], text[i]);
  EXPECT_NEAR(*search.logprob(leaves[0]), all, 1e-6);
  EXPECT_NEAR(*search.logprob(leaves[1]),
              logprob_of(logits[68], text[68]) + logprob_of(logits[69], text[69]), 1e-6);
  for (const SearchNode leaf : leaves) {
    expect_equal(*search.next_tokens(leaf, 4), likeliest(logits.back(), 4));
  }
  EXPECT_EQ(search.next_tokens(leaves[1], 9)->size(), 4U);
  EXPECT_EQ(search.next_tokens(leaves[0], 9)->size(), 9U);

  // Behind the four that were kept only one of these can stand.
  const TokenLogprob kept = search.next_tokens(leaves[1], 4)->back();
  expect_refused(search.extend(leaves[1], sampled(2)), "keep_next");
  const TokenId unlikely = likeliest(logits.back(), 300).back().token;
  expect_refused(search.extend(leaves[1], forced({unlikely})), "keep_next");
  const double before = *search.logprob(leaves[1]);
  expect_fine(search.extend(leaves[1], forced({kept.token})));
  search.run();
  EXPECT_DOUBLE_EQ(*search.logprob(leaves[1]), before + double{kept.logprob});

  EXPECT_EQ(*search.score(leaves[0]), *search.logprob(leaves[0]));
  expect_fine(search.set_score(leaves[0], 7));
  EXPECT_EQ(*search.score(leaves[0]), 7);
  EXPECT_NEAR(*search.logprob(leaves[0]), all, 1e-6);
}

TEST(Search, JoinAppendsWhatTheOtherSaidSinceTheyParted) {
  const auto engine = open();
  const Tokens prompt = tokens_from(1, 20);
  Search search = open_search(*engine, prompt);
  const auto branches = *search.fork(search.root(), 2);
  expect_fine(search.extend(branches[0], forced({10, 11})));
  expect_fine(search.extend(branches[1], forced({20, 21, 22})));
  search.run();
  const SearchNode below = search.fork(branches[1], 1)->front();
  expect_fine(search.extend(below, forced({23})));
  search.run();
  expect_fine(search.join(branches[0], below));
  search.run();
  EXPECT_EQ(*search.path(branches[0]), (Tokens{10, 11, 20, 21, 22, 23}));
  const Tokens text = joined(prompt, {10, 11, 20, 21, 22, 23});
  expect_equal(*search.next_tokens(branches[0], 5),
               likeliest(read_anew(*engine, text, text.size() - 1)[0], 5));
  expect_refused(search.join(branches[0], search.root()), "no text");
  expect_refused(search.join(branches[1], branches[0]), "branches");
}

TEST(Search, HandlesOfPrunedNodesAreToldFromLiveOnes) {
  const auto engine = open();
  Search search = open_search(*engine, tokens_from(1, 20));
  const auto a = *search.fork(search.root(), 3);
  const auto b = *search.fork(a[1], 2);
  expect_fine(search.extend(b[0], forced({7})));
  expect_fine(search.prune(a[1]));
  for (const SearchNode gone : {a[1], b[0], b[1], SearchNode{99, 1}, SearchNode{}}) {
    EXPECT_FALSE(search.is_live(gone));
    expect_refused(search.fork(gone, 1), "node");
    expect_refused(search.extend(gone, forced({3})), "node");
    expect_refused(search.prune(gone), "node");
    expect_refused(search.commit(gone), "node");
    expect_refused(search.join(a[0], gone), "node");
    expect_refused(search.join(gone, a[0]), "node");
    expect_refused(search.tokens(gone), "node");
    expect_refused(search.path(gone), "node");
    expect_refused(search.score(gone), "node");
    expect_refused(search.set_score(gone, 1), "node");
    expect_refused(search.next_tokens(gone, 1), "node");
    expect_refused(search.generated(gone), "node");
  }
  EXPECT_FALSE(search.step());
  // Their places are taken by others, under other names.
  const auto c = *search.fork(a[0], 3);
  for (const SearchNode node : c) EXPECT_TRUE(search.is_live(node));
  for (const SearchNode gone : {a[1], b[0], b[1]}) EXPECT_FALSE(search.is_live(gone));
  expect_fine(search.commit(c[1]));
  for (const SearchNode gone : {a[2], c[0], c[2]}) EXPECT_FALSE(search.is_live(gone));
  for (const SearchNode node : {search.root(), a[0], c[1]}) EXPECT_TRUE(search.is_live(node));
  EXPECT_EQ(search.snapshot().nodes.size(), 3U);
  expect_refused(search.prune(search.root()), "root");
  expect_refused(search.parent(search.root()), "root");
  EXPECT_EQ(*search.parent(c[1]), a[0]);
}

TEST(Search, WhatCannotBeIsRefusedAndChangesNothing) {
  const auto engine = open();
  expect_refused(Search::open(*engine, {}), "prompt is empty");
  expect_refused(Search::open(*engine, Tokens{-1}), "token -1");
  Search search = open_search(*engine, tokens_from(1, 20));
  const SearchNode leaf = search.fork(search.root(), 1)->front();
  const auto extend = [&](auto change) {
    Extension extension = sampled(1);
    change(extension);
    return search.extend(leaf, extension);
  };
  expect_refused(extend([](Extension& e) { e.tokens = {100000}; }), "token 100000");
  expect_refused(extend([](Extension& e) { e.unscored = 1; }), "unscored");
  expect_refused(extend([](Extension& e) { e.max_tokens = -1; }), "max_tokens");
  expect_refused(extend([](Extension& e) { e.keep_next = -1; }), "keep_next");
  expect_refused(extend([](Extension& e) { e.stop = {""}; }), "stop string");
  expect_refused(extend([](Extension& e) { e.sampler.top_p = 0; }), "--top-p");
  expect_refused(extend([](Extension& e) { e.tokens = tokens_from(1, 4096); }), "context");
  expect_refused(search.extend(search.root(), sampled(1)), "branches");
  expect_refused(search.fork(leaf, 0), "expected 1");
  expect_refused(search.set_score(leaf, std::numeric_limits<double>::quiet_NaN()), "finite");
  EXPECT_FALSE(search.has_work());
  EXPECT_TRUE(search.tokens(leaf)->empty());
  expect_fine(search.extend(leaf, sampled(1)));
  expect_refused(search.extend(leaf, sampled(1)), "work left");
  expect_refused(search.fork(leaf, 1), "work left");
}

// What the search should be.
struct ModelNode {
  SearchNode handle;
  int parent = -1;
  Tokens tokens;
  bool live = true;
  std::vector<int> children;
};

class PlainTree {
 public:
  explicit PlainTree(Tokens prompt) { nodes.push_back({{0, 1}, -1, std::move(prompt), true, {}}); }
  int add(int parent, SearchNode handle) {
    nodes.push_back({handle, parent, {}, true, {}});
    nodes[parent].children.push_back(std::ssize(nodes) - 1);
    return static_cast<int>(std::ssize(nodes) - 1);
  }
  void prune(int node) {
    std::erase(nodes[nodes[node].parent].children, node);
    end(node);
  }
  void commit(int node) {
    for (int i = node; i != 0; i = nodes[i].parent) {
      for (const int child : nodes[nodes[i].parent].children) {
        if (child != i) end(child);
      }
      nodes[nodes[i].parent].children = {i};
    }
  }
  Tokens text(int node) const {
    return node == 0 ? nodes[0].tokens : joined(text(nodes[node].parent), nodes[node].tokens);
  }
  std::vector<int> live(bool leaves_only) const {
    std::vector<int> found;
    for (int i = 0; i < std::ssize(nodes); ++i) {
      if (nodes[i].live && (!leaves_only || nodes[i].children.empty())) found.push_back(i);
    }
    return found;
  }
  std::vector<ModelNode> nodes;

 private:
  void end(int node) {
    nodes[node].live = false;
    for (const int child : nodes[node].children) end(child);
  }
};

TEST(Search, RandomOperationsLeaveWhatAPlainTreeSays) {
  for (uint32_t seed = 0; seed < 12; ++seed) {
    EngineOptions options = tiny_options();
    options.retention = false;
    const auto engine = open(options);
    std::mt19937 random(seed);
    const auto below = [&](size_t n) { return static_cast<int>(random() % n); };
    {
      const Tokens prompt = tokens_from(below(300), 5 + below(60));
      Search search = open_search(*engine, prompt, seed % 2);
      PlainTree plain(prompt);
      const auto pick = [&](bool leaf) {
        const std::vector<int> all = plain.live(leaf);
        return all[below(all.size())];
      };
      for (int round = 0; round < 40; ++round) {
        const int operation = below(10);
        if (operation < 3) {
          const int node = pick(false);
          if (node == 0 && plain.nodes[0].children.empty() && below(2) == 0) continue;
          const auto forked = *search.fork(plain.nodes[node].handle, 1 + below(3));
          for (const SearchNode handle : forked) plain.add(node, handle);
        } else if (operation < 7) {
          // Some leaves at once; those that sample do so greedily.
          std::vector<std::pair<int, int>> sampling;
          for (int i = 0; i < 3; ++i) {
            const int leaf = pick(true);
            if (leaf == 0) continue;
            Extension extension = forced(tokens_from(below(300), below(20)));
            extension.max_tokens = below(3);
            extension.sampler.temperature = 0;
            extension.ignore_eos = true;
            if (!search.extend(plain.nodes[leaf].handle, extension)) continue;  // has work
            Tokens& tokens = plain.nodes[leaf].tokens;
            tokens.insert(tokens.end(), extension.tokens.begin(), extension.tokens.end());
            sampling.emplace_back(leaf, extension.max_tokens);
          }
          if (below(2) == 0) {  // a request beside it
            ASSERT_TRUE(engine->submit(greedy(joined(prompt, {5, 6}), 3)).has_value());
            std::vector<Completion> finished;
            while (engine->step(finished)) search.step();
          }
          search.run();
          for (const auto& [leaf, n] : sampling) {
            for (int i = 0; i < n; ++i) {
              const Tokens text = plain.text(leaf);
              const auto logits = read_anew(*engine, text, text.size() - 1)[0];
              // Tokens 1 and 2 are special, 2 ends texts.
              auto best = likeliest(logits, 2);
              plain.nodes[leaf].tokens.push_back(best[best[0].token == 2 ? 1 : 0].token);
            }
          }
        } else if (operation == 7) {
          const int node = pick(false);
          if (node == 0) continue;
          expect_fine(search.prune(plain.nodes[node].handle));
          plain.prune(node);
        } else if (operation == 8 && below(3) == 0) {
          const int node = pick(false);
          expect_fine(search.commit(plain.nodes[node].handle));
          plain.commit(node);
        } else {
          const int leaf = pick(true);
          const int other = pick(false);
          if (leaf == 0) continue;
          std::vector<int> above;
          for (int i = leaf; i >= 0; i = plain.nodes[i].parent) above.push_back(i);
          Tokens tokens;
          for (int i = other; std::ranges::find(above, i) == above.end();
               i = plain.nodes[i].parent) {
            tokens = joined(plain.nodes[i].tokens, tokens);
          }
          const auto done = search.join(plain.nodes[leaf].handle, plain.nodes[other].handle);
          EXPECT_EQ(done.has_value(), !tokens.empty());
          search.run();
          plain.nodes[leaf].tokens = joined(plain.nodes[leaf].tokens, tokens);
        }

        for (const ModelNode& node : plain.nodes) {
          ASSERT_EQ(search.is_live(node.handle), node.live);
        }
        const SearchTree tree = search.snapshot();
        const std::vector<int> live = plain.live(false);
        ASSERT_EQ(tree.nodes.size(), live.size());
        int64_t n_tokens = 0;
        for (const int i : live) {
          const auto shown =
              std::ranges::find(tree.nodes, plain.nodes[i].handle, &SearchTree::Node::node);
          ASSERT_NE(shown, tree.nodes.end());
          EXPECT_EQ(shown->tokens, plain.nodes[i].tokens);
          EXPECT_EQ(shown->is_leaf, plain.nodes[i].children.empty());
          if (i > 0) {
            EXPECT_EQ(tree.nodes[shown->parent].node, plain.nodes[plain.nodes[i].parent].handle);
          }
          n_tokens += std::ssize(plain.nodes[i].tokens);
        }
        EXPECT_LE(search.kv().tokens, n_tokens);
        engine->tree().check_integrity();
      }
      // Every text's end and sum, as if it had been read by itself.
      for (const int leaf : plain.live(true)) {
        if (leaf == 0) continue;
        const SearchNode handle = plain.nodes[leaf].handle;
        expect_fine(search.extend(handle, {}));
        search.run();
        const Tokens text = plain.text(leaf);
        const auto logits = read_anew(*engine, text, prompt.size() - 1);
        expect_equal(*search.next_tokens(handle, 7), likeliest(logits.back(), 7));
        double sum = 0;
        for (size_t i = prompt.size(); i < text.size(); ++i) {
          sum += logprob_of(logits[i - prompt.size()], text[i]);
        }
        EXPECT_NEAR(*search.logprob(handle), sum, 1e-4);
      }
      // All is computed now but what was sampled last and then forked.
      const SearchKv kv = search.kv();
      int64_t paths = 0;
      for (const int leaf : plain.live(true)) paths += std::ssize(plain.text(leaf));
      EXPECT_LE(kv.path_tokens, paths);
      EXPECT_GT(kv.bytes, 0U);
      EXPECT_LE(kv.bytes, kv.bytes_peak);
    }
    EXPECT_EQ(engine->pool().used_bytes(), 0U);
    engine->tree().check_integrity();
  }
}

TEST(Search, LeavesItsKvAsCacheButNotWhatWasPruned) {
  const auto engine = open();
  const Tokens prompt = tokens_from(1, 64);
  {
    Search search = open_search(*engine, prompt);
    const auto leaves = *search.fork(search.root(), 2);
    expect_fine(search.extend(leaves[0], forced(tokens_from(50, 32))));
    expect_fine(search.extend(leaves[1], forced(tokens_from(90, 32))));
    search.run();
    EXPECT_EQ(search.cache().reused_tokens, 0);
    const SearchKv kv = search.kv();
    EXPECT_EQ(kv.tokens, 64 + 2 * 32);
    EXPECT_EQ(kv.path_tokens, 2 * (64 + 32));
    EXPECT_EQ(kv.bytes, (4 + 2 * 2) * engine->pool().panel_bytes());
    EXPECT_EQ(kv.bytes, engine->pool().used_bytes());
    expect_fine(search.prune(leaves[1]));
    EXPECT_EQ(search.kv().bytes, 6 * engine->pool().panel_bytes());
    EXPECT_EQ(engine->pool().used(), 6U);
  }
  EXPECT_EQ(engine->tree().available_panels(), engine->pool().capacity());
  EXPECT_EQ(engine->tree().matched(joined(prompt, tokens_from(50, 32))), 96);
  EXPECT_EQ(engine->tree().matched(joined(prompt, tokens_from(90, 32))), 64);
  // Another search finds the prompt; one of another salt does not.
  Search again = open_search(*engine, prompt);
  EXPECT_EQ(again.cache().reused_tokens, 63);
  EXPECT_EQ(open_search(*engine, prompt, 5).cache().reused_tokens, 0);
}

TEST(Search, AForkPastTheBudgetIsAnErrorOfThoseLeavesAlone) {
  EngineOptions options = tiny_options();
  options.kv_budget_bytes = 40 * open()->pool().panel_bytes();
  const auto engine = open(options);
  const Tokens prompt = tokens_from(1, 160);  // ten panels
  Search search = open_search(*engine, prompt);
  const auto leaves = *search.fork(search.root(), 50);
  for (size_t i = 0; i < leaves.size(); ++i) {
    expect_fine(search.extend(leaves[i], forced({static_cast<TokenId>(3 + i)})));
  }
  search.run();
  const auto logits = read_anew(*open(), prompt, 159)[0];
  size_t n_done = 0;
  for (size_t i = 0; i < leaves.size(); ++i) {
    const auto done = search.generated(leaves[i]);
    if (done) {
      ++n_done;
      EXPECT_EQ(i + 1, n_done);  // those that came first have the room
      EXPECT_NEAR(*search.logprob(leaves[i]), logprob_of(logits, 3 + static_cast<TokenId>(i)),
                  1e-6);
      EXPECT_TRUE(search.next_tokens(leaves[i], 1).has_value());
    } else {
      EXPECT_EQ(done.error().code, ErrorCode::kFailed);
      EXPECT_NE(done.error().message.find("--kv-budget"), std::string::npos);
      expect_refused(search.next_tokens(leaves[i], 1), "not computed");
    }
  }
  EXPECT_EQ(n_done, 30U);
  engine->tree().check_integrity();
  // Where others make room it goes on.
  for (size_t i = 0; i < 25; ++i) expect_fine(search.prune(leaves[i]));
  for (size_t i = 30; i < 50; ++i) expect_fine(search.extend(leaves[i], {}));
  search.run();
  for (size_t i = 30; i < 50; ++i) {
    EXPECT_TRUE(search.generated(leaves[i]).has_value());
    const Tokens text = joined(prompt, {static_cast<TokenId>(3 + i)});
    expect_equal(*search.next_tokens(leaves[i], 3), likeliest(read_anew(*open(), text, 160)[0], 3));
    EXPECT_NEAR(*search.logprob(leaves[i]), logprob_of(logits, 3 + static_cast<TokenId>(i)), 1e-6);
  }
}

TEST(Search, AWaitingBranchHearsWhyItsPastCannotBeComputed) {
  EngineOptions options = tiny_options();
  options.kv_budget_bytes = 5 * open()->pool().panel_bytes();
  const auto engine = open(options);
  Search search = open_search(*engine, tokens_from(1, 48));  // three panels
  const auto leaves = *search.fork(search.root(), 2);
  expect_fine(search.extend(leaves[0], sampled(1)));
  search.run();  // its token is not computed
  expect_fine(search.extend(leaves[1], forced(tokens_from(50, 32))));
  search.run();  // the two panels that are left
  const SearchNode below = search.fork(leaves[0], 1)->front();
  expect_fine(search.extend(below, sampled(3)));
  search.run();
  const auto done = search.generated(below);
  ASSERT_FALSE(done.has_value());
  EXPECT_NE(done.error().message.find("--kv-budget"), std::string::npos);
  EXPECT_TRUE(search.generated(leaves[1]).has_value());
  expect_fine(search.prune(leaves[1]));
  expect_fine(search.extend(below, sampled(3)));
  search.run();
  EXPECT_EQ(search.generated(below)->tokens.size(), 3U);
}

TEST(Search, TwoAtOnceAndRequestsBetweenTheirStepsAreAsAlone) {
  const Tokens first = tokens_from(1, 90);
  const Tokens second = joined(tokens_from(1, 45), tokens_from(77, 30));
  const auto grow = [](Search& search) {
    std::vector<SearchNode> leaves = *search.fork(search.root(), 4);
    for (size_t i = 0; i < leaves.size(); ++i) {
      Extension extension = sampled(10, 1, i);
      extension.tokens = tokens_from(static_cast<int>(i) * 13, static_cast<int>(i) * 5);
      expect_fine(search.extend(leaves[i], extension));
    }
    return leaves;
  };
  const auto texts = [](Search& search, const std::vector<SearchNode>& leaves) {
    std::vector<Tokens> all;
    for (const SearchNode leaf : leaves) all.push_back(*search.path(leaf));
    return all;
  };
  std::vector<std::vector<Tokens>> alone;
  for (const Tokens& prompt : {first, second}) {
    const auto engine = open();
    Search search = open_search(*engine, prompt);
    const auto leaves = grow(search);
    search.run();
    alone.push_back(texts(search, leaves));
  }
  const Reply reply = *open()->generate(greedy(second, 30));

  const auto engine = open();
  std::vector<Completion> finished;
  {
    Search a = open_search(*engine, first);
    Search b = open_search(*engine, second);
    const auto leaves_a = grow(a);
    const auto leaves_b = grow(b);
    ASSERT_TRUE(engine->submit(greedy(second, 30)).has_value());
    bool more = true;
    while (more) {
      more = a.step();
      more = engine->step(finished) || more;
      more = b.step() || more;
    }
    EXPECT_EQ(texts(a, leaves_a), alone[0]);
    EXPECT_EQ(texts(b, leaves_b), alone[1]);
    ASSERT_EQ(finished.size(), 1U);
    EXPECT_EQ(finished[0].reply->tokens, reply.tokens);
    EXPECT_EQ(finished[0].reply->logprobs, reply.logprobs);
  }
  EXPECT_EQ(engine->tree().available_panels(), engine->pool().capacity());
  engine->tree().check_integrity();
}

TEST(Search, TextsEndWhereTheyShould) {
  const auto engine = open();
  const Tokens prompt = tokens_from(3, 30);
  Search search = open_search(*engine, prompt);
  const SearchNode plain = search.fork(search.root(), 1)->front();
  expect_fine(search.extend(plain, sampled(20)));
  search.run();
  const std::string text = search.generated(plain)->text;
  ASSERT_GT(text.size(), 8U);
  const auto leaves = *search.fork(search.root(), 2);
  Extension stopped = sampled(20);
  stopped.stop = {text.substr(5, 2)};
  expect_fine(search.extend(leaves[0], stopped));
  // An end token that is certain.
  Extension ended = sampled(20);
  ended.ignore_eos = false;
  ended.sampler.logit_bias = {{2, 1000.0F}};
  expect_fine(search.extend(leaves[1], ended));
  search.run();
  EXPECT_EQ(search.generated(leaves[0])->text, text.substr(0, 5));
  EXPECT_EQ(search.generated(leaves[0])->finish, FinishReason::kStop);
  EXPECT_TRUE(search.tokens(leaves[1])->empty());
  EXPECT_EQ(search.generated(leaves[1])->finish, FinishReason::kStop);
  // It can go on all the same.
  expect_fine(search.extend(leaves[1], sampled(20)));
  search.run();
  EXPECT_EQ(search.generated(leaves[1])->text, text);
}

// The time of each is printed, and nothing is asked of it: machines are busy.
TEST(Search, OperationsAtAThousandLeaves) {
  EngineOptions options = tiny_options();
  options.kv_budget_bytes = uint64_t{64} << 20;
  const auto engine = open(options);
  const Tokens prompt = tokens_from(1, 100);
  Search search = open_search(*engine, prompt);
  std::vector<SearchNode> leaves = *search.fork(search.root(), 1000);
  for (size_t i = 0; i < leaves.size(); ++i) {
    Extension extension = forced({static_cast<TokenId>(3 + i % 300)});
    extension.keep_next = 2;
    expect_fine(search.extend(leaves[i], extension));
  }
  search.run();
  std::vector<double> fork_us;
  std::vector<double> prune_us;
  const auto median = [](std::vector<double> v) {
    std::ranges::nth_element(v, v.begin() + v.size() / 2);
    return v[v.size() / 2];
  };
  for (int i = 0; i < 400; ++i) {
    const int64_t start = now_ns();
    const auto forked = search.fork(leaves[i], 2);
    fork_us.push_back(ms_since(start) * 1e3);
    ASSERT_TRUE(forked.has_value());
    const int64_t prune_start = now_ns();
    expect_fine(search.prune(leaves[i]));
    prune_us.push_back(ms_since(prune_start) * 1e3);
  }
  EXPECT_EQ(engine->pool().used(), 7U + 600U);
  const int64_t commit_start = now_ns();
  expect_fine(search.commit(leaves[700]));
  std::vector<double> commit_us = {ms_since(commit_start) * 1e3};
  const int64_t free_start = now_ns();
  EXPECT_EQ(search.kv().tokens, 101);
  const double free_us = ms_since(free_start) * 1e3;
  EXPECT_EQ(engine->pool().used(), 7U + 1U);
  for (int i = 0; i < 20; ++i) {
    leaves = *search.fork(i == 0 ? leaves[700] : leaves.back(), 1000);
    const int64_t start = now_ns();
    expect_fine(search.commit(leaves.back()));
    commit_us.push_back(ms_since(start) * 1e3);
    EXPECT_EQ(search.snapshot().nodes.size(), 3U + i);
    EXPECT_FALSE(search.step());
  }
  fmt::print(
      "at 1,000 leaves: fork {:.2f} us, prune {:.2f} us, commit {:.2f} us; 599 branches that a "
      "commit cut off were freed in {:.0f} us\n",
      median(fork_us), median(prune_us), median(commit_us), free_us);
  engine->tree().check_integrity();
}

}  // namespace
}  // namespace banyan
