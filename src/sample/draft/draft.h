// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "base/ids.h"

namespace banyan {

// What may come next, a chain of tokens.
struct Draft {
  std::vector<TokenId> tokens;
  std::vector<double> reach;  // for each: probability that it is right, and all before it; falls

  void clear() {
    tokens.clear();
    reach.clear();
  }
  void add(TokenId token, double rate) {
    reach.push_back(reach.empty() ? rate : reach.back() * rate);
    tokens.push_back(token);
  }
};

}  // namespace banyan
