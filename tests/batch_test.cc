// SPDX-License-Identifier: Apache-2.0
// `banyan run --batch` as its user meets it: files in, files out, interrupted and taken up again.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/testing_temp_folder.h"
#include "shell.h"
#include "support.h"

namespace banyan {
namespace {

using nlohmann::json;

std::vector<json> lines_of(const std::filesystem::path& path) {
  std::vector<json> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) lines.push_back(json::parse(line));
  return lines;
}

class Batch : public testing::Test {
 protected:
  // Exit code of banyan with these arguments; what it prints is in the files "out" and "err".
  int banyan(const std::string& arguments) const {
    const std::string line =
        fmt::format("BANYAN_PATHS=default {} {} -m {} >{} 2>{} </dev/null", BANYAN_PROGRAM,
                    arguments, model_, path("out"), path("err"));
    return run_shell(line);
  }
  int batch(const std::string& more = "") const {
    return banyan(fmt::format("run --batch {} -o {} --deterministic {}", path("in.jsonl"),
                              path("out.jsonl"), more));
  }
  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }
  std::string said() const { return read_file(path("err")); }

  static std::string completion(const std::string& id, const std::string& body) {
    return fmt::format(R"({{"custom_id":"{}","method":"POST","url":"/v1/completions","body":{}}})",
                       id, body) +
           "\n";
  }

  const TempFolder folder_;
  std::string model_ = test_data("golden/llama/model.gguf");
};

constexpr const char* kSystem = "once upon a time there was a small house by the sea and ";

std::string ask(int n) { return fmt::format("{}in it lived {} cats", kSystem, n * 7); }

TEST_F(Batch, TwelveTogetherAnswerAsEachAlone) {
  std::string in;
  for (int n = 0; n < 12; ++n) {
    in += completion(fmt::format("q{}", n),
                     json{{"prompt", ask(n)}, {"max_tokens", 10 + n}, {"temperature", 0}}.dump());
  }
  folder_.write("in.jsonl", in);
  ASSERT_EQ(batch(), 0) << said();
  const auto results = lines_of(path("out.jsonl"));
  ASSERT_EQ(results.size(), 12U);
  int reused = 0;
  for (int n = 0; n < 12; ++n) {
    const json& result = results[n];
    EXPECT_EQ(result["custom_id"], fmt::format("q{}", n));
    EXPECT_EQ(result["response"]["status_code"], 200);
    EXPECT_EQ(result["error"], nullptr);
    const json& body = result["response"]["body"];
    EXPECT_EQ(body["object"], "text_completion");
    EXPECT_EQ(body["compute"], "auto");
    const json& usage = body["usage"];
    EXPECT_EQ(usage["prompt_tokens_details"]["cached_tokens"], body["cache"]["reused_tokens"]);
    EXPECT_EQ(
        body["cache"]["reused_tokens"].get<int>() + body["cache"]["computed_tokens"].get<int>(),
        usage["prompt_tokens"]);
    if (body["cache"]["reused_tokens"] > 20) ++reused;
    if (body["cache"]["why"] == "diverged") {
      EXPECT_NE(body["cache"]["had"], body["cache"]["got"]);
    }
    ASSERT_EQ(banyan(fmt::format("run --json --raw --temp 0 --deterministic -n {} -p \"{}\"",
                                 10 + n, ask(n))),
              0);
    EXPECT_EQ(json::parse(read_file(path("out")))["text"], body["choices"][0]["text"]) << n;
  }
  EXPECT_GE(reused, 11) << "what they share was computed once";
}

TEST_F(Batch, WrongLinesAreAnsweredInTheirPlaces) {
  folder_.write("in.jsonl",
                completion("a", R"({"prompt":"hello","max_tokens":4})") + "{broken\n\n" +
                    completion("b", R"({"prompt":"hello","max_tokens":-1})") +
                    R"({"custom_id":"c","method":"POST","url":"/v1/none","body":{}})" + "\n" +
                    completion("d", json{{"prompt", std::string(5000, 'x')}}.dump()) +
                    "\xff\xfe\n" + completion("e", R"({"prompt":""})") +
                    completion("f", R"({"prompt":[3,4],"max_tokens":2,"n":3,"logprobs":2})"));
  EXPECT_EQ(batch("-c 64 --json"), 1) << said();
  const auto results = lines_of(path("out.jsonl"));
  const json ids = {"a", nullptr, nullptr, "b", "c", "d", nullptr, "e", "f"};
  const int status[] = {200, 400, 400, 400, 404, 400, 400, 400, 200};
  ASSERT_EQ(results.size(), ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    EXPECT_EQ(results[i]["custom_id"], ids[i]);
    const json& response = results[i]["response"];
    ASSERT_EQ(response["status_code"], status[i]) << results[i];
    EXPECT_EQ(response["body"].contains("error"), status[i] != 200);
    if (status[i] == 200) continue;
    EXPECT_NE(response["body"]["error"]["message"], "");
  }
  EXPECT_NE(results[5].dump().find("64"), std::string::npos) << "names the context";
  const json& choices = results[8]["response"]["body"]["choices"];
  ASSERT_EQ(choices.size(), 3U);
  EXPECT_EQ(choices[2]["index"], 2);
  EXPECT_EQ(choices[0]["logprobs"]["token_logprobs"].size(),
            choices[0]["logprobs"]["tokens"].size());
  const json summary = json::parse(read_file(path("out")));
  EXPECT_EQ(summary["requests"], 9);
  EXPECT_EQ(summary["failed"], 7);
}

TEST_F(Batch, GoesOnWhereItWasInterrupted) {
  std::string in;
  for (int n = 0; n < 6; ++n) {
    in += n == 2
              ? "{broken\n"
              : completion(fmt::format("q{}", n),
                           json{{"prompt", ask(n)}, {"max_tokens", 8}, {"temperature", 0}}.dump());
  }
  folder_.write("in.jsonl", in);
  ASSERT_EQ(batch(), 1) << said();
  const std::string whole = read_file(path("out.jsonl"));
  const auto texts = [&] {
    std::vector<json> found;
    for (const json& line : lines_of(path("out.jsonl"))) {
      found.push_back(line["response"]["body"].value("choices", json()));
    }
    return found;
  };
  const auto want = texts();

  // Results that are there stay to the byte; what is left is as it was. Cut at ends of lines, in
  // front of them, and within lines.
  std::vector<size_t> cuts = {0, 1, whole.size(), whole.size() - 1};
  for (size_t at = 0; (at = whole.find('\n', at)) != std::string::npos; ++at) {
    cuts.insert(cuts.end(), {at, at + 1, std::min(at + 30, whole.size())});
  }
  for (const size_t cut : cuts) {
    folder_.write("out.jsonl", whole.substr(0, cut));
    EXPECT_EQ(batch("--json"), 1) << cut << said();
    const size_t end = whole.rfind('\n', cut - 1) + 1;
    const size_t kept = cut == 0 ? 0 : end;
    EXPECT_EQ(read_file(path("out.jsonl")).substr(0, kept), whole.substr(0, kept)) << cut;
    EXPECT_EQ(texts(), want) << cut;
    const json summary = json::parse(read_file(path("out")));
    EXPECT_EQ(summary["kept"], std::count(whole.begin(), whole.begin() + long(kept), '\n')) << cut;
    EXPECT_EQ(summary["failed"], 1) << cut;
  }
}

TEST_F(Batch, NothingOfAnotherFileIsOverwritten) {
  const std::string in = completion("a", R"({"prompt":"hello","max_tokens":2})");
  folder_.write("in.jsonl", in);
  const auto refused = [&](const std::string& out, const std::string& sentence) {
    folder_.write("out.jsonl", out);
    EXPECT_EQ(batch(), 2) << out;
    EXPECT_NE(said().find(sentence), std::string::npos) << said();
    EXPECT_EQ(read_file(path("out.jsonl")), out);
  };
  refused("a letter\n", "line 1 is no result");
  refused("a letter", "line 1 is no result");
  refused(in, "line 1 is no result");
  refused(R"({"id":"batch_req_1","custom_id":"b","response":null,"error":{"message":"x"}})"
          "\n",
          "line 1 has another custom_id");
  const std::string one = R"({"id":"batch_req_1","custom_id":"a","response":null,"error":null})"
                          "\n";
  refused(one + one, "line 2 answers no line");

  EXPECT_EQ(banyan(fmt::format("run --batch {0} -o {0}", path("in.jsonl"))), 2);
  EXPECT_NE(said().find("same file"), std::string::npos);
  EXPECT_EQ(read_file(path("in.jsonl")), in);
  EXPECT_EQ(banyan(fmt::format("run --batch {} -o {}", path("none"), path("new"))), 2);
  EXPECT_NE(said().find(path("none")), std::string::npos);
  EXPECT_EQ(banyan(fmt::format("run --batch {}", path("in.jsonl"))), 2);
  EXPECT_NE(said().find("-o"), std::string::npos);
  EXPECT_EQ(banyan(fmt::format("run --batch {} -o {} --temp 1", path("in.jsonl"), path("new"))), 2);
  EXPECT_NE(said().find("--temp"), std::string::npos);
  EXPECT_EQ(banyan(fmt::format("run -p hello -o {}", path("new"))), 2);
  EXPECT_FALSE(std::filesystem::exists(path("new")));
}

TEST_F(Batch, AnswersThatTheBudgetEndsSayWhy) {
  json body = {{"prompt", std::vector<int>(60, 5)}, {"max_tokens", 100}, {"ignore_eos", true}};
  const std::string too_long = completion("long", body.dump());
  body["max_tokens"] = 4;
  folder_.write("in.jsonl", too_long + completion("short", body.dump()));
  ASSERT_EQ(batch("--kv-budget 32KiB"), 0) << said();  // 80 positions
  const auto results = lines_of(path("out.jsonl"));
  ASSERT_EQ(results.size(), 2U);
  const json& cut = results[0]["response"]["body"]["choices"][0];
  EXPECT_EQ(cut["finish_reason"], "length");
  EXPECT_NE(cut.value("note", "").find("--kv-budget"), std::string::npos) << cut;
  EXPECT_FALSE(results[1]["response"]["body"]["choices"][0].contains("note"));
}

TEST_F(Batch, MoreLinesThanAStepHasRows) {
  std::string in;
  for (int n = 0; n < 1200; ++n) {
    in += completion(std::to_string(n), R"({"prompt":[5,6,7],"max_tokens":1})");
  }
  folder_.write("in.jsonl", in);
  ASSERT_EQ(batch(), 0) << said();
  const auto results = lines_of(path("out.jsonl"));
  ASSERT_EQ(results.size(), 1200U);
  for (int n = 0; n < 1200; ++n) ASSERT_EQ(results[n]["custom_id"], std::to_string(n));
}

TEST_F(Batch, ChatsShareTheirSystemPrompt) {
  model_ = path("model");
  folder_.write("model/chat_template.jinja",
                "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:");
  for (const char* name : {"config.json", "model.safetensors"}) {
    std::filesystem::copy(test_data("golden/gemma3/") + name, model_);
  }
  std::filesystem::copy(test_data("tokenizers/unigram.json"), model_ + "/tokenizer.json");
  std::string system;
  for (int i = 0; i < 20; ++i) system += "You are a careful assistant. ";
  std::string in;
  for (int n = 0; n < 4; ++n) {
    const json body = {{"messages",
                        {{{"role", "system"}, {"content", system}},
                         {{"role", "user"}, {"content", fmt::format("What is {}?", n)}}}},
                       {"max_tokens", 12},
                       {"temperature", 0},
                       {"logprobs", true},
                       {"top_logprobs", 2}};
    in += json{{"custom_id", std::to_string(n)}, {"url", "/v1/chat/completions"}, {"body", body}}
              .dump() +
          "\n";
  }
  folder_.write("in.jsonl", in);
  ASSERT_EQ(batch(), 0) << said();
  const auto results = lines_of(path("out.jsonl"));
  ASSERT_EQ(results.size(), 4U);
  for (int n = 0; n < 4; ++n) {
    const json& body = results[n]["response"]["body"];
    EXPECT_EQ(body["object"], "chat.completion");
    const json& choice = body["choices"][0];
    const json& logprobs = choice["logprobs"]["content"];
    EXPECT_EQ(logprobs.size(), body["usage"]["completion_tokens"]);
    EXPECT_EQ(logprobs[0]["top_logprobs"].size(), 2U);
    EXPECT_EQ(logprobs[0]["token"], logprobs[0]["top_logprobs"][0]["token"]) << "greedy";
    if (n > 0) {
      EXPECT_EQ(body["cache"]["why"], "diverged");
      EXPECT_EQ(body["cache"]["position"], body["cache"]["reused_tokens"]);
      const std::string before = body["cache"]["before"];
      EXPECT_NE(before.find("What is"), std::string::npos) << before;
    }
    ASSERT_EQ(
        banyan(fmt::format(
            "run --json --temp 0 --deterministic -n 12 -sys \"{}\" -p \"What is {}?\"", system, n)),
        0);
    EXPECT_EQ(json::parse(read_file(path("out")))["text"], choice["message"]["content"]);
  }
}

TEST_F(Batch, ExplainSaysWhyNothingIsThere) {
  ASSERT_EQ(banyan("explain --json --raw -p \"hello world\""), 0) << said();
  const json facts = json::parse(read_file(path("out")));
  EXPECT_EQ(facts["why"], "empty");
  EXPECT_EQ(facts["reused_tokens"], 0);
  EXPECT_EQ(facts["computed_tokens"], facts["prompt_tokens"]);
  EXPECT_GT(facts["prompt_tokens"], 1);
  ASSERT_EQ(banyan("explain --raw -p hello"), 0) << said();
  EXPECT_EQ(read_file(path("out")).find("empty: "), 0U);
  EXPECT_EQ(banyan("explain"), 2);
  EXPECT_NE(said().find("-p"), std::string::npos);
}

}  // namespace
}  // namespace banyan
