// SPDX-License-Identifier: Apache-2.0
#pragma once
// The one pool of workers. run() gives every worker (the caller is worker 0) the same function and
// returns when all are done: a fork and a barrier, nothing else. Workers spin for a short time,
// then park, so that a decode step pays no wake-up and an idle program no CPU.
//
// Thread rule: one caller at a time; run() must not be called from inside run().

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "base/function_ref.h"

namespace banyan {

class ThreadPool {
 public:
  // n_threads >= 1, the caller included; fewer if the system refuses more. `on_worker_start` runs
  // once on each thread that is started (to set per-thread state of libraries), not on the
  // caller's.
  explicit ThreadPool(int n_threads, void (*on_worker_start)() = nullptr);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return n_threads_; }

  // Calls f(worker) on every worker, worker in [0, size()). Everything written before is visible
  // to f, everything f wrote is visible after. f must not throw. No allocation.
  void run(FunctionRef<void(int worker)> f);

  // Calls f(begin, end, worker) for ranges that cover [0, n): each worker takes at most one
  // contiguous, non-empty range, borders at multiples of `grain` (>= 1). Which worker takes which
  // range depends on n, grain and size() only.
  void parallel_for(int64_t n, int64_t grain,
                    FunctionRef<void(int64_t begin, int64_t end, int worker)> f);

  // Number of physical cores this process may run on (affinity and cgroup quota respected), >= 1.
  static int physical_cores();

 private:
  void worker_loop(int worker);
  void await_generation_after(uint32_t seen);
  void await_workers();
  template <class Done>
  bool spin_until(Done done) const;

  // Constant after construction.
  int n_threads_ = 1;
  std::chrono::nanoseconds spin_{0};  // how long a waiting thread spins before it parks
  std::vector<std::thread> threads_;  // size n_threads_ - 1

  // Written by the caller before generation_, read by workers after it.
  const FunctionRef<void(int)>* job_ = nullptr;
  bool stop_ = false;

  // A thread that parks first says so, then looks again; one that wakes others first changes what
  // they wait for, then looks whether any said so. Sequentially consistent on both sides, so one of
  // the two sees the other. Each on its own cache line: they are polled while others write.
  alignas(64) std::atomic<uint32_t> generation_{0};  // bumped by run(); workers wait for a change
  alignas(64) std::atomic<int> pending_{0};          // workers still in the current job
  alignas(64) std::atomic<int> parked_{0};           // workers asleep on wake_
  std::atomic<bool> caller_parked_{false};           // the caller is asleep on done_
  std::mutex mutex_;                                 // guards sleeping only
  std::condition_variable wake_;
  std::condition_variable done_;
};

}  // namespace banyan
