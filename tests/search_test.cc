// SPDX-License-Identifier: Apache-2.0
// `banyan search ..` as its user meets it.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>

#include "base/testing_temp_folder.h"
#include "shell.h"
#include "support.h"

namespace banyan {
namespace {

using nlohmann::json;

class SearchCommand : public testing::Test {
 protected:
  int search(const std::string& arguments) const {
    const std::string line = fmt::format(
        "BANYAN_PATHS=default {} search {} --raw -m {} --kv-budget 16MiB >{} 2>{} </dev/null",
        BANYAN_PROGRAM, arguments, test_data("golden/llama/model.gguf"), path("out"), path("err"));
    return run_shell(line);
  }
  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }
  std::string printed() const { return read_file(path("out")); }

  json found(const std::string& arguments) const {
    EXPECT_EQ(search(arguments + " --json"), 0) << arguments << "\n" << read_file(path("err"));
    return json::parse(printed());
  }
  void expect_refused(const std::string& arguments, const std::string& place) const {
    EXPECT_EQ(search(arguments + " --json"), 2) << arguments;
    const std::string err = read_file(path("err"));
    const size_t at = err.find("banyan: error: ");
    ASSERT_NE(at, std::string::npos) << arguments << "\n" << err;
    EXPECT_NE(err.find(place, at), std::string::npos) << err;
    EXPECT_EQ(err.find('\n', at), err.size() - 1) << "one sentence: " << err;
    EXPECT_EQ(printed(), "");
  }

  // Choices best first, facts of the KV, and a tree whose parents come before their children.
  static void expect_reply(const json& reply, size_t n_choices) {
    ASSERT_EQ(reply["choices"].size(), n_choices);
    for (size_t i = 0; i < n_choices; ++i) {
      const json& choice = reply["choices"][i];
      EXPECT_TRUE(choice["text"].is_string() && choice["tokens"].is_array());
      if (i > 0) {
        EXPECT_LE(choice["score"], reply["choices"][i - 1]["score"]);
      }
    }
    EXPECT_GT(reply["steps_per_second"], 0);
    EXPECT_GT(reply["kv"]["tokens"], 0);
    EXPECT_GE(reply["kv"]["path_tokens"], reply["kv"]["tokens"]);
    EXPECT_GE(reply["kv"]["bytes_peak"], reply["kv"]["bytes"]);
    EXPECT_EQ(reply["compute"], "auto");
    const json& nodes = reply["tree"]["nodes"];
    EXPECT_EQ(nodes[0]["parent"], nullptr);
    for (size_t i = 1; i < nodes.size(); ++i) EXPECT_LT(nodes[i]["parent"], i);
  }

  const TempFolder folder_;
};

TEST_F(SearchCommand, BeamsAreDistinctAndShareTheirPrompt) {
  const json reply = found("beam -p 'Once upon a time there was' --beams 5 -n 12 --ignore-eos");
  expect_reply(reply, 5);
  std::set<std::vector<int>> distinct;
  for (const json& choice : reply["choices"]) {
    EXPECT_EQ(choice["tokens"].size(), 12U);
    EXPECT_LT(choice["score"], 0);
    distinct.insert(choice["tokens"].get<std::vector<int>>());
  }
  EXPECT_EQ(distinct.size(), 5U);
  EXPECT_EQ(reply["timings"]["steps"], 11);
}

TEST_F(SearchCommand, SampledChoicesAreThoseOfRun) {
  const json reply = found("best-of -p 'Once upon' --beams 3 -n 10 --ignore-eos -s 7");
  expect_reply(reply, 3);
  const std::string line = fmt::format(
      "BANYAN_PATHS=default {} run --json --raw -p 'Once upon' --n 3 -n 10 --ignore-eos -s 7 -m {} "
      ">{} 2>/dev/null",
      BANYAN_PROGRAM, test_data("golden/llama/model.gguf"), path("run"));
  ASSERT_EQ(run_shell(line), 0);
  const json run = json::parse(read_file(path("run")));
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(reply["choices"][i]["tokens"], run["choices"][i]["tokens"]);
    EXPECT_EQ(reply["choices"][i]["text"], run["choices"][i]["text"]);
  }
  const json votes = found("best-of -p 'Once upon' --beams 3 -n 10 -s 7 --vote");
  EXPECT_NEAR(votes["choices"][0]["score"].get<double>() * 3, 1, 2);
}

TEST_F(SearchCommand, ThoughtsAndMonteCarloFindTexts) {
  expect_reply(found("tot -p 'Once upon' -n 6 --depth 2 --breadth 2 --branches 3 -s 1 "
                     "--question ' Good?' --answer ' Yes'"),
               2);
  const json played =
      found("mcts -p 'Once upon' -n 8 --iterations 4 --branches 2 --thought-tokens 4 -s 1");
  expect_reply(played, played["choices"].size());
  EXPECT_GE(played["choices"].size(), 4U);
}

TEST_F(SearchCommand, DrawsItsTree) {
  ASSERT_EQ(search("beam -p 'a <b> & c' --beams 3 -n 8 --svg " + path("tree.svg")), 0);
  const std::string text = printed();
  EXPECT_TRUE(text.starts_with("1. (-")) << text;
  EXPECT_NE(text.find("a <b> & c"), std::string::npos);
  EXPECT_NE(text.find("└─ -"), std::string::npos);
  const std::string svg = read_file(path("tree.svg"));
  EXPECT_TRUE(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
  EXPECT_NE(svg.find("a &lt;b&gt; &amp; c"), std::string::npos);
}

TEST_F(SearchCommand, RefusesWhatCannotBe) {
  expect_refused("beam", "no prompt");
  expect_refused("beam -p x --beams 0", "--beams is 0");
  expect_refused("beam -p x -n 0", "-n is 0");
  expect_refused("beam -p x --beams 4 --beam-groups 3", "--beam-groups is 3");
  expect_refused("beam -p x --early-stop soon", "--early-stop is \"soon\"");
  expect_refused("best-of -p x --temp -1", "--temp");
  expect_refused("best-of -p x --stop ''", "--stop is empty");
  expect_refused("tot -p x --depth 0", "depth is 0");
  expect_refused("tot -p x --question why", "--answer");
  expect_refused("mcts -p x --iterations 0", "iterations is 0");
  expect_refused("beam -p x --svg /no/such/folder/tree.svg -n 2", "/no/such/folder/tree.svg");
  expect_refused("beam -p x --spec all", "--spec is \"all\"");
  EXPECT_EQ(run_shell(fmt::format("{} search 2>{}", BANYAN_PROGRAM, path("err"))), 2);
  EXPECT_NE(read_file(path("err")).find("beam, best-of, tot, mcts"), std::string::npos);
}

TEST_F(SearchCommand, SaysThatItDraftsNothing) {
  const std::string line = "beam -p x -n 2 --spec lookup";
  ASSERT_EQ(search(line), 0);
  const std::string err = read_file(path("err"));
  const size_t at = err.find("warning: this command drafts nothing, so --spec lookup");
  ASSERT_NE(at, std::string::npos) << err;
  EXPECT_EQ(err.find("--spec", err.find('\n', at)), std::string::npos) << "once: " << err;
  ASSERT_EQ(search(line + " --log-level error"), 0);
  EXPECT_EQ(read_file(path("err")), "");
}

}  // namespace
}  // namespace banyan
