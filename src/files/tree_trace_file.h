// SPDX-License-Identifier: Apache-2.0
#pragma once
// Recorded shapes of generations that branch, `treetrace-1`: which tokens come from which, not what
// they are. Read as a claim.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace banyan {

constexpr int32_t kMostTreeTokens = 1 << 27;  // of a tree, the prompt with them
constexpr int32_t kMostTreeWidth = 1 << 16;   // leaves of a fan, tokens of a topology

// Node 0 is the prompt. All leaves that live get a token in every step; a node that has all of its
// own is followed by its children, or is pruned where it has none.
struct TraceTree {
  int32_t prompt = 0;            // tokens, at least one
  std::vector<uint32_t> parent;  // of node i + 1: a node before it
  std::vector<int32_t> len;  // tokens of node i + 1; 0: it is never created, nor is a child of it
  int32_t arrive = 0;        // in a forest: the step after which it begins to grow
};

// How many tokens of a draft were accepted, step by step: its root and the path below that.
struct SpecRecord {
  int32_t prompt = 0;           // tokens; 0: the file does not say
  std::vector<int32_t> accept;  // at most the tokens of the longest path of any topology
};

struct TreeTrace {
  std::vector<TraceTree> trees;  // a fan is one tree
  bool is_forest = false;        // its trees grow side by side
  // Draft trees by their number of tokens: the parents of tokens 1, 2, ..; 0 is the root, which is
  // known, and a parent comes before its children.
  std::map<uint32_t, std::vector<uint32_t>> topologies;
  std::vector<SpecRecord> records;  // at least one where there are topologies
};

// The trace in `text`, which is a JSON object with "format": "treetrace-1" and a "kind":
//   tree    {"trees": [{"prompt": .., "parent": [..], "len": [..]}, ..]}
//   forest  the same, with "arrive": [step, ..] for each of the trees, or without: all at once
//   fan     {"prompt": .., "width": .., "steps": ..}: so many leaves of so many tokens
//   spec    {"topologies": {"SIZE": [parent of token 1, ..]}, "records": [{"prompt": .., "accept":
//           [..]}, ..]}
// kBadInput: "name: where: what". Memory is in proportion to the text and the width of a fan.
Result<TreeTrace> read_tree_trace(std::string_view text, const std::string& name);

// The same of a file. kBadInput also if it cannot be read.
Result<TreeTrace> open_tree_trace(const std::string& path);

}  // namespace banyan
