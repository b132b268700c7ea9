// SPDX-License-Identifier: Apache-2.0
#pragma once
// An engine on a model of three small layers, and requests to it.

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <utility>

#include "engine/engine.h"

namespace banyan {

inline EngineOptions tiny_options() {
  EngineOptions options;
  options.model_path = std::string(BANYAN_TEST_DATA) + "/golden/llama/model.gguf";
  options.n_threads = 2;
  options.kv_budget_bytes = uint64_t{16} << 20;
  options.k_type = DType::kF32;
  options.v_type = DType::kF32;
  options.compute = Compute::kF32;
  options.deterministic = true;
  const char* cap = std::getenv("BANYAN_ISA");  // NOLINT(concurrency-mt-unsafe)
  const auto isa = parse_isa(cap == nullptr ? "" : cap);
  if (isa) options.isa = std::min(options.isa, *isa);
  return options;
}

inline std::unique_ptr<Engine> open(const EngineOptions& options = tiny_options()) {
  auto engine = Engine::open(options);
  EXPECT_TRUE(engine.has_value()) << engine.error().message;
  return engine ? *std::move(engine) : nullptr;
}

inline std::vector<TokenId> tokens_from(int first, int n) {
  std::vector<TokenId> tokens;
  for (int i = 0; i < n; ++i) tokens.push_back(3 + (first + i * 7) % 300);
  return tokens;
}

inline Request greedy(std::vector<TokenId> prompt, int max_tokens) {
  Request request;
  request.prompt = std::move(prompt);
  request.sampler.temperature = 0;
  request.max_tokens = max_tokens;
  request.ignore_eos = true;
  return request;
}

}  // namespace banyan
