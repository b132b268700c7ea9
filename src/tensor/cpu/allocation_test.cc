// SPDX-License-Identifier: Apache-2.0
// Decoding allocates nothing: counted by replacing the global operator new of the test program.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "tensor/cpu/cpu_ops.h"
#include "tensor/cpu/testing_weights.h"

namespace {

std::atomic<int64_t> n_allocations{0};

void* counted(size_t size, size_t alignment) {
  n_allocations.fetch_add(1, std::memory_order_relaxed);
  const size_t whole = (size + alignment - 1) / alignment * alignment;
  void* p = std::aligned_alloc(alignment, whole == 0 ? alignment : whole);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

}  // namespace

void* operator new(size_t size) { return counted(size, alignof(std::max_align_t)); }
void* operator new[](size_t size) { return counted(size, alignof(std::max_align_t)); }
void* operator new(size_t size, std::align_val_t alignment) {
  return counted(size, static_cast<size_t>(alignment));
}
void* operator new[](size_t size, std::align_val_t alignment) {
  return counted(size, static_cast<size_t>(alignment));
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t, std::align_val_t) noexcept { std::free(p); }

namespace banyan {
namespace {

TEST(Allocations, ADecodeStepMakesNoneAfterTheFirst) {
  ThreadPool pool(2, init_worker_thread);
  for (const Compute compute : {Compute::kAuto, Compute::kF32}) {
    const auto ops = make_cpu_ops(pool, {compute, false, detect_isa()});
    for (const DType type : {DType::kQ4_1, DType::kQ8_0, DType::kF16, DType::kF32}) {
      const auto weight = testing::random_weight(type, 600, 512, 1);
      for (const int64_t rows : {1, 4}) {
        std::vector<float> x = testing::random_floats(rows * 512, 2);
        std::vector<float> out(rows * 600), sum(rows * 600);
        const std::vector<TokenId> tokens(rows, 7);
        const Matrix x_view{x.data(), rows, 512, 512};
        const LinearTarget targets[] = {{weight.view, {out.data(), rows, 600, 600}},
                                        {weight.view, {sum.data(), rows, 600, 600}, nullptr, true}};
        int64_t before = 0;
        for (int step = 0; step < 3; ++step) {
          before = n_allocations.load();
          ops->embed(weight.view, tokens, x_view);
          ops->linear(x_view, targets);
          ops->gated(Activation::kSilu, x_view, x_view, x_view);
        }
        EXPECT_EQ(n_allocations.load(), before) << testing::name_of(type) << ", rows: " << rows;
      }
    }
  }
}

TEST(Allocations, AreSeenByTheCounter) {
  const int64_t before = n_allocations.load();
  const AlignedArray<float> array(100);
  EXPECT_GT(n_allocations.load(), before);
}

}  // namespace
}  // namespace banyan
