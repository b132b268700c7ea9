// SPDX-License-Identifier: Apache-2.0
#include "files/tree_trace_file.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "base/testing_temp_folder.h"

namespace banyan {
namespace {

const std::string kTrees =
    R"({"format": "treetrace-1", "kind": "tree", "name": "n", "source": "s", "trees": [)"
    R"({"rec": 7, "prompt": 16, "parent": [0, 0, 1], "len": [3, 0, 2]}, )"
    R"({"prompt": 134217728, "parent": [], "len": []}]})";
const std::string kForest =
    R"({"format": "treetrace-1", "kind": "forest", "arrive": [134217728, 2], "trees": [)"
    R"({"prompt": 16, "parent": [0, 0, 1], "len": [3, 0, 2]}, )"
    R"({"prompt": 5, "parent": [0], "len": [1]}]})";
const std::string kFan =
    R"({"format": "treetrace-1", "kind": "fan", "prompt": 4000, "width": 3, "steps": 399})";
const std::string kSpec =
    R"({"format": "treetrace-1", "kind": "spec", "topologies": {"1": [], "5": [0, 0, 2, 1]}, )"
    R"("records": [{"name": "a", "prompt": 9, "accept": [1, 0]}, {"accept": []}]})";

TreeTrace read(const std::string& text) {
  const auto trace = read_tree_trace(text, "f");
  EXPECT_TRUE(trace) << trace.error().message;
  return trace ? *trace : TreeTrace();
}

using Nodes = std::vector<uint32_t>;
using Lengths = std::vector<int32_t>;

TEST(TreeTraceFile, ReadsTrees) {
  const TreeTrace trace = read(kTrees);
  ASSERT_EQ(trace.trees.size(), 2U);
  EXPECT_EQ(trace.trees[0].prompt, 16);
  EXPECT_EQ(trace.trees[0].parent, (Nodes{0, 0, 1}));
  EXPECT_EQ(trace.trees[0].len, (Lengths{3, 0, 2}));
  EXPECT_EQ(trace.trees[1].prompt, kMostTreeTokens);
  EXPECT_TRUE(trace.trees[1].len.empty());
  EXPECT_TRUE(trace.topologies.empty());
}

TEST(TreeTraceFile, AFanIsATreeOfLeaves) {
  const TreeTrace trace = read(kFan);
  ASSERT_EQ(trace.trees.size(), 1U);
  EXPECT_EQ(trace.trees[0].prompt, 4000);
  EXPECT_EQ(trace.trees[0].parent, Nodes(3, 0));
  EXPECT_EQ(trace.trees[0].len, Lengths(3, 399));
}

TEST(TreeTraceFile, TreesOfAForestArrive) {
  const TreeTrace trace = read(kForest);
  EXPECT_TRUE(trace.is_forest);
  ASSERT_EQ(trace.trees.size(), 2U);
  EXPECT_EQ(trace.trees[0].arrive, 134217728);
  EXPECT_EQ(trace.trees[0].parent, (Nodes{0, 0, 1}));
  EXPECT_EQ(trace.trees[1].arrive, 2);
  EXPECT_EQ(trace.trees[1].prompt, 5);

  const TreeTrace at_once =
      read(R"({"format": "treetrace-1", "kind": "forest", "trees": [{"prompt": 5, "parent": [], )"
           R"("len": []}]})");
  EXPECT_TRUE(at_once.is_forest);
  EXPECT_EQ(at_once.trees[0].arrive, 0);
  EXPECT_FALSE(read(kTrees).is_forest);
}

TEST(TreeTraceFile, ReadsDrafts) {
  const TreeTrace trace = read(kSpec);
  EXPECT_TRUE(trace.trees.empty());
  EXPECT_EQ(trace.topologies, (std::map<uint32_t, Nodes>{{1, {}}, {5, {0, 0, 2, 1}}}));
  ASSERT_EQ(trace.records.size(), 2U);
  EXPECT_EQ(trace.records[0].prompt, 9);
  EXPECT_EQ(trace.records[0].accept, (Lengths{1, 0}));
  EXPECT_EQ(trace.records[1].prompt, 0);
}

TEST(TreeTraceFile, SaysWhatIsWrongAndWhere) {
  const auto tree = [](const std::string& parent, const std::string& len,
                       const std::string& prompt = "16") {
    return fmt::format(
        R"({{"format": "treetrace-1", "kind": "tree", "trees": [{{"prompt": 1, "parent": [], )"
        R"("len": []}}, {{"prompt": {}, "parent": {}, "len": {}}}]}})",
        prompt, parent, len);
  };
  const auto fan = [](const std::string& prompt, const std::string& width,
                      const std::string& steps) {
    return fmt::format(
        R"({{"format": "treetrace-1", "kind": "fan", "prompt": {}, "width": {}, "steps": {}}})",
        prompt, width, steps);
  };
  const auto spec = [](const std::string& topologies, const std::string& record) {
    return fmt::format(
        R"({{"format": "treetrace-1", "kind": "spec", "topologies": {}, "records": [{}]}})",
        topologies, record);
  };
  const auto forest = [](const std::string& arrive) {
    return fmt::format(
        R"({{"format": "treetrace-1", "kind": "forest", "arrive": {}, "trees": [{{"prompt": 1, )"
        R"("parent": [], "len": []}}, {{"prompt": 2, "parent": [0], "len": [1]}}]}})",
        arrive);
  };
  const std::string two = R"({"4": [0, 1, 0], "3": [0, 1]})";  // both three tokens deep
  ASSERT_EQ(read(tree("[0, 0]", "[1, 2]")).trees.size(), 2U);
  ASSERT_EQ(read(fan("1", "65536", "1")).trees[0].len.size(), 65536U);
  ASSERT_EQ(read(spec(two, R"({"accept": [3]})")).records.size(), 1U);
  const struct {
    std::string text;
    const char* sentence;
  } cases[] = {
      {tree("[2, 1]", "[3, 3]"), "tree 1: node 1: parent is 2, expected an integer from 0 to 0"},
      {tree("[0, 2]", "[3, 3]"), "tree 1: node 2: parent is 2, expected an integer from 0 to 1"},
      {tree("[0, 9]", "[1, 1]"), "tree 1: node 2: parent is 9"},
      {tree("[0, -1]", "[1, 1]"), "tree 1: node 2: parent is -1"},
      {tree("[0, null]", "[1, 1]"), "tree 1: node 2: parent is null"},
      {tree("[0, 0]", "[1]"), "tree 1: parent has 2 entries and len 1, expected one for each"},
      {tree("[0]", "[1, 1]"), "tree 1: parent has 1 entries and len 2"},
      {tree("7", "[1, 1]"), "tree 1: parent has 0 entries and len 2"},
      {tree("{}", "{}"), "tree 1: parent has 0 entries and len 0"},
      {tree("[0]", "[-4]"), "tree 1: node 1: len is -4, expected an integer from 0 to 134217728"},
      {tree("[0]", "[1.5]"), "tree 1: node 1: len is 1.5"},
      {tree("[0]", "[\"\\u001b[2J\"]"), "tree 1: node 1: len is \"\\u001b"},
      {tree("[0]", "[[1]]"), "tree 1: node 1: len is array"},
      {tree("[0]", "[9223372036854775807]"), "tree 1: node 1: len is 92"},
      {tree("[0]", "[18446744073709551615]"), "tree 1: node 1: len is 18"},
      {tree("[0]", "[134217713]"), "tree 1: it has more than 134217728 tokens"},
      {tree("[0, 0]", "[134217711, 2]"), "tree 1: it has more than 134217728 tokens"},
      {tree("[0, 1]", "[0, 2]"), "tree 1: node 2: it comes from node 1, whose len is 0"},
      {tree("[0]", "[1]", "0"), "tree 1: prompt is 0, expected an integer from 1"},
      {tree("[0]", "[1]", "null"), "tree 1: prompt is null"},
      {tree("[0]", "[1]", "134217729"), "tree 1: prompt is 134217729"},
      {R"({"format": "treetrace-1", "kind": "tree", "trees": [3]})", "tree 0: prompt is null"},
      {R"({"format": "treetrace-1", "kind": "tree", "trees": []})", "it has no \"trees\""},
      {R"({"format": "treetrace-1", "kind": "tree"})", "it has no \"trees\""},
      {fan("0", "1", "1"), "prompt is 0"},
      {fan("1", "0", "1"), "width is 0"},
      {fan("1", "65537", "1"), "width is 65537"},
      {fan("1", "1", "0"), "steps is 0"},
      {fan("1", "65536", "65536"), "it has more than 134217728 tokens"},
      {spec("{}", "{}"), "it has no \"topologies\""},
      {spec("[]", "{}"), "it has no \"topologies\""},
      {spec(R"({"4": [0, 1]})", R"({"accept": []})"), "topology 4: it has 2 parents, expected"},
      {spec(R"({"0": []})", R"({"accept": []})"), "topology 0: it has 0 parents"},
      {spec(R"({"x": [0]})", R"({"accept": []})"), "topology x: it has 1 parents"},
      {spec(R"({"3": [0, 2]})", R"({"accept": []})"), "topology 3: node 2: parent is 2"},
      {spec(two, R"({"accept": [3, 4]})"),
       "record 0: step 1: accept is 4, expected an integer fro"},
      {spec(two, R"({"accept": [-1]})"), "record 0: step 0: accept is -1"},
      {spec(two, R"({"prompt": 0, "accept": [1]})"), "record 0: prompt is 0"},
      {spec(two, R"({"prompt": 134217726, "accept": [3]})"), "record 0: it has more than 1342177"},
      {spec(two, R"({"prompt": 1})"), "record 0: it has no \"accept\""},
      {spec(two, ""), "it has no \"records\""},
      {forest("[0]"), "arrive has 1 entries, expected one for each of the 2 trees"},
      {forest("[0, 0, 0]"), "arrive has 3 entries, expected one for each of the 2 trees"},
      {forest("{}"), "arrive has 0 entries"},
      {forest("[0, -1]"), "tree 1: arrive is -1, expected an integer from 0 to 134217728"},
      {forest("[1.5, 0]"), "tree 0: arrive is 1.5"},
      {forest("[0, 134217729]"), "tree 1: arrive is 134217729"},
      {R"({"format": "treetrace-1", "kind": "forest"})", "it has no \"trees\""},
      {R"({"format": "treetrace-1", "kind": "wood"})",
       "its kind is \"wood\", expected tree, forest"},
      {R"({"format": "treetrace-2", "kind": "tree"})", "its format is \"treetrace-2\", expected"},
      {"[]", "its format is \"\""},
      {"{", "it is not valid JSON"},
      {"", "it is not valid JSON"},
  };
  for (const auto& [text, sentence] : cases) {
    const auto trace = read_tree_trace(text, "some/trace");
    ASSERT_FALSE(trace) << text;
    EXPECT_EQ(trace.error().code, ErrorCode::kBadInput);
    const std::string& said = trace.error().message;
    EXPECT_EQ(said.find("some/trace: "), 0U) << said;
    EXPECT_NE(said.find(sentence), std::string::npos) << said << "\nexpected " << sentence;
    EXPECT_LT(said.size(), 200U);
  }
}

TEST(TreeTraceFile, DamagedTracesAreReadOrRefused) {
  std::mt19937 random(5);
  for (const std::string& whole : {kTrees, kForest, kFan, kSpec}) {
    for (int trial = 0; trial < 3000; ++trial) {
      std::string text = whole;
      for (int i = 0; i < 2; ++i) text[random() % text.size()] = static_cast<char>(random() % 128);
      const auto trace = read_tree_trace(text, "f");
      if (!trace) {
        EXPECT_EQ(trace.error().code, ErrorCode::kBadInput);
        continue;
      }
      for (const TraceTree& tree : trace->trees) {
        EXPECT_EQ(tree.parent.size(), tree.len.size());
        for (size_t i = 0; i < tree.parent.size(); ++i) EXPECT_LE(tree.parent[i], i);
        EXPECT_GE(tree.arrive, 0);
      }
      EXPECT_EQ(trace->trees.empty(), !trace->topologies.empty());
      EXPECT_EQ(trace->records.empty(), trace->topologies.empty());
    }
  }
}

// What a few lines of Python count in the published files.
TEST(TreeTraceFile, ReadsThePublishedTracesWhole) {
  const std::string folder = BANYAN_SHARED_DATA "/traces/";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not on this machine";
  const struct {
    const char* path;
    size_t trees, nodes;
    int64_t prompt_tokens, node_tokens;
  } cases[] = {
      {"sorting128ToT.trace.json", 77, 7700, 85008, 2859938},
      {"keywordToT.trace.json", 98, 5880, 139021, 460029},
  };
  for (const auto& want : cases) {
    const auto trace = open_tree_trace(folder + want.path);
    ASSERT_TRUE(trace) << trace.error().message;
    EXPECT_EQ(trace->trees.size(), want.trees);
    size_t nodes = 0;
    int64_t prompt_tokens = 0;
    int64_t node_tokens = 0;
    for (const TraceTree& tree : trace->trees) {
      nodes += tree.len.size();
      prompt_tokens += tree.prompt;
      node_tokens += std::accumulate(tree.len.begin(), tree.len.end(), int64_t{0});
    }
    EXPECT_EQ(nodes, want.nodes);
    EXPECT_EQ(prompt_tokens, want.prompt_tokens);
    EXPECT_EQ(node_tokens, want.node_tokens);
  }
  const auto spec = open_tree_trace(folder + "spec.trace.json");
  ASSERT_TRUE(spec) << spec.error().message;
  std::vector<uint32_t> sizes;
  for (const auto& [size, parents] : spec->topologies) sizes.push_back(size);
  EXPECT_EQ(sizes, (Nodes{32, 64, 96, 128, 256}));
  ASSERT_EQ(spec->records.size(), 81U);
  const SpecRecord& first = spec->records[0];
  EXPECT_EQ(first.prompt, 1016);
  EXPECT_EQ(first.accept.size(), 401U);
  EXPECT_EQ(std::accumulate(first.accept.begin(), first.accept.end(), 0), 1738);
}

TEST(TreeTraceFile, NamesTheFile) {
  const TempFolder folder;
  EXPECT_TRUE(open_tree_trace(folder.write("a.json", kFan)));
  for (const std::string& path :
       {folder.write("empty", ""), (folder.path() / "none").string(), folder.write("b", "{}")}) {
    const auto refused = open_tree_trace(path);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kBadInput);
    EXPECT_NE(refused.error().message.find(path), std::string::npos) << refused.error().message;
  }
}

}  // namespace
}  // namespace banyan
