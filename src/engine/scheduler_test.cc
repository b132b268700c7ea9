// SPDX-License-Identifier: Apache-2.0
// Many requests at once: each answers as if it were alone, none harms another, nothing leaks.
#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <numeric>
#include <random>
#include <set>
#include <stdexcept>

#include "base/testing_temp_folder.h"
#include "engine/engine.h"
#include "engine/testing_requests.h"

namespace banyan {
namespace {

// A family of prompts that share beginnings at several depths, some equal, some inside panels.
Request any_request(std::mt19937& random, int max_tokens) {
  const auto pick = [&](int n) { return static_cast<int>(random() % n); };
  std::vector<TokenId> prompt = tokens_from(0, std::array{0, 5, 40, 77}[pick(4)]);
  prompt = joined(prompt, tokens_from(100 + pick(3), 1 + pick(30)));
  if (pick(3) == 0) prompt = joined(prompt, tokens_from(pick(200), 1 + pick(60)));
  Request request = sampled(prompt, pick(max_tokens), random());
  if (pick(2) == 0) request.sampler.temperature = 0;
  if (pick(3) == 0) request.sampler.repeat_penalty = 1.3F;
  if (pick(4) == 0) request.ignore_eos = false;
  if (pick(4) == 0) request.stop = {"a", "the"};
  return request;
}

TEST(Scheduler, WhateverJoinsLeavesHitsOrIsPreemptedAnswersAreThoseOfEachAlone) {
  for (const auto& [max_rows, panels] : {std::pair{512, 1000}, {7, 1000}, {24, 24}}) {
    SCOPED_TRACE(testing::Message() << max_rows << " rows, " << panels << " panels");
    const bool tight = panels < 1000;
    const EngineOptions options = options_with(max_rows, panels);
    const auto engine = open(options);
    std::mt19937 random(max_rows);
    std::map<RequestId, Request> requests;
    std::set<RequestId> cancelled;
    std::vector<Completion> finished;
    Replies replies;
    bool more = true;
    while (more || requests.size() < 40) {
      for (int i = static_cast<int>(random() % 3); i > 0 && requests.size() < 40; --i) {
        const Request request = any_request(random, tight ? 120 : 25);
        const auto id = engine->submit(request);
        ASSERT_TRUE(id.has_value()) << id.error().message;
        requests[*id] = request;
      }
      if (!requests.empty() && random() % (tight ? 60 : 8) == 0) {
        const RequestId id = 1 + random() % requests.size();
        if (!replies.contains(id)) cancelled.insert(id);
        engine->cancel(id);
      }
      more = engine->step(finished);
      take(finished, replies);
      engine->tree().check_integrity();
    }
    ASSERT_EQ(replies.size(), requests.size());
    EXPECT_GT(cancelled.size(), 1U);
    int preemptions = 0;
    int reused = 0;
    for (const auto& [id, request] : requests) {
      const Reply& found = *replies.at(id);
      preemptions += found.preemptions;
      reused += found.cached_tokens > 0 ? 1 : 0;
      const Reply want = alone(options, request);
      if (found.finish == FinishReason::kCancelled) {
        ASSERT_TRUE(cancelled.contains(id));
        expect_beginning(found, want);
      } else {
        expect_same(found, want, "request " + std::to_string(id));
      }
    }
    EXPECT_GT(reused, 15);
    EXPECT_EQ(preemptions > 0, tight);
    expect_nothing_held(*engine);
  }
}

TEST(Scheduler, WithoutRetentionKvGoesWithTheLastRequestThatUsesIt) {
  for (const auto& [max_rows, panels] : {std::pair{512, 1000}, {24, 24}}) {
    SCOPED_TRACE(testing::Message() << max_rows << " rows, " << panels << " panels");
    EngineOptions options = options_with(max_rows, panels);
    options.retention = false;
    const auto engine = open(options);
    std::mt19937 random(max_rows);
    std::map<RequestId, Request> requests;
    std::vector<Completion> finished;
    Replies replies;
    bool more = true;
    while (more || requests.size() < 40) {
      for (int i = static_cast<int>(random() % 3); i > 0 && requests.size() < 40; --i) {
        Request request = any_request(random, 60);
        if (random() % 4 == 0) request.n = 3;
        const auto id = engine->submit(request);
        ASSERT_TRUE(id.has_value()) << id.error().message;
        requests[*id] = request;
      }
      if (random() % 8 == 0) engine->cancel(1 + random() % (requests.size() + 1));
      more = engine->step(finished);
      take(finished, replies);
      engine->tree().check_integrity();
      EXPECT_EQ(engine->tree().available_panels(),
                engine->pool().capacity() - engine->pool().used())
          << "nothing is stored that nobody uses";
    }
    int reused = 0;
    for (const auto& [id, request] : requests) {
      const Reply& found = *replies.at(id);
      reused += found.cached_tokens > 0 ? 1 : 0;
      if (found.finish == FinishReason::kCancelled) continue;
      expect_same(found, alone(options, request), "request " + std::to_string(id));
    }
    EXPECT_GT(reused, 5) << "those that are alive together share";
    EXPECT_EQ(engine->pool().used(), 0U);
    expect_nothing_held(*engine);
  }
}

TEST(Scheduler, PreemptionLosesNothing) {
  const EngineOptions options = options_with(512, 13);
  const auto engine = open(options);
  std::map<RequestId, Request> requests;
  for (int i = 0; i < 6; ++i) {
    Request request = sampled(tokens_from(i, 40), 100, i);
    request.sampler.repeat_penalty = 1.2F;
    requests[*engine->submit(request)] = request;
  }
  const Replies replies = run_all(*engine);
  int preemptions = 0;
  for (const auto& [id, request] : requests) {
    const Reply& found = *replies.at(id);
    EXPECT_EQ(found.note, "");
    expect_same(found, alone(options, request), "request " + std::to_string(id));
    preemptions += found.preemptions;
  }
  EXPECT_GT(preemptions, 2);
  EXPECT_LE(engine->memory().kv_peak, engine->memory().kv_budget);
  expect_nothing_held(*engine);
}

TEST(Scheduler, ABudgetThatEndsAnAnswerEndsItWhereItWouldAlone) {
  // Neighbours leave parts of panels empty; the answer must not be shorter for it.
  const EngineOptions options = options_with(512, 5);
  const auto engine = open(options);
  const auto shared = tokens_from(0, 21);
  std::map<RequestId, Request> requests;
  for (int i = 0; i < 3; ++i) {
    const Request request = greedy(joined(shared, tokens_from(50 + i, 5)), 100);
    requests[*engine->submit(request)] = request;
  }
  const Replies replies = run_all(*engine);
  for (const auto& [id, request] : requests) {
    const Reply& found = *replies.at(id);
    EXPECT_NE(found.note.find("--kv-budget"), std::string::npos) << found.note;
    EXPECT_EQ(found.tokens.size(), 80 - 26 + 1U);
    EXPECT_EQ(found.tokens, alone(options, request).tokens);
  }
  expect_nothing_held(*engine);
}

TEST(Scheduler, WhatCannotBeDoneIsRefusedAndTheOthersGoOn) {
  EngineOptions options = options_with(512, 8);
  options.context = 100;
  const auto engine = open(options);
  const auto good = engine->submit(greedy(tokens_from(0, 30), 4));
  const auto past_context = engine->submit(greedy(tokens_from(0, 101), 4));
  ASSERT_FALSE(past_context.has_value());
  EXPECT_EQ(past_context.error().code, ErrorCode::kBadInput);
  EXPECT_NE(past_context.error().message.find("context of 100"), std::string::npos);
  Request many = greedy(tokens_from(0, 10), 4);
  for (const auto& [n, best_of] : {std::pair{0, 0}, {-1, 0}, {4, 3}, {1, 129}, {200, 0}, {1, -1}}) {
    many.n = n;
    many.best_of = best_of;
    const auto refused = engine->submit(many);
    ASSERT_FALSE(refused.has_value()) << n << ", " << best_of;
    EXPECT_NE(refused.error().message.find(n < 1 || n > 128 ? "--n" : "--best-of"),
              std::string::npos);
  }
  const auto also_good = engine->submit(greedy(tokens_from(0, 100), 4));
  const Replies replies = run_all(*engine);
  ASSERT_EQ(replies.size(), 2U);
  EXPECT_EQ(replies.at(*good)->tokens.size(), 4U);
  EXPECT_EQ(replies.at(*also_good)->tokens.size(), 1U);  // up to the context

  const auto small = open(options_with(512, 5));
  const auto too_long = small->submit(greedy(tokens_from(0, 81), 1));
  ASSERT_FALSE(too_long.has_value());
  EXPECT_NE(too_long.error().message.find("--kv-budget"), std::string::npos);
  EXPECT_EQ(small->generate(greedy(tokens_from(0, 80), 1))->tokens.size(), 1U);
}

TEST(Scheduler, APromptThatFillsTheBudgetIsReadWhateverIsCached) {
  const auto engine = open(options_with(512, 5));
  // A prefix that ends inside a panel would take a sixth one.
  ASSERT_TRUE(engine->generate(greedy(tokens_from(0, 21), 1)).has_value());
  const auto full = engine->generate(greedy(tokens_from(0, 80), 1));
  ASSERT_TRUE(full.has_value()) << full.error().message;
  EXPECT_EQ(full->tokens, alone(options_with(512), greedy(tokens_from(0, 80), 1)).tokens);
}

TEST(Scheduler, RequestsEndInEveryPhaseAndGiveBackWhatTheyHeld) {
  const auto engine = open(options_with(16));
  std::vector<Completion> finished;
  Replies replies;
  const auto step = [&](int n) {
    for (int i = 0; i < n; ++i) engine->step(finished);
    take(finished, replies);
  };

  const RequestId never_begun = *engine->submit(greedy(tokens_from(0, 100), 10));
  engine->cancel(never_begun);
  EXPECT_FALSE(engine->step(finished));
  take(finished, replies);
  EXPECT_EQ(replies.at(never_begun)->finish, FinishReason::kCancelled);
  EXPECT_EQ(engine->pool().used(), 0U);

  const RequestId decoding = *engine->submit(greedy(tokens_from(0, 10), 100));
  step(5);
  const RequestId reading = *engine->submit(greedy(tokens_from(1, 200), 10));
  step(4);
  const RequestId waiting = *engine->submit(greedy(tokens_from(1, 190), 10));
  step(1);
  EXPECT_EQ(engine->scheduler().n_waiting(), 1U);
  EXPECT_EQ(engine->scheduler().n_running(), 2U);
  for (const RequestId id : {waiting, reading, decoding}) engine->cancel(id);
  engine->cancel(12345);
  EXPECT_FALSE(engine->step(finished));
  take(finished, replies);
  EXPECT_TRUE(replies.at(waiting)->tokens.empty());
  EXPECT_TRUE(replies.at(reading)->tokens.empty());
  EXPECT_EQ(replies.at(decoding)->tokens.size(), 10U);
  for (const RequestId id : {waiting, reading, decoding}) {
    EXPECT_EQ(replies.at(id)->finish, FinishReason::kCancelled);
    engine->cancel(id);  // too late, and no harm
  }
  expect_nothing_held(*engine);

  // Each answer of several, some of them waiting for rows.
  Request several = sampled(tokens_from(3, 20), 50, 1);
  several.n = 30;
  const RequestId forked = *engine->submit(several);
  step(6);
  EXPECT_EQ(engine->scheduler().n_running(), 16U);
  EXPECT_EQ(engine->scheduler().n_waiting(), 14U);
  engine->cancel(forked);
  step(1);
  EXPECT_EQ(replies.at(forked)->samples.size(), 30U);
  expect_nothing_held(*engine);
}

TEST(Scheduler, AListenerThatThrowsEndsItsOwnRequest) {
  const auto engine = open();
  const Request request = greedy(tokens_from(7, 30), 8);
  const uint32_t used = engine->pool().used();
  auto throws = [](TokenId, const std::string&) -> bool { throw std::runtime_error("mine"); };
  const FunctionRef<bool(TokenId, const std::string&)> on_token = throws;
  ASSERT_TRUE(engine->submit(greedy(tokens_from(1, 50), 8), {&on_token}).has_value());
  std::vector<Completion> finished;
  EXPECT_THROW(engine->step(finished), std::runtime_error);
  EXPECT_EQ(engine->pool().used(), used);  // what it computed does not count as stored

  const RequestId other = *engine->submit(request);
  ASSERT_TRUE(engine->submit(greedy(tokens_from(1, 50), 8), {&on_token}).has_value());
  EXPECT_THROW(engine->step(finished), std::runtime_error);
  const Replies replies = run_all(*engine);
  ASSERT_EQ(replies.size(), 1U);
  expect_same(*replies.at(other), alone(tiny_options(), request), "the other");
  expect_nothing_held(*engine);
}

TEST(Scheduler, AStepThatFailsForOneGoesOnForTheOthers) {
  // A model whose embedding of one token is no number.
  constexpr TokenId kBroken = 310;
  EngineOptions options = options_with(512, 8);
  std::ifstream file(options.model_path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), {});
  const auto model = ModelFile::open(options.model_path);
  ASSERT_TRUE(model.has_value());
  const std::span<const std::byte> all = model->tensor("token_embd.weight")->data;
  const size_t row = all.size() / 320;
  const std::string_view found(reinterpret_cast<const char*>(all.data()) + kBroken * row, row);
  bytes.replace(bytes.find(found), row, std::string(row, '\xFF'));
  const TempFolder folder;
  options.model_path = folder.write("model.gguf", bytes);

  const auto engine = open(options);
  const Request good = greedy(tokens_from(0, 40), 8);
  const Request later = greedy(tokens_from(2, 40), 20);
  const RequestId first = *engine->submit(good);
  const RequestId broken = *engine->submit(greedy({5, kBroken, 7}, 8));
  const RequestId second = *engine->submit(later);  // takes panels that held what is no number
  const Replies replies = run_all(*engine);
  ASSERT_FALSE(replies.at(broken).has_value());
  EXPECT_NE(replies.at(broken).error().message.find("not numbers"), std::string::npos);
  expect_same(*replies.at(first), alone(options_with(512, 8), good), "before");
  expect_same(*replies.at(second), alone(options_with(512, 8), later), "after");
  expect_nothing_held(*engine);
}

TEST(Scheduler, GenerateTakesOthersAlong) {
  const auto engine = open();
  const Request quick = greedy(tokens_from(0, 20), 2);
  const Request slow = greedy(tokens_from(1, 20), 20);
  const RequestId first = *engine->submit(quick);
  const RequestId second = *engine->submit(slow);
  EXPECT_EQ(engine->generate(greedy(tokens_from(2, 20), 5))->tokens.size(), 5U);
  const Replies replies = run_all(*engine);
  expect_same(*replies.at(first), alone(tiny_options(), quick), "quick");
  expect_same(*replies.at(second), alone(tiny_options(), slow), "slow");
}

TEST(Scheduler, AThousandRequestsAtOnce) {
  const EngineOptions options = options_with(512, 300);
  const auto engine = open(options);
  const auto shared = tokens_from(0, 20);
  std::map<RequestId, int> kinds;
  for (int i = 0; i < 1000; ++i) {
    const int kind = i % 25;
    const auto id = engine->submit(greedy(joined(shared, tokens_from(20 + kind, 3)), 6));
    ASSERT_TRUE(id.has_value());
    kinds[*id] = kind;
  }
  EXPECT_EQ(engine->pool().used(), 0U);  // nothing is computed yet
  const Replies replies = run_all(*engine);
  ASSERT_EQ(replies.size(), 1000U);
  std::vector<Reply> want;
  for (int kind = 0; kind < 25; ++kind) {
    want.push_back(alone(options, greedy(joined(shared, tokens_from(20 + kind, 3)), 6)));
  }
  for (const auto& [id, kind] : kinds) {
    expect_same(*replies.at(id), want[kind], "request " + std::to_string(id));
  }
  expect_nothing_held(*engine);
}

TEST(Scheduler, NoRequestWaitsBehindMoreThan64LaterOnes) {
  const auto engine = open(options_with(16));
  const auto warm = tokens_from(0, 100);
  ASSERT_TRUE(engine->generate(greedy(warm, 1)).has_value());
  // Every later request has a longer cached prefix, and each step has rows for some of them only.
  int n_before = 0;
  bool began = false;
  auto cold_reads = [&](int, int) { return began = true; };
  auto warm_reads = [&](int done, int total) {
    n_before += !began && done == total ? 1 : 0;
    return true;
  };
  const FunctionRef<bool(int, int)> on_cold = cold_reads;
  const FunctionRef<bool(int, int)> on_warm = warm_reads;
  ASSERT_TRUE(engine->submit(greedy(tokens_from(200, 30), 1), {nullptr, &on_cold}).has_value());
  for (int i = 0; i < 200; ++i) {
    const auto prompt = joined(warm, {static_cast<TokenId>(3 + i), 5, 6});
    ASSERT_TRUE(engine->submit(greedy(prompt, 1), {nullptr, &on_warm}).has_value());
  }
  const Replies replies = run_all(*engine);
  EXPECT_TRUE(began);
  EXPECT_LE(n_before, 64);
  EXPECT_GT(n_before, 40);  // the longest prefix goes first until then
}

TEST(Scheduler, APrefixThatManyWaitForIsComputedOnce) {
  const auto engine = open(options_with(64));
  const auto prefix = tokens_from(0, 300);
  std::vector<RequestId> ids;
  for (int i = 0; i < 20; ++i) {
    const auto prompt = joined(prefix, {static_cast<TokenId>(3 + i), 5, 6, 7, 8});
    ids.push_back(*engine->submit(greedy(prompt, 3)));
  }
  // And one that leaves it early, long before the others are through.
  const RequestId early = *engine->submit(greedy(joined(tokens_from(0, 150), {250, 251}), 1));
  std::vector<Completion> finished;
  Replies replies;
  while (!replies.contains(early)) {
    ASSERT_TRUE(engine->step(finished));
    take(finished, replies);
  }
  EXPECT_EQ(replies.size(), 1U);
  EXPECT_EQ(replies.at(early)->cached_tokens, 150);
  for (auto& [id, reply] : run_all(*engine)) replies.emplace(id, std::move(reply));
  int computed = 0;
  for (const RequestId id : ids) {
    const CacheFacts& facts = replies.at(id)->cache;
    EXPECT_EQ(facts.reused_tokens + facts.computed_tokens, 305);
    computed += facts.computed_tokens;
  }
  EXPECT_EQ(computed, 300 + 20 * 5);
}

TEST(Scheduler, ShortPromptsGetAlongWithLongOnes) {
  const auto engine = open(options_with(64));
  const RequestId longer = *engine->submit(greedy(tokens_from(0, 1000), 1));
  std::vector<Completion> finished;
  EXPECT_TRUE(engine->step(finished));
  const RequestId shorter = *engine->submit(greedy(tokens_from(1, 30), 1));
  EXPECT_TRUE(engine->step(finished));
  EXPECT_TRUE(engine->step(finished));
  ASSERT_EQ(finished.size(), 1U);
  EXPECT_EQ(finished[0].id, shorter);
  EXPECT_TRUE(run_all(*engine).contains(longer));
}

TEST(Scheduler, SamplesShareOnePromptAndAreThoseOfTheirSeeds) {
  const auto prompt = tokens_from(4, 100);
  for (const int panels : {1000, 12}) {  // with room for all, and for some at a time
    const EngineOptions options = options_with(512, panels);
    const auto engine = open(options);
    Request request = sampled(prompt, 20, 77);
    request.n = 8;
    const Reply all = *engine->generate(request);
    ASSERT_EQ(all.samples.size(), 8U);
    EXPECT_EQ(all.preemptions > 0, panels == 12);
    expect_same(all, all.samples[0], "the best");
    if (panels == 1000) {  // 7 whole panels of prompt, and for each sample at most 3
      EXPECT_LE(engine->pool().used(), 7 + 8 * 3U);
    }

    std::set<std::vector<TokenId>> want;
    for (int i = 0; i < 8; ++i) {
      Request one = request;
      one.n = 1;
      one.sampler.seed = stream_seed(77, i);
      const Reply single = alone(options, one);
      want.insert(single.tokens);
      EXPECT_TRUE(i > 0 || one.sampler.seed == 77);
    }
    std::set<std::vector<TokenId>> found;
    double before = 0;
    for (const Sample& sample : all.samples) {
      found.insert(sample.tokens);
      const double sum = std::accumulate(sample.logprobs.begin(), sample.logprobs.end(), 0.0);
      EXPECT_NEAR(sample.mean_logprob, sum / 20, 1e-6);
      EXPECT_LE(sample.mean_logprob, before);
      before = sample.mean_logprob;
    }
    EXPECT_EQ(found, want);
    EXPECT_EQ(found.size(), 8U);

    request.n = 3;
    request.best_of = 8;
    const Reply best = *engine->generate(request);
    ASSERT_EQ(best.samples.size(), 3U);
    EXPECT_EQ(best.cached_tokens, 99);
    for (size_t i = 0; i < 3; ++i) expect_same(best.samples[i], all.samples[i], "again");
    expect_nothing_held(*engine);
  }
}

TEST(Scheduler, AnEndTokenCountsInTheMean) {
  const auto engine = open();
  Request request = sampled(tokens_from(4, 10), 1, 0);
  request.ignore_eos = false;
  // All but one token that ends a text are forbidden.
  TokenId end = 0;
  while (!engine->tokenizer().is_end(end)) ++end;
  for (TokenId token = 0; token < engine->tokenizer().size(); ++token) {
    if (token != end) request.sampler.logit_bias.emplace_back(token, -INFINITY);
  }
  request.n = 2;
  const Reply reply = *engine->generate(request);
  EXPECT_TRUE(reply.tokens.empty());
  EXPECT_EQ(reply.finish, FinishReason::kStop);
  EXPECT_LT(reply.mean_logprob, -0.1);
  EXPECT_EQ(reply.samples[1].mean_logprob, reply.mean_logprob);
}

TEST(Scheduler, RepliesSayWhatTheCacheHad) {
  const auto engine = open();
  const auto prompt = tokens_from(0, 60);
  const auto facts = [&](const std::vector<TokenId>& tokens) {
    return engine->generate(greedy(tokens, 1))->cache;
  };
  EXPECT_EQ(facts(prompt).why, CacheWhy::kEmpty);
  const CacheFacts same = facts(prompt);
  EXPECT_EQ(same.why, CacheWhy::kHit);
  EXPECT_EQ(same.reused_tokens, 59);
  EXPECT_EQ(same.computed_tokens, 1);
  EXPECT_EQ(same.from.memory, 59);
  EXPECT_TRUE(same.exact);
  const CacheFacts longer = facts(joined(prompt, tokens_from(5, 7)));
  EXPECT_EQ(longer.why, CacheWhy::kHit);
  EXPECT_EQ(longer.reused_tokens, 60);
  auto other = prompt;
  other[33] = other[33] == 9 ? 10 : 9;
  const CacheFacts diverged = facts(other);
  EXPECT_EQ(diverged.why, CacheWhy::kDiverged);
  EXPECT_EQ(diverged.position, 33);
  EXPECT_EQ(diverged.had.find(engine->tokenizer().piece(prompt[33], Special::kParse)), 0U);
  EXPECT_EQ(diverged.got.find(engine->tokenizer().piece(other[33], Special::kParse)), 0U);
  const auto before = std::span(prompt).first(33).last(8);
  EXPECT_EQ(diverged.before, engine->tokenizer().decode(before, Special::kParse));
}

TEST(Scheduler, KvIsSharedWithinASaltOnly) {
  const auto engine = open();
  const auto prompt = tokens_from(0, 100);
  const auto ask = [&](uint64_t salt) {
    Request request = greedy(prompt, 4);
    request.salt = salt;
    return request;
  };
  // Together: those of a salt wait for one computation, the others do not wait for theirs.
  std::vector<RequestId> ids;
  for (const uint64_t salt : {0, 1, 2, 1}) ids.push_back(*engine->submit(ask(salt)));
  std::map<RequestId, Reply> replies;
  std::vector<Completion> finished;
  while (replies.size() < ids.size()) {
    finished.clear();
    engine->step(finished);
    for (Completion& one : finished) replies.emplace(one.id, *std::move(one.reply));
  }
  for (const size_t first : {0, 1, 2}) {
    EXPECT_EQ(replies.at(ids[first]).cache.reused_tokens, 0) << "salt " << first;
    EXPECT_EQ(replies.at(ids[first]).tokens, replies.at(ids[0]).tokens);
  }
  EXPECT_GE(replies.at(ids[3]).cache.reused_tokens, 96);
  // Afterwards.
  EXPECT_EQ(engine->explain(ask(3))->why, CacheWhy::kOtherTenant);
  EXPECT_EQ(engine->explain(ask(3))->reused_tokens, 0);
  EXPECT_EQ(engine->generate(ask(3))->cache.why, CacheWhy::kOtherTenant);
  EXPECT_EQ(engine->generate(ask(2))->cache.why, CacheWhy::kHit);
}

TEST(Scheduler, ExplainSaysBeforehandWhatRepliesSay) {
  EngineOptions options = tiny_options();
  options.kv_budget_bytes = 12 * 12288;  // panels of 16 positions
  const auto engine = open(options);
  const auto agree = [&](const std::vector<TokenId>& prompt) {
    const uint64_t stored = engine->tree().positions();
    const CacheFacts told = *engine->explain(greedy(prompt, 1));
    EXPECT_EQ(engine->tree().positions(), stored);
    const CacheFacts found = engine->generate(greedy(prompt, 1))->cache;
    EXPECT_EQ(told.why, found.why);
    EXPECT_EQ(told.reused_tokens, found.reused_tokens);
    EXPECT_EQ(told.computed_tokens, found.computed_tokens);
    EXPECT_EQ(std::tie(told.position, told.had, told.got, told.before),
              std::tie(found.position, found.had, found.got, found.before));
    return found.why;
  };
  const auto first = tokens_from(0, 100);
  EXPECT_EQ(agree(first), CacheWhy::kEmpty);
  EXPECT_EQ(agree(first), CacheWhy::kHit);
  EXPECT_EQ(agree({first.begin(), first.begin() + 50}), CacheWhy::kHit);
  EXPECT_EQ(agree(joined({first.begin(), first.begin() + 50}, tokens_from(9, 30))),
            CacheWhy::kDiverged);
  EXPECT_EQ(agree({first[0]}), CacheWhy::kHit) << "its only token is computed, as always";
  EXPECT_EQ(agree(tokens_from(100, 170)), CacheWhy::kDiverged) << "from the first token on";
  EXPECT_EQ(agree(first), CacheWhy::kEvicted);
  EXPECT_FALSE(engine->explain(greedy({}, 1)).has_value());
  EXPECT_FALSE(engine->explain(greedy({-1}, 1)).has_value());
}

}  // namespace
}  // namespace banyan
