// SPDX-License-Identifier: Apache-2.0
// The C API against the engine that it stands for, and with everything that may be wrong.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <functional>
#include <stdexcept>
#include <thread>

#include "banyan/banyan.h"
#include "engine/engine.h"
#include "engine/evaluate.h"

namespace banyan {
namespace {

const std::string kTinyModel = std::string(BANYAN_TEST_DATA) + "/golden/llama/model.gguf";

// The same engine through both doors.
banyan_model_options tiny_options() {
  banyan_model_options options;
  banyan_init_model_options(&options, sizeof options);
  options.n_threads = 2;
  options.kv_budget_bytes = uint64_t{16} << 20;
  options.compute = BANYAN_COMPUTE_F32;
  options.kv_type = BANYAN_KV_F32;
  options.deterministic = 1;
  return options;
}

std::unique_ptr<Engine> tiny_engine() {
  EngineOptions options;
  options.model_path = kTinyModel;
  options.n_threads = 2;
  options.kv_budget_bytes = uint64_t{16} << 20;
  options.compute = Compute::kF32;
  options.k_type = options.v_type = DType::kF32;
  options.deterministic = true;
  return *Engine::open(options);
}

// Frees an error after saying it.
std::string message_of(banyan_error* error, int32_t code = BANYAN_BAD_INPUT) {
  EXPECT_EQ(banyan_error_code(error), error == nullptr ? 0 : code) << banyan_error_message(error);
  std::string message = banyan_error_message(error);
  banyan_free_error(error);
  return message;
}

void expect_fine(banyan_error* error) { EXPECT_EQ(message_of(error), ""); }

void expect_refused(banyan_error* error, const std::string& part, int32_t code = BANYAN_BAD_INPUT) {
  const std::string message = message_of(error, code);
  EXPECT_NE(message.find(part), std::string::npos) << message;
}

struct FreeModel {
  void operator()(banyan_model* model) const { banyan_free_model(model); }
};
using ModelHandle = std::unique_ptr<banyan_model, FreeModel>;

ModelHandle load(const banyan_model_options& options = tiny_options()) {
  banyan_model* model = nullptr;
  expect_fine(banyan_load_model(kTinyModel.c_str(), &options, &model));
  EXPECT_NE(model, nullptr);
  return ModelHandle(model);
}

struct FreeReply {
  void operator()(banyan_reply* reply) const { banyan_free_reply(reply); }
};
using ReplyHandle = std::unique_ptr<banyan_reply, FreeReply>;

banyan_generate_options greedy(int max_tokens) {
  banyan_generate_options options;
  banyan_init_generate_options(&options, sizeof options);
  options.max_tokens = max_tokens;
  options.temperature = 0;
  options.ignore_eos = 1;
  return options;
}

ReplyHandle generate(const ModelHandle& model, const std::vector<TokenId>& prompt,
                     const banyan_generate_options& options) {
  banyan_reply* reply = nullptr;
  expect_fine(banyan_generate(model.get(), prompt.data(), prompt.size(), &options, &reply));
  EXPECT_NE(reply, nullptr);
  return ReplyHandle(reply);
}

std::vector<TokenId> tokens_from(int first, int n) {
  std::vector<TokenId> tokens;
  for (int i = 0; i < n; ++i) tokens.push_back(3 + (first + i * 7) % 300);
  return tokens;
}

std::vector<TokenId> tokens_of(const banyan_reply& reply) {
  return {reply.tokens, reply.tokens + reply.n_tokens};
}

// Lets a callback be a lambda that captures: (token, text) -> int32_t.
using OnToken = std::function<int32_t(int32_t, const std::string&)>;
void listen(banyan_generate_options& options, OnToken& on_token) {
  options.user = &on_token;
  options.on_token = [](void* user, int32_t token, const char* text, size_t text_bytes) {
    EXPECT_EQ(text[text_bytes], '\0');
    return (*static_cast<OnToken*>(user))(token, std::string(text, text_bytes));
  };
}

TEST(Api, StructsAreThoseOfTheirVersion) {
  // What programs were compiled with; a struct may only grow at its end.
  static_assert(BANYAN_ABI_VERSION == 1);
  if (sizeof(void*) != 8) GTEST_SKIP() << "the numbers are those of 64-bit machines";
  EXPECT_EQ(offsetof(banyan_model_options, n_threads), 4U);
  EXPECT_EQ(offsetof(banyan_model_options, deterministic), 20U);
  EXPECT_EQ(offsetof(banyan_model_options, kv_budget_bytes), 24U);
  EXPECT_EQ(offsetof(banyan_model_options, speculation), 32U);
  EXPECT_EQ(offsetof(banyan_model_options, draft_model_path), 40U);
  EXPECT_EQ(sizeof(banyan_model_options), 48U);
  EXPECT_EQ(offsetof(banyan_generate_options, max_tokens), 4U);
  EXPECT_EQ(offsetof(banyan_generate_options, ignore_eos), 44U);
  EXPECT_EQ(offsetof(banyan_generate_options, seed), 48U);
  EXPECT_EQ(offsetof(banyan_generate_options, user), 96U);
  EXPECT_EQ(offsetof(banyan_generate_options, n), 104U);
  EXPECT_EQ(offsetof(banyan_generate_options, salt), 112U);
  EXPECT_EQ(sizeof(banyan_generate_options), 120U);
  EXPECT_EQ(offsetof(banyan_reply, text), 8U);
  EXPECT_EQ(offsetof(banyan_reply, prompt_tokens), 48U);
  EXPECT_EQ(offsetof(banyan_reply, kv_bytes_peak), 72U);
  EXPECT_EQ(offsetof(banyan_reply, queue_ms), 96U);
  EXPECT_EQ(offsetof(banyan_reply, cache), 128U);
  EXPECT_EQ(offsetof(banyan_reply, drafted_tokens), 136U);
  EXPECT_EQ(offsetof(banyan_reply, decode_steps), 144U);
  EXPECT_EQ(sizeof(banyan_reply), 152U);
  EXPECT_EQ(offsetof(banyan_cache_facts, why), 16U);
  EXPECT_EQ(sizeof(banyan_cache_facts), 48U);
  EXPECT_EQ(offsetof(banyan_sample, text), 8U);
  EXPECT_EQ(offsetof(banyan_sample, mean_logprob), 48U);
  EXPECT_EQ(offsetof(banyan_sample, note), 56U);
  EXPECT_EQ(sizeof(banyan_sample), 64U);
  EXPECT_EQ(offsetof(banyan_node_facts, text), 16U);
  EXPECT_EQ(offsetof(banyan_node_facts, sampled_text), 48U);
  EXPECT_EQ(offsetof(banyan_node_facts, why), 88U);
  EXPECT_EQ(sizeof(banyan_node_facts), 96U);
  EXPECT_EQ(offsetof(banyan_search_kv, bytes), 24U);
  EXPECT_EQ(sizeof(banyan_search_kv), 40U);
  EXPECT_EQ(sizeof(banyan_message), 16U);
  EXPECT_EQ(sizeof(banyan_logit_bias), 8U);
  EXPECT_EQ(banyan_abi_version(), BANYAN_ABI_VERSION);
  EXPECT_STRNE(banyan_version(), "");
}

TEST(Api, GeneratesWhatTheEngineDoesAndStreamsIt) {
  const auto model = load();
  const auto engine = tiny_engine();
  const auto prompt = tokens_from(5, 100);
  for (const bool sampled : {false, true}) {
    SCOPED_TRACE(sampled);
    const banyan_logit_bias bias = {7, 1.5F};
    banyan_generate_options options = greedy(40);
    Request request;
    request.prompt = prompt;
    request.max_tokens = 40;
    request.sampler.temperature = 0;
    request.ignore_eos = true;
    if (sampled) {
      options.temperature = request.sampler.temperature = 1.5F;
      options.top_k = request.sampler.top_k = 100;
      options.top_p = request.sampler.top_p = 0.99F;
      options.min_p = request.sampler.min_p = 0.001F;
      options.typical_p = request.sampler.typical_p = 0.99F;
      options.repeat_penalty = request.sampler.repeat_penalty = 1.1F;
      options.presence_penalty = request.sampler.presence_penalty = 0.1F;
      options.frequency_penalty = request.sampler.frequency_penalty = 0.2F;
      options.repeat_last_n = request.sampler.repeat_last_n = 20;
      options.seed = request.sampler.seed = 99;
      options.logit_bias = &bias;
      options.n_logit_bias = 1;
      request.sampler.logit_bias = {{7, 1.5F}};
    }
    std::vector<TokenId> heard_tokens;
    std::string heard;
    OnToken on_token = [&](int32_t token, const std::string& text) {
      if (token >= 0) heard_tokens.push_back(token);
      heard += text;
      return 0;
    };
    listen(options, on_token);
    const auto reply = generate(model, prompt, options);
    const Reply want = *engine->generate(request);
    EXPECT_EQ(tokens_of(*reply), want.tokens);
    EXPECT_EQ(heard_tokens, want.tokens);
    EXPECT_EQ(reply->text, want.text);
    EXPECT_EQ(reply->text_bytes, want.text.size());
    EXPECT_EQ(heard, want.text);
    EXPECT_EQ(std::vector(reply->logprobs, reply->logprobs + reply->n_tokens), want.logprobs);
    EXPECT_EQ(reply->finish_reason, BANYAN_FINISH_LENGTH);
    EXPECT_EQ(reply->prompt_tokens, 100);
    EXPECT_EQ(reply->reused_tokens, sampled ? 99 : 0);
    EXPECT_EQ(reply->kv_bytes_peak, want.kv_bytes_peak);
    EXPECT_EQ(reply->compute, BANYAN_COMPUTE_F32);
    EXPECT_EQ(reply->kv_exact, 1);
    EXPECT_STREQ(reply->note, "");
    EXPECT_GT(reply->prompt_ms, 0);
    EXPECT_GT(reply->predicted_ms, 0);
    EXPECT_EQ(reply->struct_size, sizeof(banyan_reply));
  }
}

TEST(Api, DefaultsAreTheEnginesOwn) {
  banyan_generate_options options;
  banyan_init_generate_options(&options, sizeof options);
  const auto model = load();
  const auto with = generate(model, tokens_from(2, 20), options);
  banyan_reply* reply = nullptr;
  const auto prompt = tokens_from(2, 20);
  expect_fine(banyan_generate(model.get(), prompt.data(), prompt.size(), nullptr, &reply));
  const ReplyHandle without(reply);
  Request request;
  request.prompt = prompt;
  EXPECT_EQ(tokens_of(*without), tiny_engine()->generate(request)->tokens);
  EXPECT_EQ(tokens_of(*without), tokens_of(*with));
}

TEST(Api, SaysWhereKeysAndValuesWereRounded) {
  for (const int32_t type : {BANYAN_KV_F16, BANYAN_KV_BF16, BANYAN_KV_Q8_0}) {
    banyan_model_options options = tiny_options();
    options.kv_type = type;
    EXPECT_EQ(generate(load(options), tokens_from(2, 20), greedy(2))->kv_exact,
              type != BANYAN_KV_Q8_0);
  }
}

TEST(Api, StopStringsEndTheAnswer) {
  const auto model = load();
  const std::string all = generate(model, tokens_from(5, 30), greedy(60))->text;
  ASSERT_GT(all.size(), 20U);
  const std::string stop = all.substr(10, 3);
  const char* const stops[] = {"never in it, surely", stop.c_str()};
  banyan_generate_options options = greedy(60);
  options.stop = stops;
  options.n_stop = 2;
  const auto reply = generate(model, tokens_from(5, 30), options);
  EXPECT_EQ(reply->finish_reason, BANYAN_FINISH_STOP);
  EXPECT_EQ(reply->text, all.substr(0, all.find(stop)));
}

TEST(Api, ReadsAPromptForLaterWithoutAnswering) {
  const auto model = load();
  const auto prompt = tokens_from(5, 100);
  const auto read = generate(model, prompt, greedy(0));
  EXPECT_EQ(read->n_tokens, 0U);
  EXPECT_EQ(generate(model, prompt, greedy(1))->reused_tokens, 99);
}

TEST(Api, GivesTheBestOfSeveralAnswers) {
  const auto model = load();
  const auto prompt = tokens_from(5, 40);
  banyan_generate_options options = greedy(12);
  options.temperature = 1;
  options.seed = 9;
  options.n = 3;
  options.best_of = 5;
  int calls = 0;
  OnToken count = [&](int32_t, const std::string&) { return ++calls, 0; };
  listen(options, count);
  const auto reply = generate(model, prompt, options);
  EXPECT_EQ(calls, 0);
  ASSERT_EQ(reply->n_samples, 3U);
  EXPECT_EQ(reply->text, std::string(reply->samples[0]->text));

  Request request;
  request.prompt = prompt;
  request.max_tokens = 12;
  request.ignore_eos = true;
  request.sampler.temperature = 1;
  request.sampler.seed = 9;
  request.n = 3;
  request.best_of = 5;
  const Reply want = *tiny_engine()->generate(request);
  for (size_t i = 0; i < 3; ++i) {
    const banyan_sample& sample = *reply->samples[i];
    EXPECT_EQ(sample.struct_size, sizeof(banyan_sample));
    EXPECT_EQ(sample.finish_reason, BANYAN_FINISH_LENGTH);
    EXPECT_EQ(std::vector(sample.tokens, sample.tokens + sample.n_tokens), want.samples[i].tokens);
    EXPECT_EQ(sample.logprobs[0], want.samples[i].logprobs[0]);
    EXPECT_EQ(std::string(sample.text, sample.text_bytes), want.samples[i].text);
    EXPECT_EQ(sample.mean_logprob, want.samples[i].mean_logprob);
    EXPECT_STREQ(sample.note, "");
  }

  // A program that knows nothing of it.
  banyan_generate_options older = greedy(12);
  older.struct_size = offsetof(banyan_generate_options, n);
  older.n = 7;
  EXPECT_EQ(generate(model, prompt, older)->n_samples, 1U);
}

TEST(Api, CancelEndsSeveralAnswersToo) {
  const auto model = load();
  banyan_generate_options options = greedy(3000);
  options.temperature = 1;
  options.n = 4;
  std::atomic<bool> done{false};
  std::thread canceller([&] {
    while (!done) banyan_cancel(model.get());
  });
  const auto reply = generate(model, tokens_from(0, 10), options);
  done = true;
  canceller.join();
  EXPECT_EQ(reply->finish_reason, BANYAN_FINISH_CANCELLED);
  EXPECT_LT(reply->n_tokens, 3000U);
}

TEST(Api, SaysWhyNoMoreWasReused) {
  const auto model = load();
  auto prompt = tokens_from(5, 40);
  EXPECT_STREQ(generate(model, prompt, greedy(1))->cache_why, "empty");
  EXPECT_STREQ(generate(model, prompt, greedy(1))->cache_why, "hit");
  prompt[20] = prompt[20] == 3 ? 4 : 3;
  banyan_cache_facts* told = nullptr;
  expect_fine(banyan_explain(model.get(), prompt.data(), prompt.size(), &told));
  const ReplyHandle reply = generate(model, prompt, greedy(1));
  EXPECT_STREQ(reply->cache_why, "diverged");
  for (const banyan_cache_facts* facts :
       {static_cast<const banyan_cache_facts*>(told), reply->cache}) {
    EXPECT_STREQ(facts->why, "diverged");
    EXPECT_EQ(facts->position, 20);
    EXPECT_EQ(facts->reused_tokens, 20);
    EXPECT_EQ(facts->computed_tokens, 20);
    EXPECT_STRNE(facts->before, "");
    EXPECT_STRNE(facts->had, facts->got);
  }
  banyan_free_cache_facts(told);
  told = nullptr;
  banyan_error* error = banyan_explain(model.get(), prompt.data(), 0, &told);
  EXPECT_EQ(banyan_error_code(error), BANYAN_BAD_INPUT);
  EXPECT_EQ(told, nullptr);
  banyan_free_error(error);
}

TEST(Api, OnlyEqualSaltsShareKeysAndValues) {
  const auto model = load();
  const auto prompt = tokens_from(5, 40);
  banyan_generate_options options = greedy(4);
  const auto expect_found = [&](uint64_t salt, int32_t reused_tokens, const char* why) {
    options.salt = salt;
    const auto reply = generate(model, prompt, options);
    EXPECT_EQ(reply->reused_tokens, reused_tokens) << salt;
    EXPECT_STREQ(reply->cache_why, why) << salt;
  };
  constexpr uint64_t kOtherInItsUpperHalf = 7 + (uint64_t{1} << 32);
  expect_found(7, 0, "empty");
  expect_found(kOtherInItsUpperHalf, 0, "other_tenant");
  expect_found(0, 0, "other_tenant");
  expect_found(7, 39, "hit");
  expect_found(kOtherInItsUpperHalf, 39, "hit");
  // A program that knows nothing of it has the salt 0, whatever stands behind its struct.
  options.struct_size = offsetof(banyan_generate_options, salt);
  expect_found(8, 39, "hit");
}

TEST(Api, ExplainsWhatACallWithASaltWouldFind) {
  const auto model = load();
  const auto prompt = tokens_from(5, 40);
  banyan_generate_options options = greedy(4);
  options.salt = 7;
  generate(model, prompt, options);
  const auto expect_explained = [&](const banyan_generate_options* with, int32_t reused_tokens,
                                    const char* why) {
    banyan_cache_facts* facts = nullptr;
    expect_fine(banyan_explain_with(model.get(), prompt.data(), prompt.size(), with, &facts));
    ASSERT_NE(facts, nullptr);
    EXPECT_EQ(facts->reused_tokens, reused_tokens);
    EXPECT_STREQ(facts->why, why);
    banyan_free_cache_facts(facts);
  };
  expect_explained(&options, 39, "hit");
  options.salt = 8;
  expect_explained(&options, 0, "other_tenant");
  expect_explained(nullptr, 0, "other_tenant");
  options.struct_size = offsetof(banyan_generate_options, salt);
  expect_explained(&options, 0, "other_tenant");

  banyan_cache_facts* facts = nullptr;
  banyan_generate_options wrong = greedy(4);
  wrong.top_p = 0;
  expect_refused(banyan_explain_with(model.get(), prompt.data(), 40, &wrong, &facts), "--top-p");
  expect_refused(banyan_explain_with(model.get(), nullptr, 40, nullptr, &facts),
                 "banyan_explain_with: prompt is NULL");
  EXPECT_EQ(facts, nullptr);
}

TEST(Api, SpeculationChangesStepsAndNoAnswer) {
  const auto prompt = tokens_from(5, 60);
  // Four tokens to choose from come round again and again.
  const banyan_logit_bias few[] = {{40, 100}, {41, 100}, {42, 100}, {43, 100}};
  for (const int32_t from :
       {BANYAN_SPECULATION_LOOKUP, BANYAN_SPECULATION_DRAFT, BANYAN_SPECULATION_AUTO}) {
    SCOPED_TRACE(from);
    banyan_generate_options options = greedy(60);
    banyan_model_options with = tiny_options();
    with.speculation = from;
    if (from == BANYAN_SPECULATION_DRAFT) {
      with.draft_model_path = kTinyModel.c_str();  // which is always right
    } else {
      options.logit_bias = few;
      options.n_logit_bias = 4;
    }
    const auto plain = generate(load(), prompt, options);
    EXPECT_EQ(plain->drafted_tokens, 0);
    EXPECT_EQ(plain->decode_steps, 59);
    const auto reply = generate(load(with), prompt, options);
    EXPECT_EQ(tokens_of(*reply), tokens_of(*plain));
    EXPECT_EQ(std::vector(reply->logprobs, reply->logprobs + reply->n_tokens),
              std::vector(plain->logprobs, plain->logprobs + plain->n_tokens));
    EXPECT_LE(reply->accepted_tokens, reply->drafted_tokens);
    EXPECT_EQ(reply->decode_steps + reply->accepted_tokens, 59);
    if (from != BANYAN_SPECULATION_AUTO) {  // which goes by measured times
      EXPECT_GT(reply->accepted_tokens, 20);
    }
  }
  // A program that knows nothing of it, whatever stands behind its struct.
  banyan_model_options older = tiny_options();
  older.speculation = 99;
  older.struct_size = offsetof(banyan_model_options, speculation);
  EXPECT_EQ(generate(load(older), prompt, greedy(60))->drafted_tokens, 0);
}

TEST(Api, MaxTokensMayBeAnyNumber) {
  // As many as there is room for, and no memory for two thousand million.
  banyan_model_options small = tiny_options();
  small.kv_budget_bytes = uint64_t{1} << 20;
  const auto model = load(small);
  const auto reply = generate(model, tokens_from(5, 10), greedy(INT32_MAX));
  EXPECT_EQ(reply->finish_reason, BANYAN_FINISH_LENGTH);
  EXPECT_GT(reply->n_tokens, 100U);
  EXPECT_NE(std::string(reply->note).find("--kv-budget"), std::string::npos) << reply->note;
  EXPECT_STREQ(reply->samples[0]->note, reply->note);
}

TEST(Api, TokenizesAsTheEngineAndBack) {
  const auto model = load();
  const auto engine = tiny_engine();
  for (const std::string& text :
       {std::string("Hello, world"), std::string("caf\xc3\xa9 \0 \xff", 9), std::string("<s>x</s>"),
        std::string()}) {
    for (const uint32_t flags : {0, 4, 1, 2, 7}) {
      int32_t* tokens = nullptr;
      size_t n = 0;
      expect_fine(banyan_tokenize(model.get(), text.data(), text.size(), flags, &tokens, &n));
      const std::vector<TokenId> found(tokens, tokens + n);
      const Special special = (flags & 4) != 0 ? Special::kParse : Special::kPlain;
      EXPECT_EQ(found, *engine->encode(text, special, (flags & 1) != 0, (flags & 2) != 0));
      char* back = nullptr;
      size_t n_bytes = 0;
      expect_fine(banyan_detokenize(model.get(), tokens, n, flags, &back, &n_bytes));
      EXPECT_EQ(back[n_bytes], '\0');
      if (flags == 0 || flags == 4) {
        EXPECT_EQ(std::string(back, n_bytes), text);
      }
      banyan_free(back);
      banyan_free(tokens);
    }
  }
  EXPECT_EQ(banyan_vocabulary_size(model.get()), 320);
  EXPECT_EQ(banyan_context(model.get()), 4096);
}

TEST(Api, EmbedsAsTheEngine) {
  const auto model = load();
  const auto engine = tiny_engine();
  const auto tokens = tokens_from(3, 40);
  const int n = banyan_embedding_size(model.get());
  ASSERT_EQ(n, 64);
  for (const int pooling : {BANYAN_POOLING_LAST, BANYAN_POOLING_MEAN}) {
    std::vector<float> embedding(n);
    expect_fine(banyan_embed(model.get(), tokens.data(), tokens.size(), pooling, embedding.data(),
                             embedding.size()));
    EXPECT_EQ(embedding, *embed(*engine, tokens,
                                pooling == BANYAN_POOLING_MEAN ? Pooling::kMean : Pooling::kLast));
  }
}

TEST(Api, ACallbackEndsTheAnswer) {
  const auto model = load();
  int calls = 0;
  OnToken third = [&](int32_t, const std::string&) { return ++calls == 3 ? 1 : 0; };
  banyan_generate_options options = greedy(100);
  listen(options, third);
  const auto reply = generate(model, tokens_from(0, 10), options);
  EXPECT_EQ(reply->finish_reason, BANYAN_FINISH_CANCELLED);
  EXPECT_EQ(reply->n_tokens, 3U);
  EXPECT_EQ(calls, 3);
}

TEST(Api, AnotherThreadEndsTheAnswer) {
  const auto model = load();
  std::atomic<bool> running{false};
  std::atomic<bool> cancelled{false};
  OnToken wait = [&](int32_t, const std::string&) {
    running = true;
    while (!cancelled) std::this_thread::yield();
    return 0;
  };
  banyan_generate_options options = greedy(100);
  listen(options, wait);
  std::thread other([&] {
    while (!running) std::this_thread::yield();
    banyan_cancel(model.get());
    cancelled = true;
  });
  const auto reply = generate(model, tokens_from(0, 10), options);
  other.join();
  EXPECT_EQ(reply->finish_reason, BANYAN_FINISH_CANCELLED);
  EXPECT_EQ(reply->n_tokens, 1U);
  // What begins later is not touched.
  EXPECT_EQ(generate(model, tokens_from(0, 10), greedy(5))->n_tokens, 5U);
}

TEST(Api, CancelReachesCallsThatWaitForTheirTurn) {
  const auto model = load();
  const auto prompt = tokens_from(0, 10);
  bool reached = false;
  // Whether the second call has begun cannot be seen; that it never has in 200 ms, 50 times, is not
  // chance.
  for (int attempt = 0; attempt < 50 && !reached; ++attempt) {
    std::atomic<bool> first_runs{false};
    std::atomic<bool> second_begins{false};
    std::thread second([&] {
      while (!first_runs) std::this_thread::yield();
      second_begins = true;
      const auto reply = generate(model, prompt, greedy(5));
      reached = reply->finish_reason == BANYAN_FINISH_CANCELLED && reply->n_tokens == 0;
    });
    OnToken cancel = [&](int32_t, const std::string&) {
      first_runs = true;
      while (!second_begins) std::this_thread::yield();
      std::this_thread::sleep_for(std::chrono::milliseconds(attempt == 0 ? 5 : 200));
      banyan_cancel(model.get());
      return 0;
    };
    banyan_generate_options options = greedy(100);
    listen(options, cancel);
    EXPECT_EQ(generate(model, prompt, options)->n_tokens, 1U);
    second.join();
  }
  EXPECT_TRUE(reached);
}

TEST(Api, CallsOfOneModelFromManyThreadsDoNotDisturbEachOther) {
  const auto model = load();
  const auto other_model = load();
  const std::string text = "the same text in every thread";
  const std::string want = generate(model, tokens_from(1, 50), greedy(20))->text;
  std::vector<float> want_embedding(64);
  const auto tokens = tokens_from(4, 30);
  expect_fine(
      banyan_embed(model.get(), tokens.data(), tokens.size(), 0, want_embedding.data(), 64));
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 5; ++i) {
        const auto& mine = t == 2 ? other_model : model;
        EXPECT_EQ(generate(mine, tokens_from(1, 50), greedy(20))->text, want);
        std::vector<float> embedding(64);
        expect_fine(
            banyan_embed(mine.get(), tokens.data(), tokens.size(), 0, embedding.data(), 64));
        EXPECT_EQ(embedding, want_embedding);
        int32_t* ids = nullptr;
        size_t n = 0;
        expect_fine(banyan_tokenize(model.get(), text.data(), text.size(), 0, &ids, &n));
        char* back = nullptr;
        size_t n_bytes = 0;
        expect_fine(banyan_detokenize(model.get(), ids, n, 0, &back, &n_bytes));
        EXPECT_EQ(back, text);
        banyan_free(ids);
        banyan_free(back);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(Api, CallbacksThatThrowOrComputeAreErrorsAndTheModelGoesOn) {
  const auto model = load();
  const auto prompt = tokens_from(0, 10);
  banyan_generate_options options = greedy(20);
  banyan_reply* reply = nullptr;
  OnToken throws = [](int32_t, const std::string&) -> int32_t { throw std::runtime_error("mine"); };
  listen(options, throws);
  expect_refused(banyan_generate(model.get(), prompt.data(), prompt.size(), &options, &reply),
                 "mine", BANYAN_FAILED);
  EXPECT_EQ(reply, nullptr);
  OnToken throws_a_number = [](int32_t, const std::string&) -> int32_t { throw 3; };
  listen(options, throws_a_number);
  expect_refused(banyan_generate(model.get(), prompt.data(), prompt.size(), &options, &reply),
                 "exception", BANYAN_FAILED);

  // What was under way then is not taken for stored.
  EXPECT_EQ(generate(model, prompt, greedy(1))->reused_tokens, 0);

  int calls = 0;
  OnToken computes = [&](int32_t, const std::string&) {
    std::vector<float> embedding(64);
    expect_refused(banyan_embed(model.get(), prompt.data(), prompt.size(), 0, embedding.data(), 64),
                   "callback");
    int32_t* tokens = nullptr;
    size_t n = 0;
    expect_fine(banyan_tokenize(model.get(), "x", 1, 0, &tokens, &n));
    banyan_free(tokens);
    return ++calls == 2 ? 1 : 0;
  };
  listen(options, computes);
  generate(model, prompt, options);
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(generate(model, prompt, greedy(5))->n_tokens, 5U);
}

TEST(Api, RefusesModelsInASentence) {
  banyan_model* model = nullptr;
  const banyan_model_options good = tiny_options();
  expect_refused(banyan_load_model(nullptr, &good, &model), "path is NULL");
  expect_refused(banyan_load_model(kTinyModel.c_str(), &good, nullptr), "model is NULL");
  expect_refused(banyan_load_model("/no/such/model.gguf", &good, &model), "/no/such/model.gguf");
  expect_refused(banyan_load_model("", &good, &model), "");
  const auto refused = [&](const std::string& part, auto change) {
    banyan_model_options options = tiny_options();
    change(options);
    expect_refused(banyan_load_model(kTinyModel.c_str(), &options, &model), part);
    EXPECT_EQ(model, nullptr);
  };
  refused("n_threads is -1", [](auto& o) { o.n_threads = -1; });
  refused("n_threads is 100000", [](auto& o) { o.n_threads = 100000; });
  refused("context is -5", [](auto& o) { o.context = -5; });
  refused("compute is 9", [](auto& o) { o.compute = 9; });
  refused("kv_type is -1", [](auto& o) { o.kv_type = -1; });
  refused("--kv-budget", [](auto& o) { o.kv_budget_bytes = 1; });
  refused("struct_size", [](auto& o) { o.struct_size = 0; });
  refused("speculation is 4", [](auto& o) { o.speculation = 4; });
  refused("speculation is -1", [](auto& o) { o.speculation = -1; });
  refused("reserved is 1", [](auto& o) { o.reserved = 1; });
  refused("--spec draft needs", [](auto& o) { o.speculation = BANYAN_SPECULATION_DRAFT; });
  refused("-md x is for", [](auto& o) { o.draft_model_path = "x"; });
  refused("/no/draft.gguf", [](auto& o) {
    o.speculation = BANYAN_SPECULATION_AUTO;
    o.draft_model_path = "/no/draft.gguf";
  });
  refused("struct_size",
          [](auto& o) { o.struct_size = offsetof(banyan_model_options, speculation) - 1; });
  refused("struct_size", [](auto& o) { o.struct_size = 1U << 30; });
  banyan_free_model(nullptr);
  banyan_free_reply(nullptr);
  banyan_free_error(nullptr);
  banyan_free(nullptr);
  banyan_cancel(nullptr);
  banyan_init_model_options(nullptr, 8);
  EXPECT_EQ(banyan_context(nullptr) + banyan_vocabulary_size(nullptr), 0);
  EXPECT_EQ(banyan_embedding_size(nullptr), 0);
}

TEST(Api, OptionsOfALaterVersionAreTakenWhereTheyAreNotUsed) {
  struct Later {
    banyan_model_options known;
    uint64_t unknown;
  } later;
  static_assert(offsetof(Later, unknown) == sizeof(banyan_model_options));
  banyan_init_model_options(&later.known, sizeof later);
  EXPECT_EQ(later.known.struct_size, sizeof later);
  banyan_model* model = nullptr;
  later.known.kv_budget_bytes = uint64_t{16} << 20;
  expect_fine(banyan_load_model(kTinyModel.c_str(), &later.known, &model));
  banyan_free_model(model);
  later.unknown = 1;
  expect_refused(banyan_load_model(kTinyModel.c_str(), &later.known, &model), "does not have");
}

TEST(Api, RefusesRequestsInASentence) {
  banyan_model_options small = tiny_options();
  small.context = 50;
  const auto model = load(small);
  const auto prompt = tokens_from(0, 10);
  banyan_reply* reply = nullptr;
  const auto refused = [&](const std::string& part, auto change) {
    banyan_generate_options options = greedy(5);
    change(options);
    expect_refused(banyan_generate(model.get(), prompt.data(), prompt.size(), &options, &reply),
                   part);
    EXPECT_EQ(reply, nullptr);
  };
  const char* const empty[] = {""};
  const char* const none[] = {nullptr};
  const banyan_logit_bias no_token = {320, 0};
  refused("max_tokens is -2", [](auto& o) { o.max_tokens = -2; });
  refused("--temp", [](auto& o) { o.temperature = NAN; });
  refused("--top-p", [](auto& o) { o.top_p = 0; });
  refused("--n must be", [](auto& o) { o.n = 0; });
  refused("--best-of must be", [](auto& o) { o.n = 3, o.best_of = 2; });
  refused("stop string", [&](auto& o) { o.stop = empty, o.n_stop = 1; });
  refused("stop string", [&](auto& o) { o.stop = none, o.n_stop = 1; });
  refused("stop is NULL", [&](auto& o) { o.n_stop = 1; });
  refused("token 320", [&](auto& o) { o.logit_bias = &no_token, o.n_logit_bias = 1; });
  refused("logit_bias is NULL", [&](auto& o) { o.n_logit_bias = 1; });
  refused("struct_size", [](auto& o) { o.struct_size = 7; });

  const banyan_generate_options good = greedy(5);
  const auto run = [&](const std::vector<TokenId>& tokens) {
    return banyan_generate(model.get(), tokens.data(), tokens.size(), &good, &reply);
  };
  expect_refused(run({}), "prompt is empty");
  expect_refused(run({5, 320}), "token 320");
  expect_refused(run({5, -1}), "token -1");
  expect_refused(run(tokens_from(0, 51)), "context of 50");
  expect_refused(banyan_generate(model.get(), nullptr, 3, &good, &reply), "prompt is NULL");
  expect_refused(banyan_generate(nullptr, prompt.data(), 3, &good, &reply), "model is NULL");
  expect_refused(banyan_generate(model.get(), prompt.data(), 3, &good, nullptr), "reply is NULL");

  std::vector<float> out(64, 1.0F);
  const auto embed_refused = [&](const std::vector<TokenId>& tokens, int pooling, size_t n,
                                 const std::string& part) {
    expect_refused(banyan_embed(model.get(), tokens.data(), tokens.size(), pooling, out.data(), n),
                   part);
  };
  embed_refused(prompt, 0, 63, "n_floats is 63, expected 64");
  embed_refused(prompt, 2, 64, "pooling is 2");
  embed_refused({}, 0, 64, "no tokens");
  embed_refused({320}, 0, 64, "token 320");
  embed_refused(tokens_from(0, 51), 0, 64, "context of 50");
  EXPECT_EQ(out, std::vector<float>(64));
  expect_refused(banyan_embed(model.get(), prompt.data(), 3, 0, nullptr, 64), "embedding is NULL");

  int32_t* tokens = nullptr;
  char* text = nullptr;
  size_t n = 1;
  const int32_t wrong[] = {-1};
  const banyan_message no_content = {"user", nullptr};
  const banyan_message question = {"user", "Hello"};
  expect_refused(banyan_tokenize(model.get(), nullptr, 1, 0, &tokens, &n), "text is NULL");
  EXPECT_EQ(n, 0U);
  expect_refused(banyan_tokenize(model.get(), "x", 1, 0, nullptr, &n), "tokens is NULL");
  expect_refused(banyan_detokenize(model.get(), wrong, 1, 0, &text, &n), "token is -1");
  expect_refused(banyan_apply_chat_template(model.get(), &no_content, 1, &tokens, &n),
                 "content is NULL");
  expect_refused(banyan_apply_chat_template(model.get(), &question, 1, &tokens, &n),
                 "chat template");
}

}  // namespace
}  // namespace banyan
