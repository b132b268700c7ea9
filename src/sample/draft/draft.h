// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.h"

namespace banyan {

// What may come next: a tree of tokens, a parent before its children. Children of one token exclude
// each other, the likeliest candidate first.
struct Draft {
  static constexpr uint32_t kText = ~uint32_t{0};  // the parent of what follows the text itself

  std::vector<TokenId> tokens;
  std::vector<uint32_t> parent;  // of each: its place among the tokens, or kText
  std::vector<double> reach;     // of each: probability that it is right, and all above it
  std::vector<bool> on_chain;    // of each: the first candidate, and all above it

  size_t size() const { return tokens.size(); }
  bool empty() const { return tokens.empty(); }
  double reach_of(uint32_t token) const { return token == kText ? 1 : reach[token]; }

  void clear() {
    tokens.clear();
    parent.clear();
    reach.clear();
    on_chain.clear();
  }

  // Returns the token's place. `rate`: probability that it is right, given that its parent is;
  // those of children of one parent do not sum up to more than 1. `first`: no candidate of its
  // parent is likelier.
  uint32_t add(TokenId token, uint32_t under, double rate, bool first) {
    on_chain.push_back(first && (under == kText || on_chain[under]));
    reach.push_back(reach_of(under) * rate);
    parent.push_back(under);
    tokens.push_back(token);
    return static_cast<uint32_t>(tokens.size() - 1);
  }

  // The child of `under` (or kText) that is this token; kText if none is.
  uint32_t child(uint32_t under, TokenId token) const {
    for (size_t i = under == kText ? 0 : under + 1; i < size(); ++i) {
      if (parent[i] == under && tokens[i] == token) return static_cast<uint32_t>(i);
    }
    return kText;
  }

  // Drops all but `taken`, places that rise and hold the parents of all they hold.
  void keep(std::span<const uint32_t> taken) {
    for (uint32_t i = 0; i < taken.size(); ++i) {
      const uint32_t from = taken[i];
      uint32_t under = parent[from];
      if (under != kText) {  // where it is now
        under = static_cast<uint32_t>(std::ranges::lower_bound(taken, under) - taken.begin());
      }
      tokens[i] = tokens[from];
      parent[i] = under;
      reach[i] = reach[from];
      on_chain[i] = on_chain[from];
    }
    tokens.resize(taken.size());
    parent.resize(taken.size());
    reach.resize(taken.size());
    on_chain.resize(taken.size());
  }
};

}  // namespace banyan
