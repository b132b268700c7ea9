// SPDX-License-Identifier: Apache-2.0
// A model that drafts, against the same model that answers.
#include "engine/draft_model.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>

#include "engine/testing_tiny_engine.h"
#include "tensor/cpu/cpu_ops.h"

namespace banyan {
namespace {

constexpr int kMaxRows = 32;
constexpr size_t kMost = 6;

class DraftModelTest : public testing::Test {
 protected:
  void SetUp() override { make(1000); }

  // Anew, with room for so many panels.
  void make(uint64_t panels) {
    const EngineOptions options = tiny_options();
    auto file = ModelFile::open(options.model_path);
    ASSERT_TRUE(file.has_value());
    auto model = load_model(*file, {});
    ASSERT_TRUE(model.has_value());
    const auto shapes = kv_shapes(model->hp, DType::kF32, DType::kF32);
    auto pool = PanelPool::create(shapes, panels * shapes[0].panel_bytes());
    ASSERT_TRUE(pool.has_value());
    draft_ = std::make_unique<DraftModel>(
        *std::move(file), *std::move(model), *std::move(pool), engine_->tokenizer().size(),
        StepDevice{ops_.get(), attention_.get(), 1, true}, PlanMethod::kAuto, kMaxRows);
  }

  // Its chain.
  std::vector<TokenId> draft(DraftModel::Text& text, const std::vector<TokenId>& tokens,
                             size_t most = kMost) {
    const Draft draft = draft_tree(text, tokens, most);
    std::vector<TokenId> chain;
    for (size_t i = 0; i < draft.size(); ++i) {
      if (draft.on_chain[i]) chain.push_back(draft.tokens[i]);
    }
    return chain;
  }

  Draft draft_tree(DraftModel::Text& text, const std::vector<TokenId>& tokens, size_t most) {
    Draft draft;
    const DraftModel::Asked asked{&text, tokens, 0, most, &draft};
    draft_->draft({&asked, 1}, [](double, double) { return true; });
    EXPECT_EQ(draft.reach.size(), draft.tokens.size());
    return draft;
  }

  std::vector<TokenId> greedy_answer(const std::vector<TokenId>& tokens, size_t n = kMost) {
    Request request = greedy(tokens, static_cast<int>(n) + 1);  // an end token would be left out
    request.ignore_eos = false;
    auto answer = engine_->generate(request)->tokens;
    answer.resize(std::min(answer.size(), n));
    return answer;
  }

  // What it drafts, and what the model itself says, as far as that has no end.
  void expect_greedy(const std::vector<TokenId>& found, const std::vector<TokenId>& tokens) {
    ASSERT_EQ(found.size(), kMost);
    const auto want = greedy_answer(tokens);
    EXPECT_EQ(std::vector(found.begin(), found.begin() + want.size()), want);
    compared_ += want.size();
  }

  std::unique_ptr<Engine> engine_ = open();
  ThreadPool threads_{1, init_worker_thread};
  std::unique_ptr<CpuOps> ops_ = make_cpu_ops(
      threads_, {.compute = Compute::kF32, .deterministic = true, .isa = tiny_options().isa});
  std::unique_ptr<AttentionExecutor> attention_ = make_reference_executor();
  std::unique_ptr<DraftModel> draft_;
  size_t compared_ = 0;
};

TEST_F(DraftModelTest, DraftsWhatTheModelWouldSayWhateverCameOfEarlierDrafts) {
  std::mt19937 random(1);
  for (int round = 0; round < 4; ++round) {
    DraftModel::Text text;
    auto tokens = tokens_from(round * 11, 5 + round * 40);  // some longer than a step
    for (int turn = 0; turn < 12; ++turn) {
      auto found = draft(text, tokens);
      while (found.empty()) found = draft(text, tokens);  // it has not read all yet
      expect_greedy(found, tokens);
      // So many of them are right, and then there is another; or fewer were asked for.
      const size_t right = random() % (kMost + 1);
      tokens.insert(tokens.end(), found.begin(), found.begin() + right);
      tokens.push_back(static_cast<TokenId>(3 + random() % 300));
      if (turn == 6) draft_->close(text);
    }
    draft_->close(text);
  }
  EXPECT_GT(compared_, 200U);
}

TEST_F(DraftModelTest, LearnsWhatItIsWorth) {
  DraftModel::Text right;
  DraftModel::Text wrong;
  auto tokens = tokens_from(0, 20);
  auto others = tokens_from(5, 20);
  for (int turn = 0; turn < 30; ++turn) {
    const auto found = draft(right, tokens);
    tokens.insert(tokens.end(), found.begin(), found.end());
    tokens.push_back(7);
    const TokenId never = draft(wrong, others)[0];
    others.push_back(never == 8 ? 9 : 8);
  }
  EXPECT_GT(right.typical_rate(), 0.95);
  EXPECT_LT(wrong.typical_rate(), 0.3);
}

TEST_F(DraftModelTest, LearnsWhatElseMayCome) {
  // What comes is never the likeliest for it, and always one of those that come next.
  DraftModel::Text text;
  auto tokens = tokens_from(0, 20);
  Draft drafted;
  for (int turn = 0; turn < 60; ++turn) {
    drafted = draft_tree(text, tokens, 1);
    ASSERT_FALSE(drafted.empty());
    double sum = 0;
    for (uint32_t i = 0; i < drafted.size(); ++i) {
      EXPECT_EQ(drafted.parent[i], Draft::kText);
      sum += drafted.reach[i];
    }
    EXPECT_LE(sum, 1 + 1e-12);
    // The second, by what the engine says of the place.
    Request request = greedy(tokens, 1);
    request.ignore_eos = false;
    request.sampler.top_logprobs = 2;
    const Reply reply = *engine_->generate(request);
    tokens.push_back(reply.tokens.empty() ? 7 : reply.top_logprobs[0][1].token);
    if (reply.tokens.empty()) continue;
    EXPECT_EQ(reply.tokens[0], drafted.tokens[0]);
    ++compared_;
  }
  EXPECT_GT(compared_, 40U);
  const uint32_t second = drafted.child(Draft::kText, tokens.back());
  ASSERT_NE(second, Draft::kText);
  EXPECT_FALSE(drafted.on_chain[second]);
  EXPECT_GT(drafted.reach[second], 0.5);
  EXPECT_LT(drafted.reach[0], 0.3);
}

TEST_F(DraftModelTest, TextsThatShareADraftPartWithoutHarm) {
  DraftModel::Text first;
  DraftModel::Text second;
  const auto prompt = tokens_from(0, 20);
  const auto drafted = draft(first, prompt);
  ASSERT_EQ(drafted.size(), kMost);
  // The other text goes the way that was drafted for the first one, which goes another.
  auto along = prompt;
  along.insert(along.end(), drafted.begin(), drafted.begin() + 4);
  expect_greedy(draft(second, along), along);
  auto away = prompt;
  away.push_back(drafted[0] == 5 ? 6 : 5);
  expect_greedy(draft(first, away), away);
  along.push_back(11);
  expect_greedy(draft(second, along), along);
}

TEST_F(DraftModelTest, WhatTheBudgetCannotHoldGetsNoDraft) {
  make(3);
  DraftModel::Text text;
  DraftModel::Text large;
  const auto tokens = tokens_from(0, 20);
  EXPECT_TRUE(draft(large, tokens_from(3, 100)).empty());
  EXPECT_TRUE(draft(large, tokens_from(3, 100)).empty());
  draft_->close(large);
  expect_greedy(draft(text, tokens), tokens);
  EXPECT_TRUE(draft(large, tokens_from(3, 100)).empty());
  EXPECT_LE(draft_->pool().peak_bytes(), draft_->pool().budget_bytes());
}

}  // namespace
}  // namespace banyan
