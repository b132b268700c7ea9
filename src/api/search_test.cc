// SPDX-License-Identifier: Apache-2.0
// Searches through the C API and the C++ header.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "banyan/banyan.hpp"

namespace {

using banyan::Node;
using Tokens = std::vector<banyan::Token>;

const std::string kTinyModel = std::string(BANYAN_TEST_DATA) + "/golden/llama/model.gguf";

banyan::Model load() {
  banyan::ModelOptions options;
  options.n_threads = 2;
  options.kv_budget_bytes = 16 << 20;
  options.compute = BANYAN_COMPUTE_F32;
  options.kv_type = BANYAN_KV_F32;
  options.deterministic = 1;
  auto model = banyan::Model::load(kTinyModel, options);
  EXPECT_TRUE(model) << model.error().message;
  return *std::move(model);
}

Tokens tokens_from(int first, int n) {
  Tokens tokens;
  for (int i = 0; i < n; ++i) tokens.push_back(3 + (first + i * 7) % 300);
  return tokens;
}

banyan::GenerateOptions sampled(int max_tokens, uint64_t seed) {
  banyan::GenerateOptions options;
  options.max_tokens = max_tokens;
  options.temperature = 1;
  options.ignore_eos = 1;
  options.seed = seed;
  return options;
}

template <class T>
void expect_refused(const banyan::Result<T>& result, const std::string& part) {
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, BANYAN_BAD_INPUT);
  EXPECT_NE(result.error().message.find(part), std::string::npos) << result.error().message;
}

TEST(ApiSearch, BranchesSampleAsGenerateDoes) {
  banyan::Model model = load();
  const Tokens prompt = tokens_from(5, 40);
  const auto want = model.generate(prompt, sampled(12, 9));
  auto search = *model.search(prompt);
  const auto leaves = *search.fork(search.root(), 2);
  ASSERT_EQ(leaves.size(), 2U);
  ASSERT_TRUE(search.extend(leaves[0], {}, sampled(12, 9)));
  ASSERT_TRUE(search.extend(leaves[1], tokens_from(50, 5)));
  int n_steps = 1;
  while (*search.step()) ++n_steps;
  EXPECT_EQ(n_steps, 12);
  const auto facts = *search.read(leaves[0]);
  EXPECT_EQ(facts->struct_size, sizeof(banyan_node_facts));
  EXPECT_EQ(Tokens(facts->sampled_tokens, facts->sampled_tokens + facts->n_sampled),
            Tokens((*want)->tokens, (*want)->tokens + (*want)->n_tokens));
  EXPECT_STREQ(facts->sampled_text, (*want)->text);
  EXPECT_EQ(Tokens(facts->tokens, facts->tokens + facts->n_tokens),
            Tokens((*want)->tokens, (*want)->tokens + (*want)->n_tokens));
  EXPECT_EQ(facts->finish_reason, BANYAN_FINISH_LENGTH);
  EXPECT_EQ(facts->parent, search.root());
  EXPECT_EQ(facts->is_leaf, 1);
  EXPECT_EQ(facts->failed, 0);
  EXPECT_STREQ(facts->why, "");
  double sum = 0;
  for (size_t i = 0; i < (*want)->n_tokens; ++i) sum += (*want)->logprobs[i];
  EXPECT_NEAR(*search.score(leaves[0]), sum, 1e-5);
  const auto root = *search.read(search.root());
  EXPECT_EQ(root->parent, 0U);
  EXPECT_EQ(root->is_leaf, 0);
  EXPECT_EQ(Tokens(root->tokens, root->tokens + root->n_tokens), prompt);

  const auto next = *search.next_tokens(leaves[1], 3);
  ASSERT_EQ(next.size(), 3U);
  EXPECT_TRUE(std::is_sorted(next.begin(), next.end(),
                             [](auto& a, auto& b) { return a.logprob > b.logprob; }));
  EXPECT_EQ(search.kv()->tokens, 40 + 11 + 5);
  EXPECT_EQ(search.kv()->path_tokens, 2 * 40 + 11 + 5);
  EXPECT_EQ(*search.nodes(), (std::vector{search.root(), leaves[0], leaves[1]}));
}

TEST(ApiSearch, PrunedHandlesAreErrors) {
  banyan::Model model = load();
  auto search = *model.search(tokens_from(5, 40));
  const auto leaves = *search.fork(search.root(), 3);
  ASSERT_TRUE(search.extend(leaves[0], {5, 6}));
  ASSERT_TRUE(search.run());
  ASSERT_TRUE(search.join(leaves[1], leaves[0]));
  ASSERT_TRUE(search.run());
  ASSERT_TRUE(search.set_score(leaves[1], 3));
  EXPECT_EQ(*search.score(leaves[1]), 3);
  ASSERT_TRUE(search.prune(leaves[2]));
  for (const Node gone : {leaves[2], Node{0}, Node{77}, ~Node{0}}) {
    expect_refused(search.fork(gone, 1), "node");
    expect_refused(search.extend(gone, {5}), "node");
    expect_refused(search.join(leaves[1], gone), "node");
    expect_refused(search.prune(gone), "node");
    expect_refused(search.commit(gone), "node");
    expect_refused(search.score(gone), "node");
    expect_refused(search.set_score(gone, 1), "node");
    expect_refused(search.next_tokens(gone, 1), "node");
    expect_refused(search.read(gone), "node");
  }
  ASSERT_TRUE(search.commit(leaves[1]));
  expect_refused(search.read(leaves[0]), "node");
  EXPECT_EQ(search.nodes()->size(), 2U);
  const auto left = *search.read(leaves[1]);
  EXPECT_EQ(Tokens(left->tokens, left->tokens + left->n_tokens), (Tokens{5, 6}));
}

TEST(ApiSearch, RefusesInASentence) {
  banyan::Model model = load();
  expect_refused(model.search({}), "prompt is empty");
  auto search = *model.search(tokens_from(5, 20));
  const Node leaf = search.fork(search.root(), 1)->front();
  expect_refused(search.fork(leaf, 0), "expected 1");
  expect_refused(search.extend(leaf, {-1}), "token -1");
  expect_refused(search.prune(search.root()), "root");
  auto options = sampled(-1, 0);
  expect_refused(search.extend(leaf, {}, options), "max_tokens is -1");
  options = sampled(1, 0);
  options.n = 2;
  expect_refused(search.extend(leaf, {}, options), "n, best_of or on_token");
  options = sampled(1, 0);
  options.top_p = 0;
  expect_refused(search.extend(leaf, {}, options), "--top-p");

  banyan_search* none = nullptr;
  Node node = 1;
  const auto message = [](banyan_error* error) {
    EXPECT_EQ(banyan_error_code(error), BANYAN_BAD_INPUT);
    std::string text = banyan_error_message(error);
    banyan_free_error(error);
    return text;
  };
  EXPECT_EQ(message(banyan_fork(none, 1, 1, &node)),
            "banyan_fork: search is NULL, and must not be");
  EXPECT_EQ(node, 0U);
  EXPECT_NE(message(banyan_fork(none, 1, 1, nullptr)).find("children"), std::string::npos);
  EXPECT_NE(message(banyan_run_search(none)).find("search is NULL"), std::string::npos);
  banyan_search_kv kv{};
  EXPECT_NE(message(banyan_read_search_kv(none, &kv)).find("search is NULL"), std::string::npos);
  EXPECT_EQ(banyan_search_root(none), 0U);
  banyan_free_search(none);
  banyan_free_node_facts(nullptr);
}

TEST(ApiSearch, SaysWhichBranchDidNotFit) {
  banyan::ModelOptions options;
  options.n_threads = 1;
  options.kv_budget_bytes = 200000;
  auto model = *banyan::Model::load(kTinyModel, options);
  auto search = *model.search(tokens_from(1, 64));
  const auto leaves = *search.fork(search.root(), 64);
  for (const Node leaf : leaves) ASSERT_TRUE(search.extend(leaf, {5}));
  ASSERT_TRUE(search.run());
  EXPECT_EQ((*search.read(leaves.front()))->failed, 0);
  const auto last = *search.read(leaves.back());
  EXPECT_EQ(last->failed, 1);
  EXPECT_NE(std::string(last->why).find("--kv-budget"), std::string::npos) << last->why;
}

TEST(ApiSearch, TakesTurnsAndMayBeFreedByACallback) {
  banyan::Model model = load();
  const Tokens prompt = tokens_from(5, 20);
  auto search = std::make_unique<banyan::Search>(*model.search(prompt));
  std::string said;
  const auto reply = model.generate(prompt, sampled(3, 1), [&](banyan::Token, std::string_view) {
    if (search != nullptr) {
      const auto run = search->run();
      said = run ? "" : run.error().message;
      search.reset();
    }
    return true;
  });
  ASSERT_TRUE(reply);
  EXPECT_NE(said.find("banyan_run_search was called from a callback"), std::string::npos) << said;
  EXPECT_EQ((*reply)->n_tokens, 3U);
  EXPECT_TRUE(model.search(prompt)->run());
}

}  // namespace
