// SPDX-License-Identifier: Apache-2.0
// The engine as its caller meets it: reuse of KV, limits, cancelling, many sequences in a step.
#include "engine/engine.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <utility>

#include "engine/evaluate.h"
#include "engine/speed_bench.h"
#include "engine/testing_tiny_engine.h"

namespace banyan {
namespace {

TEST(Engine, ReusesThePrefixOfWhatItSawAndAnswersTheSame) {
  const auto engine = open();
  const auto prompt = tokens_from(5, 100);
  const Reply cold = *engine->generate(greedy(prompt, 20));
  EXPECT_EQ(cold.cached_tokens, 0);

  // The conversation goes on: prompt, answer and something new.
  auto longer = prompt;
  longer.insert(longer.end(), cold.tokens.begin(), cold.tokens.end());
  const auto question = tokens_from(11, 9);
  longer.insert(longer.end(), question.begin(), question.end());
  const Reply warm = *engine->generate(greedy(longer, 20));
  EXPECT_EQ(warm.cached_tokens, 119);  // the last generated token was never computed

  // Diverging inside a panel, in the middle of what is stored.
  auto other = prompt;
  other.resize(45);
  other.push_back(prompt[45] == 3 ? 4 : 3);
  const Reply diverged = *engine->generate(greedy(other, 20));
  EXPECT_EQ(diverged.cached_tokens, 45);

  const auto fresh = open();
  EXPECT_EQ(warm.tokens, fresh->generate(greedy(longer, 20))->tokens);
  const auto fresh2 = open();
  const Reply want = *fresh2->generate(greedy(other, 20));
  EXPECT_EQ(diverged.tokens, want.tokens);
  EXPECT_EQ(diverged.logprobs, want.logprobs);  // bit-equal
  engine->tree().check_integrity();
}

TEST(Engine, ReferenceExecutorAgrees) {
  const auto prompt = tokens_from(1, 1200);
  EngineOptions options = tiny_options();
  const Reply cpu = *open(options)->generate(greedy(prompt, 8));
  options.attention = AttentionDevice::kReference;
  const Reply reference = *open(options)->generate(greedy(prompt, 8));
  ASSERT_EQ(cpu.tokens, reference.tokens);
  for (size_t i = 0; i < cpu.logprobs.size(); ++i) {
    EXPECT_NEAR(cpu.logprobs[i], reference.logprobs[i], 1e-3);
  }
}

// Both must have taken the same panels, from the first on.
void copy_kv(const Engine& from, Engine& to) {
  for (int layer = 0; layer < from.model().hp.n_layers; ++layer) {
    const KvPlanes source = from.pool().planes(layer);
    const KvPlanes target = to.pool().planes(layer);
    const uint64_t panels = from.pool().used();
    for (int head = 0; head < source.shape.n_kv_heads; ++head) {
      std::memcpy(target.k_panel(head, 0), source.k_panel(head, 0),
                  panels * source.shape.k_panel_bytes());
      std::memcpy(target.v_panel(head, 0), source.v_panel(head, 0),
                  panels * source.shape.v_panel_bytes());
    }
  }
}

// Rounding to 8 bits turns sums that differ in their last bit into values that differ by a step, so
// each reads on from the same stored KV, rather than from what it would have stored by itself.
TEST(Engine, KvInQ8IsReadAsTheReferenceReadsItAndNotCalledExact) {
  const auto tokens = tokens_from(1, 328);
  EXPECT_TRUE(open()->generate(greedy(tokens, 1))->kv_exact);
  for (const auto& [k_type, v_type] : {std::pair{DType::kQ8_0, DType::kQ8_0},
                                       {DType::kF16, DType::kQ8_0},
                                       {DType::kQ8_0, DType::kF32}}) {
    EngineOptions options = tiny_options();
    options.k_type = k_type;
    options.v_type = v_type;
    EXPECT_FALSE(open(options)->generate(greedy({3}, 1))->kv_exact);
    const auto cpu = open(options);
    options.attention = AttentionDevice::kReference;
    const auto reference = open(options);
    const auto prompt = std::span(tokens).first(300);
    EXPECT_EQ(cpu->generate(greedy({prompt.begin(), prompt.end()}, 8))->tokens,
              reference->generate(greedy({prompt.begin(), prompt.end()}, 8))->tokens);
    const SeqId sequences[] = {cpu->tree().open({}, 0).seq, reference->tree().open({}, 0).seq};
    // A prompt, a piece of many rows that continues it, and decoding.
    size_t begin = 0;
    for (const size_t rows : {300, 20, 1, 1, 1, 1, 1, 1, 1, 1}) {
      const uint32_t last = static_cast<uint32_t>(rows) - 1;
      const auto logits_of = [&](Engine& engine, SeqId seq) {
        const Piece piece{seq, std::span(tokens).subspan(begin, rows), {&last, 1}};
        EXPECT_TRUE(engine.steps().run({&piece, 1}).has_value());
        return engine.steps().logits(0, 0);
      };
      const auto found = logits_of(*cpu, sequences[0]);
      const auto want = logits_of(*reference, sequences[1]);
      for (size_t i = 0; i < want.size() && begin > 0; ++i) EXPECT_NEAR(found[i], want[i], 1e-4);
      copy_kv(*cpu, *reference);
      begin += rows;
    }
  }
}

TEST(Engine, SequencesOfOneStepDoNotSeeEachOther) {
  const auto engine = open();
  constexpr std::array<uint32_t, 1> kFirst = {0};
  // 17 sequences over one prefix that ends inside a panel, each with a token of its own.
  const auto prefix = tokens_from(2, 77);
  const SeqId base = engine->tree().open({}, 0).seq;
  const Piece read{base, prefix, {}};
  ASSERT_TRUE(engine->steps().run({&read, 1}).has_value());
  std::vector<SeqId> ids;
  std::vector<TokenId> own;
  for (int i = 0; i < 17; ++i) {
    ids.push_back(engine->tree().fork(base));
    own.push_back(10 + i * 3);
  }
  std::vector<Piece> pieces;
  for (size_t i = ids.size(); i-- > 0;) pieces.push_back({ids[i], {&own[i], 1}, kFirst});
  ASSERT_TRUE(engine->steps().run(pieces).has_value());
  std::vector<std::vector<float>> together;
  for (size_t p = 0; p < pieces.size(); ++p) {
    const auto logits = engine->steps().logits(p, 0);
    together.emplace_back(logits.begin(), logits.end());
  }
  engine->tree().check_integrity();

  for (size_t p = 0; p < pieces.size(); ++p) {
    auto alone = prefix;
    alone.push_back(pieces[p].tokens[0]);
    const auto other = open();
    const int last = static_cast<int>(alone.size()) - 1;
    const auto want = evaluate_logits(*other, alone, {&last, 1});
    ASSERT_TRUE(want.has_value());
    EXPECT_EQ((*want)[0].logits, together[p]) << "sequence " << p;  // bit-equal
  }
}

TEST(Engine, RefusesWhatCannotFit) {
  EngineOptions options = tiny_options();
  options.context = 64;
  const auto engine = open(options);
  const auto refused = engine->generate(greedy(tokens_from(0, 65), 4));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kBadInput);
  EXPECT_NE(refused.error().message.find("64"), std::string::npos);
  EXPECT_FALSE(engine->generate(greedy({}, 4)).has_value());
  EXPECT_FALSE(engine->generate(greedy({320}, 4)).has_value());
  EXPECT_FALSE(engine->generate(greedy({-1}, 4)).has_value());
  EXPECT_TRUE(engine->generate(greedy(tokens_from(0, 64), 4)).has_value());
}

TEST(Engine, ABudgetIsKeptAndSaysSoWhenItEnds) {
  EngineOptions options = tiny_options();
  // 16 positions of 3 layers x 2 heads x 16 dimensions, K and V in f32: 12 KiB a panel.
  options.kv_budget_bytes = 5 * 12288 + 100;
  const auto engine = open(options);
  EXPECT_EQ(engine->pool().capacity(), 5U);
  const auto too_long = engine->generate(greedy(tokens_from(0, 81), 1));
  ASSERT_FALSE(too_long.has_value());
  EXPECT_NE(too_long.error().message.find("--kv-budget"), std::string::npos);
  const Reply cut = *engine->generate(greedy(tokens_from(0, 60), 100));
  EXPECT_EQ(cut.finish, FinishReason::kLength);
  EXPECT_EQ(cut.tokens.size(), 21U);  // 80 positions; the last token needs none
  EXPECT_NE(cut.note.find("--kv-budget"), std::string::npos) << cut.note;
  EXPECT_LE(engine->memory().kv_peak, engine->memory().kv_budget);
  // What is no longer used makes room.
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(engine->generate(greedy(tokens_from(i, 40), 8)).has_value());
  }
  engine->tree().check_integrity();
}

TEST(Engine, ABudgetBelowOnePanelIsRefused) {
  EngineOptions options = tiny_options();
  options.kv_budget_bytes = 12287;
  const auto engine = Engine::open(options);
  ASSERT_FALSE(engine.has_value());
  EXPECT_EQ(engine.error().code, ErrorCode::kBadInput);
  EXPECT_NE(engine.error().message.find("--kv-budget"), std::string::npos);
}

TEST(Engine, AnswersWithoutAnEndTakeNoMemoryBeyondTheBudget) {
  EngineOptions options = tiny_options();
  options.kv_budget_bytes = uint64_t{1} << 20;
  const auto engine = open(options);
  const Reply reply = *engine->generate(greedy(tokens_from(0, 10), INT32_MAX));
  EXPECT_GT(reply.tokens.size(), 100U);
  EXPECT_NE(reply.note.find("--kv-budget"), std::string::npos) << reply.note;
}

TEST(Engine, ListenersCanCancelAndKeepWhatWasSaid) {
  const auto engine = open();
  int calls = 0;
  std::string heard;
  std::vector<TokenId> tokens;
  auto hear = [&](TokenId token, const std::string& text) {
    heard += text;
    tokens.push_back(token);
    return ++calls < 3;
  };
  const FunctionRef<bool(TokenId, const std::string&)> on_token = hear;
  const Reply reply = *engine->generate(greedy(tokens_from(0, 10), 100), {&on_token, nullptr});
  EXPECT_EQ(reply.finish, FinishReason::kCancelled);
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(reply.tokens, tokens);
  EXPECT_EQ(reply.text.substr(0, heard.size()), heard);

  auto refuse = [](int, int) { return false; };
  const FunctionRef<bool(int, int)> on_prompt = refuse;
  const Reply none = *engine->generate(greedy(tokens_from(50, 900), 10), {nullptr, &on_prompt});
  EXPECT_EQ(none.finish, FinishReason::kCancelled);
  EXPECT_TRUE(none.tokens.empty());
  engine->tree().check_integrity();
}

TEST(Engine, BenchmarksLeaveNoKvBehind) {
  const auto engine = open();
  const uint32_t before = engine->pool().used();
  const auto generate = [&](const DecodeShape& shape) {
    const auto bench = DecodeBench::create(*engine, shape);
    EXPECT_TRUE(bench.has_value());
    uint64_t kv_bytes = 0;
    for (const PlanMethod method : {PlanMethod::kPaged, PlanMethod::kAuto}) {
      const auto sample = (*bench)->generate(method);
      EXPECT_TRUE(sample.has_value());
      if (kv_bytes > 0) {
        EXPECT_EQ(sample->kv_bytes, kv_bytes) << "a round leaves KV to the next";
      }
      kv_bytes = sample->kv_bytes;
    }
    return kv_bytes;
  };
  EXPECT_LT(generate({40, 5, 4, true}), generate({40, 5, 4, false}));
  {
    const auto bench = DepthBench::create(*engine, 30);
    ASSERT_TRUE(bench.has_value());
    EXPECT_TRUE((*bench)->read(20).has_value());
    EXPECT_TRUE((*bench)->generate(5).has_value());
  }
  EXPECT_EQ(engine->pool().used(), before);
  engine->tree().check_integrity();
}

}  // namespace
}  // namespace banyan
