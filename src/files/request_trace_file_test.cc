// SPDX-License-Identifier: Apache-2.0
#include "files/request_trace_file.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "base/testing_temp_folder.h"

namespace banyan {
namespace {

constexpr const char* kMooncake =
    R"({"timestamp": 27000, "input_length": 1030, "output_length": 500, "hash_ids": [0, 1, 2]})"
    "\n"
    R"({"timestamp": 27000, "input_length": 512, "output_length": 1, "hash_ids": [0], "more": {}})"
    "\r\n"
    R"({"hash_ids": [9223372036854775807], "output_length": 16777216, "input_length": 1, )"
    R"("timestamp": 30001})"
    "\n";

constexpr const char* kAzure =
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2023-11-16 18:15:46.6805900,374,44\r\n"
    "2023-11-16 18:15:50.9951690,396,109\r\n"
    "2023-11-16 18:15:51,16777216,1\n"
    "2024-02-29 00:00:00.25,7,3";

std::vector<TraceRequest> read(const std::string& text) {
  const auto trace = read_request_trace(text, "f");
  EXPECT_TRUE(trace) << trace.error().message;
  return trace ? *trace : std::vector<TraceRequest>();
}

std::string refusal(const std::string& text) {
  const auto trace = read_request_trace(text, "some/trace");
  EXPECT_FALSE(trace) << text;
  if (trace) return "";
  EXPECT_EQ(trace.error().code, ErrorCode::kBadInput);
  return trace.error().message;
}

TEST(RequestTraceFile, ReadsMooncakesLines) {
  const std::vector<TraceRequest> want = {
      {0, 1030, 500, {0, 1, 2}}, {0, 512, 1, {0}}, {3001, 1, 16777216, {INT64_MAX}}};
  EXPECT_EQ(read(kMooncake), want);
}

TEST(RequestTraceFile, ReadsAzuresLines) {
  const auto trace = read(kAzure);
  ASSERT_EQ(trace.size(), 4U);
  // 16 November to 29 February: 105 days, less 18:15:46.68059.
  const double last_ms = (105 * 86400.0 - (18 * 3600 + 15 * 60 + 46)) * 1e3 - 680.59 + 250;
  const double arrival_ms[] = {0, 4314.579, 4319.41, last_ms};
  const int prompt[] = {374, 396, 16777216, 7};
  const int output[] = {44, 109, 1, 3};
  for (size_t i = 0; i < trace.size(); ++i) {
    EXPECT_NEAR(trace[i].arrival_ms, arrival_ms[i], 1e-3) << i;
    EXPECT_EQ(trace[i].prompt_tokens, prompt[i]);
    EXPECT_EQ(trace[i].output_tokens, output[i]);
    EXPECT_TRUE(trace[i].blocks.empty());
  }
}

TEST(RequestTraceFile, SaysWhatIsWrongAndOnWhichLine) {
  const auto mooncake = [](const char* timestamp, const char* input, const char* output,
                           const char* ids) {
    return kMooncake + std::string(R"({"timestamp": )") + timestamp + R"(, "input_length": )" +
           input + R"(, "output_length": )" + output + R"(, "hash_ids": )" + ids + "}\n";
  };
  ASSERT_EQ(read(mooncake("30001", "2", "3", "[4]")).size(), 4U);
  const auto azure = [](const std::string& line) { return std::string(kAzure) + "\n" + line; };
  ASSERT_EQ(read(azure("2024-02-29 23:59:59.123456789,1,1")).size(), 5U);
  const struct {
    std::string text;
    const char* sentence;
  } cases[] = {
      {mooncake("30000", "2", "3", "[4]"), "line 4: its time is before that of the line above"},
      {mooncake("-1", "2", "3", "[4]"), "line 4: timestamp is -1"},
      {mooncake("1e300", "2", "3", "[4]"), "line 4: timestamp is 1e+300"},
      {mooncake("9007199254740993", "2", "3", "[4]"), "line 4: timestamp is 9007199254740993"},
      {mooncake("30001", "0", "3", "[]"), "line 4: input_length is 0, expected an integer from 1"},
      {mooncake("30001", "-2", "3", "[4]"), "line 4: input_length is -2"},
      {mooncake("30001", "4611686018427387904", "3", "[4]"),
       "line 4: input_length is 4611686018427387904, expected an integer from 1 to 16777216"},
      {mooncake("30001", "18446744073709551615", "3", "[4]"), "line 4: input_length is 184467"},
      {mooncake("30001", "2.5", "3", "[4]"), "line 4: input_length is 2.5"},
      {mooncake("30001", "\"2\"", "3", "[4]"), "line 4: input_length is \"2\""},
      {mooncake("30001", "2", "null", "[4]"), "line 4: output_length is null"},
      {mooncake("30001", "2", "0", "[4]"), "line 4: output_length is 0"},
      {mooncake("30001", "513", "3", "[4]"), "line 4: hash_ids has 1 entries, expected 2"},
      {mooncake("30001", "512", "3", "[4, 5]"), "line 4: hash_ids has 2 entries, expected 1"},
      {mooncake("30001", "2", "3", "7"), "line 4: hash_ids has 0 entries"},
      {mooncake("30001", "2", "3", "[-4]"), "line 4: an entry of hash_ids is -4"},
      {mooncake("30001", "2", "3", "[9223372036854775808]"), "line 4: an entry of hash_ids is 92"},
      {mooncake("30001", "2", "3", "[\"\\u001b[2J\"]"),
       "line 4: an entry of hash_ids is \"\\u001b"},
      {kMooncake + std::string(R"({"timestamp": 30001, "output_length": 1, "hash_ids": []})"),
       "line 4: input_length is missing"},
      {kMooncake + std::string("{\"timestamp\": 30001, "), "line 4: it is not valid JSON"},
      {kMooncake + std::string("[]"), "line 4: it is no JSON object"},
      {kMooncake + std::string("\n"), "line 4: it is empty"},
      {kMooncake + ("{" + std::string(2 << 20, ' ') + "}"), "line 4: it has more than 1048576"},
      {R"({"timestamp": 1, "timestamp": 1})", "line 1: it has the key 'timestamp' twice"},
      {azure("2024-02-28 23:59:59.9999999,1,1"), "line 6: its time is before"},
      {azure("2024-02-30 00:00:00,1,1"), "line 6: TIMESTAMP is \"2024-02-30 00:00:00\""},
      {azure("2024-03-01 24:00:00,1,1"), "line 6: TIMESTAMP"},
      {azure("2024-03-01 00:60:00,1,1"), "line 6: TIMESTAMP"},
      {azure("2024-03-01 00:00:60,1,1"), "line 6: TIMESTAMP"},
      {azure("2024-03-01T00:00:00,1,1"), "line 6: TIMESTAMP"},
      {azure("2024-03-01 00:00:00.,1,1"), "line 6: TIMESTAMP"},
      {azure("2024-03-01 00:00:00.1234567890,1,1"), "line 6: TIMESTAMP"},
      {azure("2024-03-01 00:00:-1,1,1"), "line 6: TIMESTAMP"},
      {azure("2024-03-01 00:00,1,1"), "line 6: TIMESTAMP"},
      {azure("now,1,1"), "line 6: TIMESTAMP is \"now\""},
      {azure("2024-03-01 00:00:00,-1,1"), "line 6: ContextTokens is \"-1\""},
      {azure("2024-03-01 00:00:00,,1"), "line 6: ContextTokens is \"\""},
      {azure("2024-03-01 00:00:00,1,"), "line 6: GeneratedTokens is \"\""},
      {azure("2024-03-01 00:00:00,1, 1"), "line 6: GeneratedTokens is \" 1\""},
      {azure("2024-03-01 00:00:00,1,1,1"), "line 6: GeneratedTokens is \"1,1\""},
      {azure("2024-03-01 00:00:00,4611686018427387904,1"), "line 6: ContextTokens"},
      {azure("2024-03-01 00:00:00,1,99999999999999999999999"), "line 6: GeneratedTokens"},
      {azure("2024-03-01 00:00:00,1"), "line 6: it is \"2024-03-01 00:00:00,1\", expected"},
      {azure("\n"), "line 6: it is empty"},
      {"TIMESTAMP,ContextTokens,GeneratedTokens\n", "it has no request"},
      {"time,in,out\n", "line 1: it is \"time,in,out\", expected TIMESTAMP"},
      {"", "line 1: it is \"\""},
      {"\xff\x1b[2J", "line 1: it is \"\\xff\\x1b[2J\""},
  };
  for (const auto& [text, sentence] : cases) {
    const std::string said = refusal(text);
    EXPECT_EQ(said.find("some/trace: "), 0U) << said;
    EXPECT_NE(said.find(sentence), std::string::npos) << said << "\nexpected " << sentence;
    EXPECT_LT(said.size(), 300U);
  }
}

TEST(RequestTraceFile, DamagedTracesAreReadOrRefused) {
  std::mt19937 random(5);
  for (const std::string whole : {kMooncake, kAzure}) {
    for (int trial = 0; trial < 3000; ++trial) {
      std::string text = whole.substr(0, 1 + random() % whole.size());
      for (int i = 0; i < 2; ++i) text[random() % text.size()] = static_cast<char>(random() % 128);
      const auto trace = read_request_trace(text, "f");
      if (!trace) {
        EXPECT_EQ(trace.error().code, ErrorCode::kBadInput);
        continue;
      }
      double before_ms = 0;
      for (const TraceRequest& request : *trace) {
        EXPECT_GE(request.arrival_ms, before_ms);
        before_ms = request.arrival_ms;
        EXPECT_GE(std::min(request.prompt_tokens, request.output_tokens), 1);
      }
    }
  }
}

// What a few lines of Python count in the published files.
TEST(RequestTraceFile, ReadsThePublishedTracesWhole) {
  const struct {
    const char* path;
    size_t requests;
    int64_t prompt_tokens, output_tokens;
    double last_ms;
    size_t n_blocks, distinct_blocks;
  } cases[] = {
      {"mooncake/conversation_trace.jsonl", 12031, 144793823, 4122048, 3536999, 288500, 182790},
      {"azure/AzureLLMInferenceTrace_conv.csv", 19366, 22361870, 4088665, 3501721.937, 0, 0},
  };
  const std::string folder = BANYAN_SHARED_DATA "/traces/";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not on this machine";
  for (const auto& want : cases) {
    const auto trace = open_request_trace(folder + want.path);
    ASSERT_TRUE(trace) << trace.error().message;
    int64_t prompt_tokens = 0;
    int64_t output_tokens = 0;
    size_t n_blocks = 0;
    std::set<uint64_t> distinct;
    for (const TraceRequest& request : *trace) {
      prompt_tokens += request.prompt_tokens;
      output_tokens += request.output_tokens;
      n_blocks += request.blocks.size();
      distinct.insert(request.blocks.begin(), request.blocks.end());
    }
    EXPECT_EQ(trace->size(), want.requests);
    EXPECT_EQ(prompt_tokens, want.prompt_tokens);
    EXPECT_EQ(output_tokens, want.output_tokens);
    EXPECT_NEAR(trace->back().arrival_ms, want.last_ms, 1e-2);
    EXPECT_EQ(n_blocks, want.n_blocks);
    EXPECT_EQ(distinct.size(), want.distinct_blocks);
  }
}

TEST(RequestTraceFile, NamesTheFile) {
  const TempFolder folder;
  const auto trace = open_request_trace(folder.write("a.csv", kAzure));
  ASSERT_TRUE(trace);
  EXPECT_EQ(*trace, read(kAzure));
  for (const std::string& path : {folder.write("empty", ""), folder.path().string(),
                                  (folder.path() / "none").string(), folder.write("b", "x\n")}) {
    const auto refused = open_request_trace(path);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kBadInput);
    EXPECT_NE(refused.error().message.find(path), std::string::npos) << refused.error().message;
  }
}

}  // namespace
}  // namespace banyan
