// SPDX-License-Identifier: Apache-2.0
#pragma once
// Checks of our own invariants. CHECK stays in release builds; DCHECK, for hot loops, does not.
// Bad input is never a check: it is an Error (base/result.h).

namespace banyan {

// Prints one line to stderr and aborts.
[[noreturn]] void check_failed(const char* file, int line, const char* condition,
                               const char* message);

}  // namespace banyan

#define BANYAN_CHECK(condition, message)               \
  (static_cast<bool>(condition) ? static_cast<void>(0) \
                                : ::banyan::check_failed(__FILE__, __LINE__, #condition, message))

#ifdef NDEBUG
#define BANYAN_DCHECK(condition, message) static_cast<void>(0)
#else
#define BANYAN_DCHECK(condition, message) BANYAN_CHECK(condition, message)
#endif
