// SPDX-License-Identifier: Apache-2.0
#include "base/thread_pool.h"

#include <algorithm>
#include <cmath>
#include <system_error>

#include "base/cgroup.h"
#include "base/check.h"
#include "base/cpu_topology.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace banyan {
namespace {

// Long enough to cover the serial gap between two operations of a decode step, short enough that an
// idle program is soon asleep. A park and its wake-up cost 5 to 60 us, so spinning about that long
// at most doubles the cost of the worse choice.
constexpr std::chrono::microseconds kSpin{50};

// With more threads than CPUs, who spins keeps the one it waits for from running.
constexpr std::chrono::microseconds kSpinOversubscribed{1};

constexpr int kPausesPerClockRead = 16;

void cpu_pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// CPUs (hardware threads) that can run at once for this process.
int runnable_cpus() {
  const double quota = cgroup_cpu_quota().value_or(1e9);
  return static_cast<int>(std::min<double>(allowed_cpus().size(), std::max(1.0, std::ceil(quota))));
}

}  // namespace

ThreadPool::ThreadPool(int n_threads, void (*on_worker_start)()) {
  BANYAN_CHECK(n_threads >= 1, "a thread pool has at least its caller");
  spin_ = n_threads <= runnable_cpus() ? kSpin : kSpinOversubscribed;
  threads_.reserve(n_threads - 1);
  try {
    for (int worker = 1; worker < n_threads; ++worker) {
      threads_.emplace_back([this, worker, on_worker_start] {
        if (on_worker_start != nullptr) on_worker_start();
        worker_loop(worker);
      });
    }
  } catch (const std::system_error&) {
    // The system has no more threads to give: the pool is as large as it got.
  }
  n_threads_ = static_cast<int>(threads_.size()) + 1;
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  generation_.fetch_add(1);
  { const std::lock_guard lock(mutex_); }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::run(FunctionRef<void(int)> f) {
  if (n_threads_ == 1) return f(0);
  BANYAN_DCHECK(pending_.load() == 0, "run() was called while another run() is going on");
  job_ = &f;
  pending_.store(n_threads_ - 1, std::memory_order_relaxed);  // published by generation_
  generation_.fetch_add(1);
  if (parked_.load() > 0) {
    // Whoever counted itself into parked_ holds the mutex until it sleeps or has seen the change.
    { const std::lock_guard lock(mutex_); }
    wake_.notify_all();
  }
  f(0);
  await_workers();
}

void ThreadPool::parallel_for(int64_t n, int64_t grain,
                              FunctionRef<void(int64_t, int64_t, int)> f) {
  BANYAN_DCHECK(grain >= 1, "the grain of a parallel_for is at least 1");
  if (n <= 0) return;
  const int64_t n_grains = (n - 1) / grain + 1;
  if (n_grains == 1 || n_threads_ == 1) return f(0, n, 0);
  // The first `longer` workers take one grain more than the others.
  const int64_t each = n_grains / n_threads_;
  const int64_t longer = n_grains % n_threads_;
  run([&](int worker) {
    const int64_t first = worker * each + std::min<int64_t>(worker, longer);
    const int64_t last = first + each + (worker < longer ? 1 : 0);
    if (first == last) return;
    f(first * grain, last == n_grains ? n : last * grain, worker);
  });
}

int ThreadPool::physical_cores() {
  int cores = distinct_cores(allowed_cpus());
  if (const auto quota = cgroup_cpu_quota()) {
    cores = static_cast<int>(std::min<double>(cores, std::ceil(*quota)));
  }
  return std::max(cores, 1);
}

void ThreadPool::worker_loop(int worker) {
  uint32_t seen = 0;
  while (true) {
    await_generation_after(seen);
    ++seen;  // run() waits for every worker, so none can miss a generation
    if (stop_) return;
    (*job_)(worker);
    if (pending_.fetch_sub(1) == 1 && caller_parked_.load()) {
      { const std::lock_guard lock(mutex_); }
      done_.notify_one();
    }
  }
}

template <class Done>
bool ThreadPool::spin_until(Done done) const {
  if (done()) return true;
  const auto deadline = std::chrono::steady_clock::now() + spin_;
  do {
    for (int i = 0; i < kPausesPerClockRead; ++i) {
      if (done()) return true;
      cpu_pause();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  return done();
}

void ThreadPool::await_generation_after(uint32_t seen) {
  if (spin_until([&] { return generation_.load(std::memory_order_acquire) != seen; })) return;
  std::unique_lock lock(mutex_);
  parked_.fetch_add(1);
  wake_.wait(lock, [&] { return generation_.load() != seen; });
  parked_.fetch_sub(1);
}

void ThreadPool::await_workers() {
  if (spin_until([&] { return pending_.load(std::memory_order_acquire) == 0; })) return;
  std::unique_lock lock(mutex_);
  caller_parked_.store(true);
  done_.wait(lock, [&] { return pending_.load() == 0; });
  caller_parked_.store(false);
}

}  // namespace banyan
