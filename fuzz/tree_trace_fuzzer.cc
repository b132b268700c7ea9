// SPDX-License-Identifier: Apache-2.0
// Any bytes as the shape of a generation that branches: what is read can be replayed, the rest is
// refused. Seeds: seeds/tree_trace, one of each kind and what is wrong with others.

#include <cstddef>
#include <cstdint>

#include "files/tree_trace_file.h"
#include "readable.h"
#include "temp_files.h"

namespace banyan {
namespace {

void check_parents(const std::vector<uint32_t>& parent) {
  for (size_t i = 0; i < parent.size(); ++i) BANYAN_CHECK(parent[i] <= i, "parents come first");
}

}  // namespace
}  // namespace banyan

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace banyan;
  const auto trace = read_tree_trace(text_of(data, size), "f");
  if (!trace) {
    check_error(trace.error());
    return 0;
  }
  for (const TraceTree& tree : trace->trees) {
    check_parents(tree.parent);
    int64_t tokens = tree.prompt;
    for (size_t i = 0; i < tree.len.size(); ++i) {
      BANYAN_CHECK(tree.len[i] >= 0, "lengths are in range");
      const uint32_t above = tree.parent[i];
      BANYAN_CHECK(above == 0 || tree.len[above - 1] > 0, "parents are created");
      tokens += tree.len[i];
    }
    BANYAN_CHECK(tree.prompt > 0 && tokens <= kMostTreeTokens, "a tree is not too large");
    BANYAN_CHECK(tree.arrive >= 0 && tree.arrive <= kMostTreeTokens, "a tree arrives in time");
    BANYAN_CHECK(tree.arrive == 0 || trace->is_forest, "trees of forests arrive");
  }
  for (const auto& [tokens, parents] : trace->topologies) {
    BANYAN_CHECK(tokens == parents.size() + 1, "a topology is named by its tokens");
    check_parents(parents);
  }
  BANYAN_CHECK(trace->topologies.empty() == trace->records.empty(), "drafts are of a record");
  return 0;
}
