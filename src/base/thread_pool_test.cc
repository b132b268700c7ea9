// SPDX-License-Identifier: Apache-2.0
#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <random>
#include <set>
#include <thread>
#include <vector>

namespace banyan {
namespace {

TEST(ThreadPool, EveryRunCallsEveryWorkerOnce) {
  for (int n_threads = 1; n_threads <= 8; ++n_threads) {
    ThreadPool pool(n_threads);
    ASSERT_EQ(pool.size(), n_threads);
    std::vector<int> calls(n_threads, 0);  // not atomic: run() itself must order the accesses
    for (int i = 1; i <= 3000; ++i) {
      pool.run([&](int worker) { ++calls[worker]; });
      ASSERT_EQ(calls, std::vector<int>(n_threads, i));
    }
  }
}

TEST(ThreadPool, WhatOneRunWroteTheNextRunsWorkersSee) {
  ThreadPool pool(4);
  std::vector<uint64_t> values(4, 1);
  std::vector<uint64_t> next(4, 0);
  uint64_t expected = 1;
  for (int i = 0; i < 2000; ++i) {
    pool.run([&](int worker) {
      next[worker] = std::accumulate(values.begin(), values.end(), uint64_t{0}) + 1;
    });
    std::swap(values, next);
    expected = 4 * expected + 1;
    for (const uint64_t value : values) ASSERT_EQ(value, expected);
  }
}

TEST(ThreadPool, WorkersThatParkedAreWoken) {
  ThreadPool pool(3);
  std::atomic<int> calls{0};
  for (int i = 0; i < 20; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    pool.run([&](int) { calls.fetch_add(1); });
  }
  EXPECT_EQ(calls.load(), 60);
}

TEST(ThreadPool, CallerThatParkedIsWoken) {
  ThreadPool pool(3);
  int last = -1;
  for (int i = 0; i < 20; ++i) {
    pool.run([&](int worker) {
      if (worker != 2) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      last = i;
    });
    ASSERT_EQ(last, i);
  }
}

TEST(ThreadPool, GapsOfAnyLengthBetweenRunsLoseNoWakeUp) {
  // Gaps around the time at which waiting threads park.
  ThreadPool pool(2);
  std::mt19937 random(1);
  int64_t sum = 0;
  for (int i = 0; i < 3000; ++i) {
    const auto wait = [until = std::chrono::steady_clock::now() +
                               std::chrono::nanoseconds(random() % 120'000)] {
      while (std::chrono::steady_clock::now() < until) {
      }
    };
    if (i % 2 == 0) wait();
    int64_t parts[2] = {};
    pool.run([&](int worker) {
      if (worker == 1 && i % 2 == 1) wait();
      parts[worker] = worker + i;
    });
    sum += parts[0] + parts[1];
  }
  EXPECT_EQ(sum, 3000 + 2999 * 3000);
}

TEST(ThreadPool, ParallelForCoversEveryIndexOnceInOneRangePerWorker) {
  for (int n_threads = 1; n_threads <= 8; ++n_threads) {
    ThreadPool pool(n_threads);
    for (const int64_t n : {0, 1, 2, 3, 7, 8, 15, 16, 17, 64, 100, 1000}) {
      for (const int64_t grain : {1, 2, 3, 7, 16, 64, 999, 1000, 1001}) {
        std::vector<int> visits(n, 0);
        std::vector<int> ranges(n_threads, 0);
        pool.parallel_for(n, grain, [&](int64_t begin, int64_t end, int worker) {
          ++ranges[worker];
          EXPECT_LT(begin, end);
          EXPECT_EQ(begin % grain, 0);
          EXPECT_TRUE(end == n || end % grain == 0);
          for (int64_t i = begin; i < end; ++i) ++visits[i];
        });
        ASSERT_EQ(visits, std::vector<int>(n, 1)) << n << " by " << grain;
        for (const int count : ranges) ASSERT_LE(count, 1);
      }
    }
  }
}

TEST(ThreadPool, ParallelForSharesGrainsEvenly) {
  ThreadPool pool(3);
  std::vector<int64_t> sizes(3, 0);
  pool.parallel_for(100, 10, [&](int64_t begin, int64_t end, int w) { sizes[w] = end - begin; });
  EXPECT_EQ(sizes, (std::vector<int64_t>{40, 30, 30}));
}

TEST(ThreadPool, ParallelForTakesTheLargestCounts) {
  ThreadPool pool(2);
  std::atomic<int64_t> covered{0};
  pool.parallel_for(INT64_MAX, INT64_MAX / 2,
                    [&](int64_t begin, int64_t end, int) { covered.fetch_add(end - begin); });
  EXPECT_EQ(covered.load(), INT64_MAX);
}

std::atomic<int> worker_starts{0};

TEST(ThreadPool, StartFunctionRunsOnceOnEachThreadThatIsStarted) {
  worker_starts = 0;
  {
    const ThreadPool pool(5, [] { worker_starts.fetch_add(1); });
  }
  EXPECT_EQ(worker_starts.load(), 4);
}

TEST(ThreadPool, WorkersAreDistinctThreadsAndTheCallerIsWorkerZero) {
  ThreadPool pool(4);
  std::vector<std::thread::id> ids(4);
  pool.run([&](int worker) { ids[worker] = std::this_thread::get_id(); });
  EXPECT_EQ(ids[0], std::this_thread::get_id());
  EXPECT_EQ(std::set(ids.begin(), ids.end()).size(), 4u);
}

TEST(ThreadPool, PhysicalCoresAreAtMostTheHardwareThreads) {
  const int cores = ThreadPool::physical_cores();
  EXPECT_GE(cores, 1);
  EXPECT_LE(cores, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace
}  // namespace banyan
