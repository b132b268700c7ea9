// SPDX-License-Identifier: Apache-2.0
#include "files/tree_trace_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/buffer.h"
#include "base/json.h"
#include "base/printable.h"
#include "files/integer_field.h"

namespace banyan {
namespace {

using nlohmann::json;

constexpr size_t kMostValues = 1 << 23;

// The field `name`, or null.
const json& field(const json& object, const char* name) {
  static const json kNull;
  const auto found = object.is_object() ? object.find(name) : object.end();
  return found == object.end() ? kNull : *found;
}

Result<int32_t> tokens_field(const json& object, const char* name, int32_t most) {
  const auto value = in_range(name, field(object, name), 1, most);
  if (!value) return value.error();
  return static_cast<int32_t>(*value);
}

Error in(const std::string& where, const Error& error) {
  return bad_input(fmt::format("{}: {}", where, error.message));
}

Result<void> check_tokens(int64_t tokens) {
  if (tokens <= kMostTreeTokens) return {};
  return bad_input(fmt::format("it has more than {} tokens", kMostTreeTokens));
}

// `parents` of nodes 1, 2, ...
Result<std::vector<uint32_t>> read_parents(const json& parents) {
  std::vector<uint32_t> parent;
  for (const json& entry : parents) {
    const size_t node = parent.size() + 1;
    const auto id = in_range("parent", entry, 0, static_cast<int64_t>(node) - 1);
    if (!id) return in(fmt::format("node {}", node), id.error());
    parent.push_back(static_cast<uint32_t>(*id));
  }
  return parent;
}

Result<TraceTree> read_tree(const json& from) {
  TraceTree tree;
  const auto prompt = tokens_field(from, "prompt", kMostTreeTokens);
  if (!prompt) return prompt.error();
  tree.prompt = *prompt;
  const json& parents = field(from, "parent");
  const json& lengths = field(from, "len");
  if (!parents.is_array() || !lengths.is_array() || parents.size() != lengths.size()) {
    const auto entries = [](const json& list) { return list.is_array() ? list.size() : 0; };
    return bad_input(
        fmt::format("parent has {} entries and len {}, expected one for each node in both",
                    entries(parents), entries(lengths)));
  }
  auto parent = read_parents(parents);
  if (!parent) return parent.error();
  tree.parent = *std::move(parent);
  int64_t tokens = tree.prompt;
  for (const json& entry : lengths) {
    const auto where = [&] { return fmt::format("node {}", tree.len.size() + 1); };
    const auto length = in_range("len", entry, 0, kMostTreeTokens);
    if (!length) return in(where(), length.error());
    const uint32_t above = tree.parent[tree.len.size()];
    if (above > 0 && tree.len[above - 1] == 0) {
      return bad_input(
          fmt::format("{}: it comes from node {}, whose len is 0, expected one that is created",
                      where(), above));
    }
    tree.len.push_back(static_cast<int32_t>(*length));
    tokens += *length;
    BANYAN_TRY(check_tokens(tokens));
  }
  return tree;
}

Result<void> read_trees(const json& from, TreeTrace& trace) {
  const json& trees = field(from, "trees");
  if (!trees.is_array() || trees.empty()) return bad_input("it has no \"trees\"");
  for (const json& entry : trees) {
    auto tree = read_tree(entry);
    if (!tree) return in(fmt::format("tree {}", trace.trees.size()), tree.error());
    trace.trees.push_back(*std::move(tree));
  }
  return {};
}

// When each of the trees begins to grow.
Result<void> read_arrivals(const json& from, TreeTrace& trace) {
  const json& arrive = field(from, "arrive");
  if (arrive.is_null()) return {};
  if (!arrive.is_array() || arrive.size() != trace.trees.size()) {
    return bad_input(fmt::format("arrive has {} entries, expected one for each of the {} trees",
                                 arrive.is_array() ? arrive.size() : 0, trace.trees.size()));
  }
  for (size_t i = 0; i < arrive.size(); ++i) {
    const auto step = in_range("arrive", arrive[i], 0, kMostTreeTokens);
    if (!step) return in(fmt::format("tree {}", i), step.error());
    trace.trees[i].arrive = static_cast<int32_t>(*step);
  }
  return {};
}

Result<void> read_fan(const json& from, TreeTrace& trace) {
  const auto prompt = tokens_field(from, "prompt", kMostTreeTokens);
  if (!prompt) return prompt.error();
  const auto width = tokens_field(from, "width", kMostTreeWidth);
  if (!width) return width.error();
  const auto steps = tokens_field(from, "steps", kMostTreeTokens);
  if (!steps) return steps.error();
  BANYAN_TRY(check_tokens(*prompt + int64_t{*width} * *steps));
  const auto n = static_cast<size_t>(*width);
  trace.trees.push_back({*prompt, std::vector<uint32_t>(n, 0), std::vector<int32_t>(n, *steps)});
  return {};
}

// Tokens of the longest path, the root with them.
int32_t longest_path(const std::vector<uint32_t>& parent) {
  std::vector<int32_t> tokens = {1};
  for (const uint32_t above : parent) tokens.push_back(tokens[above] + 1);
  return *std::ranges::max_element(tokens);
}

// Returns the number of tokens that every topology has a path of.
Result<int32_t> read_topologies(const json& from, TreeTrace& trace) {
  const json& topologies = field(from, "topologies");
  if (!topologies.is_object() || topologies.empty()) return bad_input("it has no \"topologies\"");
  int32_t accepted = kMostTreeWidth;
  for (const auto& [key, parents] : topologies.items()) {
    const auto wrong = [&key = key](const Error& error) {
      return in(fmt::format("topology {}", printable(key, 20)), error);
    };
    uint32_t size = 0;
    const auto [stop, error] = std::from_chars(key.data(), key.data() + key.size(), size);
    if (error != std::errc() || stop != key.data() + key.size() || size < 1 ||
        size > kMostTreeWidth || !parents.is_array() || parents.size() != size - 1) {
      return wrong(bad_input(fmt::format(
          "it has {} parents, expected to be named by its number of tokens, 1 to {}, and to have "
          "one less",
          parents.is_array() ? parents.size() : 0, kMostTreeWidth)));
    }
    auto parent = read_parents(parents);
    if (!parent) return wrong(parent.error());
    accepted = std::min(accepted, longest_path(*parent));
    trace.topologies[size] = *std::move(parent);
  }
  return accepted;
}

Result<SpecRecord> read_record(const json& from, int32_t most_accepted) {
  SpecRecord record;
  if (!field(from, "prompt").is_null()) {
    const auto prompt = tokens_field(from, "prompt", kMostTreeTokens);
    if (!prompt) return prompt.error();
    record.prompt = *prompt;
  }
  const json& accept = field(from, "accept");
  if (!accept.is_array()) return bad_input("it has no \"accept\"");
  int64_t tokens = record.prompt;
  for (const json& entry : accept) {
    const auto n = in_range("accept", entry, 0, most_accepted);
    if (!n) return in(fmt::format("step {}", record.accept.size()), n.error());
    record.accept.push_back(static_cast<int32_t>(*n));
    tokens += *n;
    BANYAN_TRY(check_tokens(tokens));
  }
  return record;
}

Result<void> read_spec(const json& from, TreeTrace& trace) {
  const auto most_accepted = read_topologies(from, trace);
  if (!most_accepted) return most_accepted.error();
  const json& records = field(from, "records");
  if (!records.is_array() || records.empty()) return bad_input("it has no \"records\"");
  for (const json& entry : records) {
    auto record = read_record(entry, *most_accepted);
    if (!record) return in(fmt::format("record {}", trace.records.size()), record.error());
    trace.records.push_back(*std::move(record));
  }
  return {};
}

Result<TreeTrace> read(std::string_view text) {
  const auto from = parse_json(text, kMostValues);
  if (!from) return from.error();
  const auto word = [&](const char* name) {
    const json& value = field(*from, name);
    return value.is_string() ? value.get<std::string>() : std::string();
  };
  if (word("format") != "treetrace-1") {
    return bad_input(
        fmt::format("its format is \"{}\", expected treetrace-1", printable(word("format"), 40)));
  }
  const std::string kind = word("kind");
  TreeTrace trace;
  if (kind == "tree") {
    BANYAN_TRY(read_trees(*from, trace));
  } else if (kind == "forest") {
    BANYAN_TRY(read_trees(*from, trace));
    BANYAN_TRY(read_arrivals(*from, trace));
    trace.is_forest = true;
  } else if (kind == "fan") {
    BANYAN_TRY(read_fan(*from, trace));
  } else if (kind == "spec") {
    BANYAN_TRY(read_spec(*from, trace));
  } else {
    return bad_input(
        fmt::format("its kind is \"{}\", expected tree, forest, fan or spec", printable(kind, 40)));
  }
  return trace;
}

}  // namespace

Result<TreeTrace> read_tree_trace(std::string_view text, const std::string& name) {
  auto trace = read(text);
  if (!trace) return in(name, trace.error());
  return trace;
}

Result<TreeTrace> open_tree_trace(const std::string& path) {
  const auto file = MappedFile::open(path);
  if (!file) return file.error();
  const auto bytes = file->bytes();
  return read_tree_trace({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path);
}

}  // namespace banyan
