// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the journeys share: where models are, and an engine opened on one.

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "engine/engine.h"

namespace banyan {

inline std::string shared_data(const std::string& name) {
  return std::string(BANYAN_SHARED_DATA) + "/" + name;
}

inline std::string test_data(const std::string& name) {
  return std::string(BANYAN_TEST_DATA) + "/" + name;
}

// Where `make test` put the default model; empty if it is not there.
inline std::string default_model() {
  const char* cache = std::getenv("XDG_CACHE_HOME");  // NOLINT(concurrency-mt-unsafe)
  const char* home = std::getenv("HOME");             // NOLINT(concurrency-mt-unsafe)
  std::string folder = cache != nullptr && *cache != '\0' ? cache : "";
  if (folder.empty() && home != nullptr) folder = std::string(home) + "/.cache";
  const std::string path = folder + "/banyan/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  return std::filesystem::exists(path) ? path : "";
}

// The machine's instruction set, capped as the run of the tests asks for.
inline Isa test_isa() {
  const char* cap = std::getenv("BANYAN_ISA");  // NOLINT(concurrency-mt-unsafe)
  const auto parsed = parse_isa(cap == nullptr ? "" : cap);
  return parsed ? std::min(*parsed, detect_isa()) : detect_isa();
}

// Options that suit a test: two threads, everything exact, a small budget.
inline EngineOptions exact_options(const std::string& model) {
  EngineOptions options;
  options.model_path = model;
  options.n_threads = 2;
  options.kv_budget_bytes = uint64_t{64} << 20;
  options.k_type = DType::kF32;
  options.v_type = DType::kF32;
  options.compute = Compute::kF32;
  options.isa = test_isa();
  return options;
}

inline std::unique_ptr<Engine> open_or_fail(const EngineOptions& options) {
  auto engine = Engine::open(options);
  EXPECT_TRUE(engine.has_value()) << engine.error().message;
  return engine ? *std::move(engine) : nullptr;
}

}  // namespace banyan
