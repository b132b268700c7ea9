// SPDX-License-Identifier: Apache-2.0
#pragma once
// Monotonic time.

#include <chrono>
#include <cstdint>

namespace banyan {

// Nanoseconds since some fixed moment; never goes back.
inline int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Milliseconds from one reading of now_ns() to another.
inline double ms_between(int64_t start_ns, int64_t end_ns) {
  return static_cast<double>(end_ns - start_ns) * 1e-6;
}

inline double ms_since(int64_t start_ns) { return ms_between(start_ns, now_ns()); }

}  // namespace banyan
