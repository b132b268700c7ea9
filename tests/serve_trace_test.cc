// SPDX-License-Identifier: Apache-2.0
// `banyan bench serve-trace` as its user meets it: a trace or a rate in, rows out.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/testing_temp_folder.h"
#include "shell.h"
#include "support.h"

namespace banyan {
namespace {

using nlohmann::json;

class ServeTrace : public testing::Test {
 protected:
  int bench(const std::string& arguments) const {
    const std::string line = fmt::format(
        "BANYAN_PATHS=default {} bench serve-trace {} -m {} --kv-budget 16MiB >{} 2>{} </dev/null",
        BANYAN_PROGRAM, arguments, test_data("golden/llama/model.gguf"), path("out"), path("err"));
    return run_shell(line);
  }
  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }
  std::string said() const { return read_file(path("err")); }
  std::string printed() const { return read_file(path("out")); }

  std::vector<json> rows() const {
    std::vector<json> found;
    std::ifstream file(path("out"));
    for (std::string line; std::getline(file, line);) found.push_back(json::parse(line));
    return found;
  }

  void expect_refused(const std::string& arguments, const std::string& place) const {
    EXPECT_EQ(bench(arguments + " --json"), 2) << arguments << "\n" << said();
    const std::string err = said();
    const size_t at = err.find("banyan: error: ");
    ASSERT_NE(at, std::string::npos) << arguments << "\n" << err;
    EXPECT_NE(err.find(place, at), std::string::npos) << err;
    EXPECT_EQ(err.find('\n', at), err.size() - 1) << "one sentence: " << err;
    EXPECT_EQ(printed(), "");
  }

  static void expect_columns(const json& row) {
    for (const char* key : {"requests", "hit_rate", "normalized_ms", "rps", "kv_bytes_peak",
                            "batch_peak", "offered_rps", "refused", "failed"}) {
      EXPECT_TRUE(row[key].is_number()) << key;
    }
    for (const char* key : {"ttft_ms", "tpot_ms"}) {
      for (const char* part : {"mean", "p50", "p99"}) {
        EXPECT_TRUE(row[key][part].is_number()) << key;
      }
      EXPECT_LE(row[key]["p50"], row[key]["p99"]);
    }
  }

  const TempFolder folder_;
};

std::string mooncake(int ms, int tokens, int answer, const std::string& ids) {
  return fmt::format(
      R"({{"timestamp": {}, "input_length": {}, "output_length": {}, "hash_ids": [{}]}})"
      "\n",
      ms, tokens, answer, ids);
}

TEST_F(ServeTrace, ReplaysMooncakesTraceWithAndWithoutRetention) {
  folder_.write("trace", mooncake(0, 1024, 80, "0, 1") + mooncake(0, 1000, 80, "0, 2") +
                             mooncake(60'000, 1536, 160, "0, 1, 3"));
  // One after another; 51 tokens of a block.
  const std::string command = path("trace") + " --scale 0.1 --speed 1000 --concurrency 1 ";
  ASSERT_EQ(bench(command + "--retention on,off --json"), 0) << said();
  const auto found = rows();
  ASSERT_EQ(found.size(), 2U);
  for (const json& row : found) {
    expect_columns(row);
    EXPECT_EQ(row["requests"], 3);
    EXPECT_EQ(row["prompt_tokens"], 102 + 100 + 154);
    EXPECT_EQ(row["completion_tokens"], 8 + 8 + 16);
    EXPECT_EQ(row["refused"], 0);
    EXPECT_EQ(row["batch_peak"], 1);
    EXPECT_NEAR(row["offered_rps"].get<double>(), 2 / 0.06, 1e-9);
    EXPECT_DOUBLE_EQ(row["hit_rate"].get<double>(), row["cached_tokens"].get<double>() / 356);
  }
  EXPECT_EQ(found[0]["retention"], "on");
  EXPECT_EQ(found[1]["retention"], "off");
  EXPECT_GE(found[0]["cached_tokens"], 51 + 102);
  EXPECT_LE(found[0]["cached_tokens"], 51 + 102 + 2) << "but for chance";
  EXPECT_EQ(found[1]["cached_tokens"], 0);
  EXPECT_LT(found[1]["kv_bytes_peak"], found[0]["kv_bytes_peak"]);

  ASSERT_EQ(bench(command + "--requests 2 --retention off"), 0);
  EXPECT_NE(printed().find("retention"), std::string::npos);
  EXPECT_NE(printed().find("off"), std::string::npos);
}

TEST_F(ServeTrace, ReplaysAzuresTraceWhichSharesNothing) {
  folder_.write("trace",
                "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
                "2023-11-16 18:15:46.6805900,300,44\r\n"
                "2023-11-16 18:15:50.9951690,300,10\r\n"
                "2023-11-16 18:15:51.2224670,5000,5\r\n");
  ASSERT_EQ(bench(path("trace") + " --speed 1000 --json"), 0) << said();
  const auto found = rows();
  ASSERT_EQ(found.size(), 1U);
  expect_columns(found[0]);
  EXPECT_EQ(found[0]["requests"], 2);
  EXPECT_EQ(found[0]["refused"], 1);
  EXPECT_LE(found[0]["cached_tokens"], 2) << "but for chance";
  EXPECT_EQ(found[0]["completion_tokens"], 54);
  EXPECT_NE(said().find("1 of 3 requests do not fit the context of 4096"), std::string::npos);
}

TEST_F(ServeTrace, RandomArrivalsShareWhatIsAskedFor) {
  ASSERT_EQ(bench("--poisson 200,400 --prompt 64 --shared 48 --gen 4 --requests 20 --json"), 0)
      << said();
  const auto found = rows();
  ASSERT_EQ(found.size(), 2U);
  for (const json& row : found) {
    expect_columns(row);
    EXPECT_EQ(row["requests"], 20);
    EXPECT_GE(row["cached_tokens"], 19 * 48);
    EXPECT_LE(row["cached_tokens"], 19 * 48 + 4) << "but for chance";
  }
  EXPECT_EQ(found[0]["offered_rps"], 200.0);
  EXPECT_EQ(found[1]["offered_rps"], 400.0);
}

TEST_F(ServeTrace, SearchesTheHighestRateUnderABound) {
  // No machine is so slow or fast that these bounds would not decide.
  ASSERT_EQ(bench("--poisson 1e6 --max-latency 1e9 --prompt 8 --gen 2 --requests 3 --json"), 0);
  auto found = rows();
  ASSERT_EQ(found.size(), 12U) << "it fits each time, and the result";
  EXPECT_EQ(found.back()["max_rps"], 1024e6);
  ASSERT_EQ(bench("--poisson 1e9 --max-latency 1e-9 --prompt 8 --gen 2 --requests 3 --json "
                  "--retention off"),
            0);
  found = rows();
  EXPECT_EQ(found.back(),
            json::parse(R"({"retention": "off", "max_latency_ms": 1e-9, "max_rps": 0.0})"));
}

TEST_F(ServeTrace, RefusesWhatIsWrong) {
  const std::string good = mooncake(5, 600, 3, "1, 2");
  folder_.write("good", good);
  const struct {
    std::string text;
    const char* place;
  } files[] = {
      {good + mooncake(4, 600, 3, "1, 2"), "line 2: its time is before"},
      {good + mooncake(6, 600, 3, "1"), "line 2: hash_ids has 1 entries, expected 2"},
      {good + mooncake(6, -600, 3, "1, 2"), "line 2: input_length is -600"},
      {good + R"({"timestamp": 6, "input_length": 4611686018427387904})", "line 2: input_length"},
      {good + "\n" + good, "line 2: it is empty"},
      {good + "{\"timestamp\": ", "line 2: it is not valid JSON"},
      {"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,0,1\n", "ContextTokens is"},
      {"something else\n", "Azure"},
      {good + std::string("\0\0", 2), "line 2: it is not valid JSON"},
  };
  for (const auto& [text, place] : files) {
    folder_.write("bad", text);
    expect_refused(path("bad"), place);
    EXPECT_NE(said().find(path("bad")), std::string::npos);
  }
  expect_refused(path("none"), path("none"));
  expect_refused("", "--poisson");
  expect_refused(path("good") + " --poisson 1", "--poisson");
  expect_refused(path("good") + " --prompt 5", "--poisson");
  for (const char* option :
       {"--scale 0", "--scale -1", "--scale nan", "--scale 1e9", "--speed 0", "--speed inf",
        "--requests -1", "--concurrency -1", "--retention maybe", "-c 10"}) {
    const std::string text = option;
    expect_refused(path("good") + " " + text, text.substr(0, text.find(' ')));
  }
  const std::string shape = " --prompt 10 --gen 2 --requests 2 ";
  for (const char* rate : {"0", "-1", "nan", "x", "1e10"}) {
    expect_refused(fmt::format("{}--poisson {}", shape, rate), "--poisson");
  }
  expect_refused("--poisson 1 --gen 2", "--prompt");
  expect_refused("--poisson 1 --prompt 2", "--gen");
  expect_refused("--poisson 1 --shared 11" + shape, "--shared is 11, expected 0 to 10");
  expect_refused("--poisson 1 --shared -1" + shape, "--shared");
  expect_refused("--poisson 1,2 --max-latency 5" + shape, "--max-latency");
  expect_refused("--poisson 1 --max-latency 0" + shape, "--max-latency");
}

}  // namespace
}  // namespace banyan
