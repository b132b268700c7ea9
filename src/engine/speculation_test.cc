// SPDX-License-Identifier: Apache-2.0
// Speculation changes how many steps an answer takes, and nothing else.
#include <gtest/gtest.h>

#include <fstream>
#include <random>
#include <set>
#include <stdexcept>

#include "base/testing_temp_folder.h"
#include "engine/testing_requests.h"

namespace banyan {
namespace {

// The tiny model with the bytes of one tensor changed; at `path` in `folder`.
std::string changed_model(const TempFolder& folder, const std::string& path,
                          const std::string& tensor, FunctionRef<void(std::span<char>)> change) {
  const std::string original = tiny_options().model_path;
  std::ifstream file(original, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), {});
  const auto model = ModelFile::open(original);
  EXPECT_TRUE(model.has_value());
  const std::span<const std::byte> data = model->tensor(tensor)->data;
  const std::string_view held(reinterpret_cast<const char*>(data.data()), data.size());
  change(std::span(bytes).subspan(bytes.find(held), held.size()));
  return folder.write(path, bytes);
}

// One that is right more often than not: a part of its last block's output is lost.
std::string worse_model(const TempFolder& folder) {
  return changed_model(folder, "worse.gguf", "blk.2.ffn_down.weight", [](std::span<char> bytes) {
    std::ranges::fill(bytes.first(bytes.size() / 8), 0);
  });
}

EngineOptions plain(EngineOptions options) {
  options.speculation = Speculation::kOff;
  options.draft_model_path.clear();
  return options;
}

// Lets the answer repeat itself: it has four tokens to choose from.
void few_words(Request& request) {
  for (TokenId token = 40; token < 44; ++token) request.sampler.logit_bias.emplace_back(token, 100);
}

// Lets the answer go on as the prompt does now, each token of which is one of two: what does not go
// on as it did before goes on as it did another time.
void this_or_that(Request& request, uint32_t seed, int n) {
  std::mt19937 random(seed);
  for (int i = 0; i < n; ++i) request.prompt.push_back(40 + static_cast<TokenId>(random() % 2));
  for (const TokenId token : {40, 41}) request.sampler.logit_bias.emplace_back(token, 100);
  request.sampler.temperature = 1;
}

Request this_or_that(uint64_t seed, int max_tokens) {
  Request request = sampled(tokens_from(2, 30), max_tokens, seed);
  this_or_that(request, static_cast<uint32_t>(seed), 200);
  return request;
}

// Prompts that repeat themselves and each other, so that there is much to draft and much of it is
// wrong. `comes_round`: answers may, too.
Request any_request(std::mt19937& random, int max_tokens, bool comes_round) {
  const auto pick = [&](int n) { return static_cast<int>(random() % n); };
  std::vector<TokenId> prompt = tokens_from(0, std::array{5, 40, 77}[pick(3)]);
  for (int i = pick(4); i > 0; --i) prompt = joined(prompt, tokens_from(pick(3), 1 + pick(30)));
  Request request = sampled(prompt, pick(max_tokens), random());
  request.sampler.temperature = std::array{0.0F, 0.0F, 0.3F, 1.0F}[pick(4)];
  if (comes_round) {
    const int words = pick(4);
    if (words == 1) this_or_that(request, pick(3), 150);
    if (words > 1) few_words(request);
  }
  if (pick(4) == 0) request.sampler.repeat_penalty = 1.2F;
  if (pick(4) == 0) request.ignore_eos = false;
  if (pick(4) == 0) request.stop = {"a", "the"};
  if (pick(5) == 0) request.n = 3;
  return request;
}

struct Kind {
  Speculation speculation;
  int max_rows;
  int panels;
};

TEST(Speculation, AnswersAreThePlainOnesWhateverJoinsLeavesHitsOrIsPreempted) {
  const TempFolder folder;
  const std::string draft_model = worse_model(folder);
  for (const auto& [speculation, max_rows, panels] :
       {Kind{Speculation::kLookup, 512, 1000}, Kind{Speculation::kLookup, 7, 1000},
        Kind{Speculation::kLookup, 24, 24}, Kind{Speculation::kDraft, 512, 1000},
        Kind{Speculation::kDraft, 24, 48}, Kind{Speculation::kAuto, 32, 1000}}) {
    SCOPED_TRACE(testing::Message() << "kind " << static_cast<int>(speculation) << ", " << max_rows
                                    << " rows, " << panels << " panels");
    const bool tight = panels < 1000;
    EngineOptions options = options_with(max_rows, panels);
    options.speculation = speculation;
    if (speculation != Speculation::kLookup) options.draft_model_path = draft_model;
    const auto engine = open(options);
    std::mt19937 random(max_rows);
    std::map<RequestId, Request> requests;
    std::vector<Completion> finished;
    Replies replies;
    bool more = true;
    while (more || requests.size() < 30) {
      for (int i = static_cast<int>(random() % 3); i > 0 && requests.size() < 30; --i) {
        const Request request = any_request(random, 120, speculation != Speculation::kDraft);
        const auto id = engine->submit(request);
        ASSERT_TRUE(id.has_value()) << id.error().message;
        requests[*id] = request;
      }
      if (random() % (tight ? 60 : 8) == 0) engine->cancel(1 + random() % (requests.size() + 1));
      more = engine->step(finished);
      take(finished, replies);
      engine->tree().check_integrity();
    }
    ASSERT_EQ(replies.size(), requests.size());
    SpeculationFacts sum;
    int preemptions = 0;
    for (const auto& [id, request] : requests) {
      const Reply& found = *replies.at(id);
      const SpeculationFacts& facts = found.speculation;
      EXPECT_LE(facts.accepted, facts.drafted);
      EXPECT_LE(facts.accepted_off_chain, facts.accepted);
      sum.drafted += facts.drafted;
      sum.accepted += facts.accepted;
      preemptions += found.preemptions;
      // With as much room, so that an answer ends where the budget does.
      EngineOptions alike = plain(options);
      alike.kv_budget_bytes = engine->pool().budget_bytes();
      const Reply want = alone(alike, request);
      // Of several answers some may have been complete when the request was cancelled.
      const bool cancelled = std::ranges::any_of(found.samples, [](const Sample& sample) {
        return sample.finish == FinishReason::kCancelled;
      });
      if (cancelled) {
        if (request.n > 1) continue;
        expect_beginning(found, want);
        continue;
      }
      ASSERT_EQ(found.samples.size(), want.samples.size());
      for (size_t i = 0; i < found.samples.size(); ++i) {
        expect_same(found.samples[i], want.samples[i], "request " + std::to_string(id));
      }
    }
    if (speculation != Speculation::kAuto) {  // which asks the clock
      EXPECT_GT(sum.accepted, 10);
      EXPECT_GT(sum.drafted - sum.accepted, 10);
    }
    EXPECT_EQ(preemptions > 0, tight);
    expect_nothing_held(*engine);
  }
}

// An answer that comes round, again and again.
Request round_and_round(int max_tokens) {
  Request request = greedy(tokens_from(2, 30), max_tokens);
  few_words(request);
  return request;
}

TEST(Speculation, TakesFewerStepsWhereTextComesRound) {
  EngineOptions options = tiny_options();
  options.speculation = Speculation::kLookup;
  const Request request = round_and_round(200);
  const Reply found = *open(options)->generate(request);
  expect_same(found, alone(plain(options), request), "greedy");
  EXPECT_EQ(found.speculation.steps + found.speculation.accepted, 199);
  EXPECT_LT(found.speculation.steps, 120);
}

TEST(Speculation, WhatLeavesTheChainIsThePlainAnswerAndLeavesThePlainCache) {
  EngineOptions options = tiny_options();
  options.speculation = Speculation::kLookup;
  SpeculationFacts sum;
  for (uint64_t seed = 1; seed < 9; ++seed) {
    const auto engine = open(options);
    const auto other = open(plain(options));
    std::vector<TokenId> text = this_or_that(seed, 0).prompt;
    // Each answer goes on behind the last, with the KV that this one left.
    for (int turn = 0; turn < 3; ++turn) {
      Request request = this_or_that(seed, 90);
      request.prompt = text;
      const Reply found = *engine->generate(request);
      const Reply want = *other->generate(request);
      expect_same(found, want, "seed " + std::to_string(seed));
      EXPECT_EQ(found.cached_tokens, want.cached_tokens);
      EXPECT_EQ(found.speculation.steps + found.speculation.accepted, 89);
      EXPECT_EQ(engine->tree().positions(), other->tree().positions());
      EXPECT_EQ(engine->pool().used(), other->pool().used());
      expect_nothing_held(*engine);
      sum.accepted += found.speculation.accepted;
      sum.accepted_off_chain += found.speculation.accepted_off_chain;
      text = joined(joined(text, found.tokens), tokens_from(turn, 5));
    }
  }
  EXPECT_GT(sum.accepted_off_chain, 100);
  EXPECT_GT(sum.accepted - sum.accepted_off_chain, 100);
}

TEST(Speculation, SeveralAnswersLeaveTheirChainsInOneStep) {
  for (const int panels : {1000, 40}) {
    EngineOptions options = options_with(64, panels);
    options.speculation = Speculation::kLookup;
    const auto engine = open(options);
    std::mt19937 random(panels);
    int off_chain = 0;
    int preemptions = 0;
    for (uint64_t round = 0; round < 6; ++round) {
      std::map<RequestId, Request> requests;
      for (uint64_t i = 0; i < 2; ++i) {
        Request request = this_or_that(2 * round + i, 120);
        request.n = i == 0 ? 2 : 1;
        request.salt = round;
        requests[*engine->submit(request)] = request;
      }
      std::vector<Completion> finished;
      Replies replies;
      while (engine->step(finished)) {
        if (random() % 200 == 0) engine->cancel(requests.rbegin()->first);
        engine->tree().check_integrity();
      }
      take(finished, replies);
      for (const auto& [id, request] : requests) {
        const Reply& found = *replies.at(id);
        const Reply want = alone(plain(options), request);
        off_chain += found.speculation.accepted_off_chain;
        preemptions += found.preemptions;
        for (size_t i = 0; i < found.samples.size(); ++i) {
          if (found.samples[i].finish == FinishReason::kCancelled) {
            expect_beginning(found.samples[i], want.samples[i]);
          } else {
            expect_same(found.samples[i], want.samples[i], "round " + std::to_string(round));
          }
        }
      }
      expect_nothing_held(*engine);
    }
    EXPECT_GT(off_chain, 5);
    EXPECT_EQ(preemptions > 0, panels < 1000);
  }
}

TEST(Speculation, AnAnswerMayEndOutsideTheChain) {
  EngineOptions options = tiny_options();
  options.speculation = Speculation::kLookup;
  const Reply whole = alone(plain(options), this_or_that(1, 90));
  int off_chain = 0;
  for (int most = 30; most < 60; most += 2) {
    // Cut by its length, cancelled, and by an error of whoever listens.
    const auto engine = open(options);
    const auto other = open(plain(options));
    Request request = this_or_that(1, most);
    expect_same(*engine->generate(request), *other->generate(request), "length");
    EXPECT_EQ(engine->pool().used(), other->pool().used());
    int left = most;
    auto hear = [&](TokenId, const std::string&) { return --left > 0; };
    const FunctionRef<bool(TokenId, const std::string&)> on_token = hear;
    request = this_or_that(1, 90);
    request.salt = 1;
    const Reply told = *engine->generate(request, {.on_token = &on_token});
    left = most;
    EXPECT_EQ(other->generate(request, {.on_token = &on_token})->tokens, told.tokens);
    EXPECT_EQ(told.tokens, std::vector(whole.tokens.begin(), whole.tokens.begin() + most));
    EXPECT_EQ(engine->tree().positions(), other->tree().positions());
    EXPECT_EQ(engine->pool().used(), other->pool().used());
    off_chain += told.speculation.accepted_off_chain;
    int asked = 0;
    auto ask = [&] { return ++asked <= most; };
    const FunctionRef<bool()> go_on = ask;
    request.salt = 2;
    EXPECT_EQ(engine->generate(request, {.go_on = &go_on})->tokens, told.tokens);
    const uint32_t used = engine->pool().used();
    left = most;
    auto throws = [&](TokenId, const std::string&) -> bool {
      if (--left == 0) throw std::runtime_error("mine");
      return true;
    };
    const FunctionRef<bool(TokenId, const std::string&)> on_throw = throws;
    request.salt = 3;
    EXPECT_THROW((void)engine->generate(request, {.on_token = &on_throw}), std::runtime_error);
    EXPECT_EQ(engine->pool().used(), used);
    expect_nothing_held(*engine);
  }
  EXPECT_GT(off_chain, 15);
}

TEST(Speculation, BranchesEvictNothing) {
  for (const int panels : {22, 26, 40}) {
    EngineOptions options = options_with(512, panels);
    options.speculation = Speculation::kLookup;
    const auto engine = open(options);
    const auto other = open(plain(options));
    for (uint64_t seed = 1; seed < 6; ++seed) {
      Request request = this_or_that(seed, 100);
      request.salt = seed;
      const Reply found = *engine->generate(request);
      expect_same(found, *other->generate(request), std::to_string(panels) + " panels");
      for (uint64_t salt = 1; salt <= seed; ++salt) {
        const KvScope scope{.salt = salt};
        EXPECT_EQ(engine->tree().matched(request.prompt, scope),
                  other->tree().matched(request.prompt, scope));
      }
    }
    expect_nothing_held(*engine);
  }
}

TEST(Speculation, WhatADraftModelHadSecondIsAcceptedToo) {
  const TempFolder folder;
  EngineOptions options = tiny_options();
  options.speculation = Speculation::kDraft;
  options.draft_model_path = worse_model(folder);
  SpeculationFacts sum;
  const auto engine = open(options);
  const auto other = open(plain(options));
  for (uint64_t seed = 1; seed < 9; ++seed) {
    const Request request = sampled(tokens_from(static_cast<int>(seed), 30), 150, seed);
    const Reply found = *engine->generate(request);
    expect_same(found, *other->generate(request), "seed " + std::to_string(seed));
    EXPECT_EQ(engine->tree().positions(), other->tree().positions());
    EXPECT_EQ(engine->pool().used(), other->pool().used());
    sum.accepted += found.speculation.accepted;
    sum.accepted_off_chain += found.speculation.accepted_off_chain;
  }
  EXPECT_GT(sum.accepted_off_chain, 0);
  expect_nothing_held(*engine);
}

TEST(Speculation, EndsWhereThePlainAnswerEnds) {
  EngineOptions options = tiny_options();
  options.speculation = Speculation::kLookup;
  const Reply whole = alone(plain(options), round_and_round(200));
  // Answers of some lengths, and stop strings that are complete at some places.
  for (int n = 150; n < 180; n += 3) {
    const Reply cut = *open(options)->generate(round_and_round(n));
    EXPECT_EQ(cut.tokens, std::vector(whole.tokens.begin(), whole.tokens.begin() + n));
    EXPECT_EQ(cut.finish, FinishReason::kLength);
    EXPECT_GT(cut.speculation.accepted, 0);
  }
  size_t stopped = 0;
  for (size_t begin = 0; begin + 3 < whole.text.size(); begin += 17) {
    Request request = round_and_round(200);
    request.stop = {whole.text.substr(begin, 3)};
    const auto engine = open(options);
    const Reply found = *engine->generate(request);
    const auto other = open(plain(options));
    const Reply want = *other->generate(request);
    expect_same(found, want, "stop at " + request.stop[0]);
    stopped += found.finish == FinishReason::kStop ? 1 : 0;
    // What is left in the cache is what a plain answer leaves.
    EXPECT_EQ(engine->tree().positions(), other->tree().positions());
    EXPECT_EQ(engine->pool().used(), other->pool().used());
  }
  EXPECT_GT(stopped, 5U);
}

TEST(Speculation, ListenersAreAskedForEachTokenAndMayEndAnAnswerInADraft) {
  EngineOptions options = tiny_options();
  options.speculation = Speculation::kLookup;
  const Reply whole = alone(plain(options), round_and_round(200));
  for (int most = 150; most < 170; most += 3) {
    const auto engine = open(options);
    int heard = 0;
    auto hear = [&](TokenId, const std::string&) { return ++heard < most; };
    const FunctionRef<bool(TokenId, const std::string&)> on_token = hear;
    const Reply told = *engine->generate(round_and_round(200), {.on_token = &on_token});
    EXPECT_EQ(told.finish, FinishReason::kCancelled);
    EXPECT_EQ(told.tokens, std::vector(whole.tokens.begin(), whole.tokens.begin() + most));
    EXPECT_GT(told.speculation.accepted, 0);

    // Asked once for the prompt, which gives the first token, and once for each later one.
    int asked = 0;
    auto ask = [&] { return ++asked <= most; };
    const FunctionRef<bool()> go_on = ask;
    const Reply ended = *open(options)->generate(round_and_round(200), {.go_on = &go_on});
    EXPECT_EQ(ended.finish, FinishReason::kCancelled);
    EXPECT_EQ(ended.tokens, told.tokens);

    const uint32_t used = engine->pool().used();
    auto throws = [&](TokenId, const std::string&) -> bool {
      if (--heard == 0) throw std::runtime_error("mine");
      return true;
    };
    const FunctionRef<bool(TokenId, const std::string&)> on_throw = throws;
    Request other = round_and_round(200);
    other.salt = 1;  // nothing is there already
    EXPECT_THROW((void)engine->generate(other, {.on_token = &on_throw}), std::runtime_error);
    EXPECT_EQ(engine->pool().used(), used);
    expect_nothing_held(*engine);
  }
}

TEST(Speculation, ABudgetThatEndsAnAnswerEndsItWhereItWouldWithoutDrafts) {
  for (const int panels : {5, 6, 7}) {
    EngineOptions options = options_with(512, panels);
    options.speculation = Speculation::kLookup;
    const Reply found = *open(options)->generate(round_and_round(200));
    const Reply want = alone(plain(options), round_and_round(200));
    expect_same(found, want, std::to_string(panels) + " panels");
    EXPECT_NE(found.note.find("--kv-budget"), std::string::npos) << found.note;
  }
}

TEST(Speculation, AModelThatDraftsForItselfIsAlwaysRight) {
  EngineOptions options = tiny_options();
  options.speculation = Speculation::kDraft;
  options.draft_model_path = options.model_path;
  const auto engine = open(options);
  int whole = 0;
  for (int first = 0; first < 100; first += 10) {
    Request request = greedy(tokens_from(first, 90), 64);
    request.ignore_eos = false;  // which the model that drafts knows nothing of
    const Reply found = *engine->generate(request);
    expect_same(found, alone(plain(options), request), "greedy");
    if (found.tokens.size() < 64) continue;
    ++whole;
    EXPECT_EQ(found.speculation.accepted, found.speculation.drafted);
    EXPECT_EQ(found.speculation.accepted + found.speculation.steps, 63);
    EXPECT_LT(found.speculation.steps, 32);
  }
  EXPECT_GT(whole, 2);
}

TEST(Speculation, ADraftModelsKvCountsInTheBudget) {
  const TempFolder folder;
  EngineOptions options = options_with(512, 40);
  options.speculation = Speculation::kDraft;
  options.draft_model_path = worse_model(folder);
  const auto engine = open(options);
  const MemoryUse before = engine->memory();
  EXPECT_LE(before.kv_budget, options.kv_budget_bytes);
  EXPECT_GT(before.kv_budget, options.kv_budget_bytes - 2 * kPanelBytes);
  EXPECT_EQ(engine->pool().capacity(), 20U);  // the two are equally large
  const Reply reply = *engine->generate(greedy(tokens_from(0, 100), 60));
  EXPECT_EQ(reply.kv_bytes_peak, engine->memory().kv_peak);
  EXPECT_GT(reply.kv_bytes_peak, engine->pool().peak_bytes() + 6 * kPanelBytes);
  EXPECT_LE(reply.kv_bytes_peak, before.kv_budget);
  EXPECT_GT(reply.speculation.accepted, 0);
}

TEST(Speculation, RefusesDraftModelsThatDoNotFit) {
  const TempFolder folder;
  const auto refused = [&](Speculation speculation, const std::string& model,
                           const std::string& part) {
    EngineOptions options = tiny_options();
    options.speculation = speculation;
    options.draft_model_path = model;
    const auto engine = Engine::open(options);
    ASSERT_FALSE(engine.has_value());
    EXPECT_EQ(engine.error().code, ErrorCode::kBadInput);
    EXPECT_NE(engine.error().message.find(part), std::string::npos) << engine.error().message;
  };
  refused(Speculation::kDraft, "", "-md");
  refused(Speculation::kOff, tiny_options().model_path, "--spec");
  refused(Speculation::kLookup, tiny_options().model_path, "--spec");
  refused(Speculation::kAuto, "/no/such/model.gguf", "/no/such/model.gguf");

  // A token of another text.
  std::ifstream file(tiny_options().model_path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), {});
  const auto engine = open();
  const std::string piece(engine->tokenizer().piece(300, Special::kParse));
  const size_t at = bytes.find("tokenizer.ggml.tokens");
  size_t place = at;
  std::string length(8, '\0');
  length[0] = static_cast<char>(piece.size());
  place = bytes.find(length + piece, place);
  ASSERT_NE(place, std::string::npos) << piece;
  bytes[place + 8] = bytes[place + 8] == 'q' ? 'z' : 'q';
  refused(Speculation::kDraft, folder.write("other.gguf", bytes), "token ");
}

}  // namespace
}  // namespace banyan
