// SPDX-License-Identifier: Apache-2.0
// --spec with the default model and from the command line: the same tokens in fewer steps.
#include <nlohmann/json.hpp>

#include "base/testing_temp_folder.h"
#include "shell.h"
#include "support.h"

namespace banyan {
namespace {

using nlohmann::json;

// A text, and its beginning again.
std::string said_twice() {
  const std::string text =
      "The lighthouse stood at the end of a long pier of grey stone. Every evening the keeper, an "
      "old sailor called Tobias Wren, carried a can of oil up its one hundred and twelve steps, "
      "trimmed the wick, and wrote the hour into a book that his grandfather had begun. On the "
      "ninth of November the lamp went out at twenty past three, and nobody ever found out why.";
  return "Repeat the following text exactly.\n" + text + "\nThe text again:\n" + text.substr(0, 61);
}

TEST(Speculation, TheDefaultModelAnswersTheSame) {
  const std::string model = default_model();
  if (model.empty()) GTEST_SKIP() << "the default model is not on this machine";
  EngineOptions options;
  options.model_path = model;
  options.n_threads = 2;
  options.kv_budget_bytes = uint64_t{64} << 20;
  options.isa = test_isa();
  options.deterministic = true;
  const auto plain = open_or_fail(options);
  options.speculation = Speculation::kLookup;
  const auto lookup = open_or_fail(options);
  options.speculation = Speculation::kDraft;
  options.draft_model_path = model;
  const auto drafted = open_or_fail(options);
  ASSERT_TRUE(plain != nullptr && lookup != nullptr && drafted != nullptr);
  Request request;
  request.prompt = *plain->encode_raw(said_twice());
  request.max_tokens = 64;
  request.ignore_eos = true;
  for (const float temperature : {0.0F, 0.8F}) {
    request.sampler.temperature = temperature;
    request.sampler.seed = 7;
    const Reply want = *plain->generate(request);
    EXPECT_EQ(want.speculation.steps, 63);
    EXPECT_EQ(want.speculation.drafted, 0);
    for (Engine* engine : {lookup.get(), drafted.get()}) {
      const Reply found = *engine->generate(request);
      EXPECT_EQ(found.tokens, want.tokens);
      EXPECT_EQ(found.logprobs, want.logprobs);  // bit-equal
      EXPECT_EQ(found.text, want.text);
      EXPECT_EQ(found.speculation.steps + found.speculation.accepted, 63);
      if (temperature == 0) {
        EXPECT_LT(found.speculation.steps, 32);
      }
    }
  }
}

TEST(Speculation, IsAnOptionOfRunAndToldInItsReply) {
  const TempFolder folder;
  const auto at = [&](const char* name) { return (folder.path() / name).string(); };
  const std::string model = test_data("golden/llama/model.gguf");
  const auto run = [&](const std::string& more) {
    const std::string line = std::string("BANYAN_PATHS=default ") + BANYAN_PROGRAM + " " + more +
                             " -m " + model + " >" + at("out") + " 2>" + at("err") + " </dev/null";
    return run_shell(line);
  };
  const std::string ask =
      "run --raw -p 'a b c d a b c d a b' -n 60 --temp 0 --ignore-eos --deterministic --json ";
  std::vector<json> replies;
  for (const std::string& how : {std::string("off"), std::string("lookup"), std::string("auto"),
                                 "draft -md " + model, "auto --model-draft " + model}) {
    ASSERT_EQ(run(ask + "--spec " + how), 0) << read_file(at("err"));
    const json& reply = replies.emplace_back(json::parse(read_file(at("out"))));
    EXPECT_EQ(reply["tokens"], replies[0]["tokens"]) << how;
    const json& facts = reply["speculation"];
    EXPECT_EQ(facts["steps"].get<int>() + facts["accepted"].get<int>(), 59) << how;
    EXPECT_LE(facts["accepted"], facts["drafted"]) << how;
    EXPECT_LE(facts["accepted_off_chain"], facts["accepted"]) << how;
    EXPECT_GT(reply["timings"]["predicted_per_second"], 0) << how;
  }
  EXPECT_EQ(replies[0]["speculation"]["drafted"], 0);
  EXPECT_GT(replies[1]["speculation"]["drafted"], 0);
  EXPECT_GT(replies[3]["speculation"]["accepted"], 30);

  for (const auto& [how, place] : {std::pair<std::string, std::string>{"often", "often"},
                                   {"draft", "-md"},
                                   {"lookup -md " + model, model},
                                   {"draft -md /no/such.gguf", "/no/such.gguf"}}) {
    EXPECT_EQ(run(ask + "--spec " + how), 2);
    EXPECT_NE(read_file(at("err")).find(place), std::string::npos) << how;
  }

  folder.write("in.jsonl",
               R"({"custom_id": "1", "method": "POST", "url": "/v1/completions", )"
               R"("body": {"prompt": "a b c d a b c d", "max_tokens": 40, "temperature": 0, )"
               R"("ignore_eos": true}})"
               "\n");
  ASSERT_EQ(
      run("run --spec lookup --deterministic --batch " + at("in.jsonl") + " -o " + at("out.jsonl")),
      0)
      << read_file(at("err"));
  const json line = json::parse(read_file(at("out.jsonl")));
  const json& facts = line["response"]["body"]["speculation"];
  EXPECT_EQ(facts["steps"].get<int>() + facts["accepted"].get<int>(), 39);
  EXPECT_GT(facts["accepted"], 0);
}

}  // namespace
}  // namespace banyan
