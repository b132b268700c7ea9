// SPDX-License-Identifier: Apache-2.0
#pragma once
// Many requests to the tiny engine, and what must hold of their replies.

#include <map>

#include "engine/testing_tiny_engine.h"

namespace banyan {

inline constexpr uint64_t kPanelBytes = 12288;  // of the tiny model in f32

inline EngineOptions options_with(int max_rows, uint64_t panels = 1000) {
  EngineOptions options = tiny_options();
  options.max_rows = max_rows;
  options.kv_budget_bytes = panels * kPanelBytes;
  return options;
}

inline Request sampled(std::vector<TokenId> prompt, int max_tokens, uint64_t seed) {
  Request request = greedy(std::move(prompt), max_tokens);
  request.sampler.temperature = 1;
  request.sampler.seed = seed;
  return request;
}

inline std::vector<TokenId> joined(std::vector<TokenId> a, const std::vector<TokenId>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

using Replies = std::map<RequestId, Result<Reply>>;

inline void take(std::vector<Completion>& finished, Replies& replies) {
  for (Completion& completion : finished) {
    EXPECT_TRUE(replies.emplace(completion.id, std::move(completion.reply)).second)
        << "request " << completion.id << " was completed twice";
  }
  finished.clear();
}

inline Replies run_all(Engine& engine) {
  Replies replies;
  std::vector<Completion> finished;
  bool more = true;
  while (more) {
    more = engine.step(finished);
    take(finished, replies);
  }
  return replies;
}

inline void expect_nothing_held(Engine& engine) {
  EXPECT_EQ(engine.scheduler().n_waiting(), 0U);
  EXPECT_EQ(engine.scheduler().n_running(), 0U);
  EXPECT_EQ(engine.tree().available_panels(), engine.pool().capacity());
  EXPECT_EQ(engine.tree().node(0).users, 0U);
  engine.tree().check_integrity();
}

inline void expect_same(const Sample& found, const Sample& want, const std::string& what) {
  EXPECT_EQ(found.tokens, want.tokens) << what;
  EXPECT_EQ(found.logprobs, want.logprobs) << what;  // bit-equal
  EXPECT_EQ(found.text, want.text) << what;
  EXPECT_EQ(found.finish, want.finish) << what;
  EXPECT_EQ(found.note, want.note) << what;
}

// Of an answer that was cancelled: what there is of it is what `want` begins with.
inline void expect_beginning(const Sample& found, Sample want) {
  ASSERT_LE(found.tokens.size(), want.tokens.size());
  want.tokens.resize(found.tokens.size());
  want.logprobs.resize(found.logprobs.size());
  EXPECT_EQ(found.tokens, want.tokens);
  EXPECT_EQ(found.logprobs, want.logprobs);
}

inline Reply alone(const EngineOptions& options, const Request& request) {
  return *open(options)->generate(request);
}

}  // namespace banyan
