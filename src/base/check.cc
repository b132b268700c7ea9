// SPDX-License-Identifier: Apache-2.0
#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace banyan {

void check_failed(const char* file, int line, const char* condition, const char* message) {
  std::fprintf(stderr, "banyan: internal error at %s:%d: %s (%s)\n", file, line, message,
               condition);
  std::abort();
}

}  // namespace banyan
