// SPDX-License-Identifier: Apache-2.0
// No allocation in the decode loop after warm-up, counted at the C++ and the C door.
#include <atomic>
#include <cstdlib>
#include <new>

#include "support.h"

namespace {
std::atomic<int64_t> allocations{0};
}  // namespace

// Replaces the global ones for this program; GCC takes the pair for mismatched when it inlines one.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
void* operator new(size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* p = std::malloc(size)) return p;
  throw std::bad_alloc();
}
void* operator new(size_t size, std::align_val_t align) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  const auto a = static_cast<size_t>(align);
  if (void* p = std::aligned_alloc(a, (size + a - 1) / a * a)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { std::free(p); }

namespace banyan {
namespace {

void expect_no_allocation(const EngineOptions& options) {
  const auto engine = open_or_fail(options);
  ASSERT_NE(engine, nullptr);
  Request request;
  for (TokenId token = 10; token < 200; ++token) request.prompt.push_back(token);
  request.max_tokens = 120;
  request.ignore_eos = true;
  request.sampler.seed = 5;
  int calls = 0;
  int64_t warm = 0;
  int64_t last = 0;
  auto count = [&](TokenId, const std::string&) {
    last = allocations.load();
    if (++calls == 20) warm = last;
    return true;
  };
  const FunctionRef<bool(TokenId, const std::string&)> on_token = count;
  const auto reply = engine->generate(request, {&on_token, nullptr});
  ASSERT_TRUE(reply.has_value()) << reply.error().message;
  ASSERT_EQ(reply->tokens.size(), 120U);
  ASSERT_GT(calls, 40);
  EXPECT_EQ(last - warm, 0) << "allocations in " << calls - 20 << " steps";
}

TEST(Allocation, NoneWhileTheTinyModelDecodes) {
  expect_no_allocation(exact_options(test_data("golden/llama/model.gguf")));
}

TEST(Allocation, NoneWhileTheDefaultModelDecodes) {
  const std::string model = default_model();
  if (model.empty()) GTEST_SKIP() << "the default model is not on this machine";
  EngineOptions options;
  options.model_path = model;
  options.n_threads = 2;
  options.kv_budget_bytes = uint64_t{256} << 20;
  options.isa = test_isa();
  expect_no_allocation(options);
}

}  // namespace
}  // namespace banyan
