// SPDX-License-Identifier: Apache-2.0
// The program as a user meets it: what it prints, how it exits, what it says about wrong input.
#include <fmt/format.h>

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "files/testing_gguf_writer.h"
#include "shell.h"
#include "support.h"

namespace banyan {
namespace {

using nlohmann::json;

void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// A folder of its own for each test, gone afterwards.
class Program : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/banyan-cli-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  struct Outcome {
    int code = 0;
    std::string out;
    std::string err;
  };

  // `arguments` as one would type them after `banyan`; `before` may set variables. No test depends
  // on timings unless it asks for measured paths.
  Outcome run(const std::string& arguments, const std::string& before = "") const {
    const std::string out = folder_ + "/out";
    const std::string err = folder_ + "/err";
    const std::string line = "BANYAN_PATHS=default " + before + " " + BANYAN_PROGRAM + " " +
                             arguments + " >" + out + " 2>" + err + " </dev/null";
    const int code = run_shell(line);
    return {code, read_file(out), read_file(err)};
  }

  // One sentence on stderr that holds `place`, exit 2, nothing on stdout.
  void expect_refused(const std::string& arguments, const std::string& place,
                      const std::string& before = "") const {
    const Outcome o = run(arguments, before);
    EXPECT_EQ(o.code, 2) << arguments << "\n" << o.err;
    const size_t at = o.err.find("banyan: error: ");
    ASSERT_NE(at, std::string::npos) << arguments << "\n" << o.err;
    const std::string sentence = o.err.substr(at, o.err.find('\n', at) - at);
    EXPECT_NE(sentence.find(place), std::string::npos) << sentence;
    EXPECT_EQ(o.err.find("banyan: error: ", at + 1), std::string::npos) << o.err;
    EXPECT_EQ(o.out, "");
  }

  std::string in_folder(const std::string& name) const { return folder_ + "/" + name; }
  const std::string tiny_ = test_data("golden/llama/model.gguf");
  const std::string with_tiny_ = "-m " + tiny_ + " --log-level error ";
  std::string folder_;
};

TEST_F(Program, ExplainsItselfInTenLines) {
  const Outcome o = run("");
  EXPECT_EQ(o.code, 0);
  EXPECT_LE(std::count(o.out.begin(), o.out.end(), '\n'), 10);
  for (const char* word : {"run", "tokenize", "inspect", "eval", "bench", "-m"}) {
    EXPECT_NE(o.out.find(word), std::string::npos) << word;
  }
}

TEST_F(Program, HelpOfEveryCommandFitsAScreen) {
  for (const char* command :
       {"run", "explain", "tokenize", "inspect", "eval logits", "eval ppl", "bench decode",
        "bench prefill", "bench attention", "bench tree", "bench serve-trace"}) {
    const Outcome o = run(std::string(command) + " --help");
    EXPECT_EQ(o.code, 0) << command;
    EXPECT_LE(std::count(o.out.begin(), o.out.end(), '\n'), 60) << command;
    EXPECT_NE(o.out.find("--json"), std::string::npos) << command;
  }
}

TEST_F(Program, RunPrintsOneJsonObjectThatAddsUp) {
  const Outcome o = run("run " + with_tiny_ + "--json --raw -p hello -n 12 --temp 0 --ignore-eos");
  ASSERT_EQ(o.code, 0) << o.err;
  const json reply = json::parse(o.out);
  EXPECT_EQ(reply["tokens"].size(), 12U);
  EXPECT_EQ(reply["finish_reason"], "length");
  EXPECT_EQ(reply["compute"], "auto");
  EXPECT_EQ(reply["kv"]["exact"], true);
  EXPECT_GT(reply["kv"]["bytes_peak"], 0);
  const json& usage = reply["usage"];
  EXPECT_EQ(usage["completion_tokens"], 12);
  EXPECT_EQ(usage["total_tokens"].get<int>(), usage["prompt_tokens"].get<int>() + 12);
  EXPECT_EQ(usage["prompt_tokens_details"]["cached_tokens"], 0);
  const json& cache = reply["cache"];
  EXPECT_EQ(cache["why"], "empty");
  EXPECT_EQ(cache["reused_tokens"], 0);
  EXPECT_EQ(cache["computed_tokens"], usage["prompt_tokens"]);
  EXPECT_EQ(cache["exact"], true);
  EXPECT_EQ(cache["from"], json::parse(R"({"memory": 0, "compressed": 0, "disk": 0})"));
  for (const char* key :
       {"load_ms", "prompt_ms", "prompt_per_second", "predicted_ms", "predicted_per_second"}) {
    EXPECT_TRUE(reply["timings"][key].is_number()) << key;
  }
}

TEST_F(Program, KvOf8BitsIsSmallerAndSaidNotToBeExact) {
  const std::string command = "run " + with_tiny_ + "--json --raw -p hello -n 12 --temp 0 ";
  const json f16 = json::parse(run(command).out);
  for (const char* options : {"-ctk q8_0 -ctv q8_0", "-ctk q8_0", "-ctv q8_0"}) {
    const json q8 = json::parse(run(command + options).out);
    EXPECT_EQ(q8["kv"]["exact"], false) << options;
    EXPECT_LT(q8["kv"]["bytes_peak"], f16["kv"]["bytes_peak"]) << options;
  }
  // Heads of 16 dimensions: 18 bytes instead of 32, each for K and V.
  const json facts = json::parse(run("inspect --json -ctk q8_0 -ctv q8_0 " + tiny_).out);
  EXPECT_EQ(facts["kv_bytes_per_token"], 3 * 2 * 18 * 2);
}

TEST_F(Program, SeedsRepeatAndDiffer) {
  const std::string ask = "run " + with_tiny_ + "--json --raw -p abc -n 24 --temp 1 --ignore-eos ";
  const json a = json::parse(run(ask + "-s 1").out);
  const json b = json::parse(run(ask + "-s 1").out);
  const json c = json::parse(run(ask + "-s 2").out);
  EXPECT_EQ(a["tokens"], b["tokens"]);
  EXPECT_NE(a["tokens"], c["tokens"]);
}

TEST_F(Program, RunGivesTheBestOfSeveralAnswers) {
  const std::string ask =
      "run " + with_tiny_ + "--json --raw -p abc -n 12 --temp 1 --ignore-eos -s 3 --deterministic ";
  const json best = json::parse(run(ask + "--n 2 --best-of 6").out);
  const json all = json::parse(run(ask + "--n 6").out);
  ASSERT_EQ(best["choices"].size(), 2U);
  ASSERT_EQ(all["choices"].size(), 6U);
  for (size_t i = 0; i < 6; ++i) {
    const json& choice = all["choices"][i];
    EXPECT_EQ(choice["tokens"].size(), 12U);
    EXPECT_LT(choice["mean_logprob"],
              i == 0 ? json(0) : json(all["choices"][i - 1]["mean_logprob"]));
    if (i < 2) {
      EXPECT_EQ(best["choices"][i], choice);
    }
  }
  EXPECT_EQ(best["text"], best["choices"][0]["text"]);
  EXPECT_EQ(best["tokens"], best["choices"][0]["tokens"]);
  EXPECT_EQ(all["usage"]["completion_tokens"], 72);
  EXPECT_EQ(run(ask + "--n 3 --best-of 2").code, 2);
  EXPECT_FALSE(json::parse(run(ask).out).contains("choices"));
}

TEST_F(Program, RunSaysWhyTheBudgetEndedAnAnswer) {
  const std::string ask =
      "run " + with_tiny_ + "--json --raw -p hello --temp 1 --ignore-eos --kv-budget 32KiB ";
  const json cut = json::parse(run(ask + "-n 100 --n 2").out);  // 80 positions
  EXPECT_NE(cut.value("note", "").find("--kv-budget"), std::string::npos) << cut;
  for (const json& choice : cut["choices"]) EXPECT_EQ(choice.value("note", ""), cut["note"]);
  const json whole = json::parse(run(ask + "-n 4 --n 2").out);
  EXPECT_FALSE(whole.contains("note"));
  for (const json& choice : whole["choices"]) EXPECT_FALSE(choice.contains("note"));
}

TEST_F(Program, LogprobsListTheChosenTokenFirstWhenGreedy) {
  const Outcome o =
      run("run " + with_tiny_ + "--json --raw -p abc -n 4 --temp 0 --ignore-eos --logprobs 3");
  const json reply = json::parse(o.out);
  ASSERT_EQ(reply["logprobs"].size(), 4U);
  for (const json& entry : reply["logprobs"]) {
    ASSERT_EQ(entry["top_logprobs"].size(), 3U);
    EXPECT_EQ(entry["top_logprobs"][0]["id"], entry["id"]);
    EXPECT_LE(entry["logprob"], 0);
  }
}

TEST_F(Program, StopStringsEndTheTextBeforeThem) {
  const json whole =
      json::parse(run("run " + with_tiny_ + "--json --raw -p abc -n 40 --temp 0 --ignore-eos").out);
  const std::string text = whole["text"];
  size_t begin = text.size() / 2;  // a stop string of plain letters from the middle of the text
  while (begin < text.size() && isalnum(static_cast<unsigned char>(text[begin])) == 0) ++begin;
  ASSERT_LT(begin, text.size());
  const std::string stop = text.substr(begin, 1);
  const json cut =
      json::parse(run("run " + with_tiny_ +
                      "--json --raw -p abc -n 40 --temp 0 --ignore-eos --stop '" + stop + "'")
                      .out);
  EXPECT_EQ(cut["finish_reason"], "stop");
  EXPECT_EQ(cut["text"], text.substr(0, text.find(stop)));
}

TEST_F(Program, TokenizeAndBack) {
  const json ids = json::parse(run("tokenize -m " + tiny_ + " --json -p 'hello w'").out)["tokens"];
  std::string list;
  for (const json& id : ids) list += std::to_string(id.get<int>()) + " ";
  const json text =
      json::parse(run("tokenize -m " + tiny_ + " --json --decode '" + list + "'").out);
  EXPECT_EQ(text["text"], "hello w");
}

TEST_F(Program, TokenizesWithAHuggingFaceFolderOrItsTokenizer) {
  const json golden = json::parse(read_file(test_data("tokenizers/expected.json")));
  const std::string text = golden["texts"][0];
  const json want = golden["ids"]["characters"]["parse"][0];
  const std::string file = test_data("tokenizers/characters.json");
  std::filesystem::create_directory(in_folder("model"));
  std::filesystem::copy(file, in_folder("model/tokenizer.json"));
  for (const std::string& model :
       {file, in_folder("model"), in_folder("model/"), in_folder("model/tokenizer.json")}) {
    const Outcome o = run(fmt::format("tokenize --json -m {} -p '{}'", model, text));
    ASSERT_EQ(o.code, 0) << o.err;
    EXPECT_EQ(json::parse(o.out)["tokens"], want) << model;
    std::string ids;
    for (const json& id : want) ids.append(id.dump()).append(" ");
    const Outcome back = run(fmt::format("tokenize --json -m {} --decode '{}'", model, ids));
    EXPECT_EQ(json::parse(back.out)["text"], text);
  }
}

TEST_F(Program, RefusesBrokenTokenizersAndNamesTheFile) {
  std::filesystem::create_directory(in_folder("model"));
  const std::string command = "tokenize -p hi -m " + in_folder("model");
  expect_refused(command, "the folder has no tokenizer.json");
  write_file(in_folder("model/tokenizer.model"), "x");
  expect_refused(command, "save_pretrained()");
  write_file(in_folder("model/tokenizer.json"), "{\"model\": 5}");
  expect_refused(command, "model/tokenizer.json");
  write_file(in_folder("model/tokenizer.json"), std::string(1'000'000, '['));
  expect_refused(command, "deeper than 64");
  write_file(in_folder("model/tokenizer.json"), "");
  expect_refused(command, "model/tokenizer.json");
  const std::string good = read_file(test_data("tokenizers/characters.json"));
  write_file(in_folder("model/tokenizer.json"), good);
  EXPECT_EQ(run(command).code, 0);
  write_file(in_folder("model/tokenizer_config.json"), "{\"add_bos_token\": 1}");
  expect_refused(command, "tokenizer_config.json");
  write_file(in_folder("model/tokenizer_config.json"), "{}");
  write_file(in_folder("model/generation_config.json"), "{\"eos_token_id\": {}}");
  expect_refused(command, "generation_config.json");
  write_file(in_folder("cut.json"), good.substr(0, good.size() / 2));
  expect_refused("tokenize -p hi -m " + in_folder("cut.json"), "cut.json");
  expect_refused("tokenize -p hi -m " + in_folder("none.json"), "none.json");
  std::mt19937 random(5);
  for (int trial = 0; trial < 10; ++trial) {
    std::string bytes = good;
    for (int n = 0; n < 20; ++n) bytes[random() % bytes.size()] = static_cast<char>(random());
    write_file(in_folder("cut.json"), bytes);
    expect_refused("tokenize -p hi -m " + in_folder("cut.json"), "cut.json");
  }
}

TEST_F(Program, InspectSaysWhatTheFileIs) {
  const json facts = json::parse(run("inspect --json " + tiny_).out);
  EXPECT_EQ(facts["architecture"], "llama");
  EXPECT_EQ(facts["layers"], 3);
  EXPECT_EQ(facts["heads"], 4);
  EXPECT_EQ(facts["kv_heads"], 2);
  EXPECT_EQ(facts["head_dim"], 16);
  EXPECT_EQ(facts["vocab"], 320);
  EXPECT_EQ(facts["context_length"], 4096);
  EXPECT_EQ(facts["kv_bytes_per_token"], 3 * 2 * 16 * 2 * 2);
  EXPECT_EQ(facts["bytes"], std::filesystem::file_size(tiny_));
  EXPECT_EQ(facts["types"]["F32"], 30);
}

TEST_F(Program, EvalLogitsGivesTheGoldenOnes) {
  const json golden = json::parse(read_file(test_data("golden/llama/golden.json")));
  const json& test_case = golden["cases"][0];
  write_file(in_folder("ids.json"), test_case["tokens"].dump());
  const Outcome o = run("eval logits " + with_tiny_ + "--tokens " + in_folder("ids.json") +
                        " --positions 1,3 --compute f32 -ctk f32 -ctv f32 --json");
  ASSERT_EQ(o.code, 0) << o.err;
  const json found = json::parse(o.out);
  EXPECT_EQ(found["n_tokens"], test_case["tokens"].size());
  EXPECT_EQ(found["logits_positions"].size(), 2U);
  for (size_t v = 0; v < 320; ++v) {
    EXPECT_NEAR(found["last_logits"][v].get<double>(), test_case["last_logits"][v].get<double>(),
                3e-4);
    EXPECT_NEAR(found["logits_positions"]["3"][v].get<double>(),
                test_case["logits_positions"]["3"][v].get<double>(), 3e-4);
  }
}

TEST_F(Program, BenchesPrintTheColumnsOfLlamaCpp) {
  std::istringstream decode(
      run("bench decode " + with_tiny_ + "--json -npp 20 -ntg 4 -npl 1,17 -pps").out);
  std::string line;
  int rows = 0;
  while (std::getline(decode, line)) {
    const json row = json::parse(line);
    EXPECT_EQ(row["tg"], 4);
    EXPECT_NEAR(row["speed_tg"].get<double>() * row["t_tg"].get<double>(), 4 * row["pl"].get<int>(),
                1e-6);
    EXPECT_EQ(row["n_kv"].get<int>(), 20 + 4 * row["pl"].get<int>());
    ++rows;
  }
  EXPECT_EQ(rows, 2);
  std::istringstream prefill(
      run("bench prefill " + with_tiny_ + "--json -p 32,64 -d 0,16 -n 4 -r 2").out);
  std::vector<std::array<int, 3>> seen;
  while (std::getline(prefill, line)) {
    const json row = json::parse(line);
    seen.push_back({row["n_depth"], row["n_prompt"], row["n_gen"]});
    EXPECT_EQ(row["samples_ts"].size(), 2U);
  }
  EXPECT_EQ(seen, (std::vector<std::array<int, 3>>{
                      {0, 32, 0}, {0, 64, 0}, {0, 0, 4}, {16, 32, 0}, {16, 64, 0}, {16, 0, 4}}));
  const json row =
      json::parse(run("bench prefill " + with_tiny_ + "--json -p 64 -n 0 -r 1 --profile").out);
  double parts_ms = 0;
  for (const char* part : {"attention_ms", "weights_ms", "other_ms"}) {
    EXPECT_GT(row[part].get<double>(), 0) << part;
    parts_ms += row[part].get<double>();
  }
  EXPECT_NEAR(parts_ms * row["avg_ts"].get<double>() / 1000, 64, 1e-3);
}

TEST_F(Program, BenchTreeReplaysATraceWithEachMethod) {
  const auto write = [&](const std::string& name, const std::string& trees) {
    write_file(in_folder(name),
               R"({"format": "treetrace-1", "kind": "tree", "trees": [)" + trees + "]}");
    return in_folder(name);
  };
  const std::string good = write("good.json", R"({"prompt": 16, "parent": [0, 0, 1], )"
                                              R"("len": [3, 5, 2]})");
  const Outcome o = run("bench tree " + good +
                        " --json --kv-heads 2 --heads 4 --head-dim 8 "
                        "--method paged,auto");
  ASSERT_EQ(o.code, 0) << o.err;
  std::vector<json> rows;
  std::istringstream lines(o.out);
  for (std::string line; std::getline(lines, line);) rows.push_back(json::parse(line));
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0]["method"], "paged");
  EXPECT_EQ(rows[0]["kv_tokens_read"], 190);
  EXPECT_EQ(rows[1]["method"], "auto");
  for (const json& row : rows) {
    EXPECT_EQ(row["steps"], 5);
    EXPECT_EQ(row["queries"], 10);
    EXPECT_EQ(row["n_tree_sum"], 110);
    EXPECT_EQ(row["path_sum"], 190);
    EXPECT_GT(row["plan_ms"], 0);
    EXPECT_GT(row["attention_ms"], 0);
    EXPECT_GE(row["step_ms"], row["attention_ms"]);
    EXPECT_GE(row["partial_rows"], 0);
  }
  EXPECT_NE(run("bench tree " + good + " --steps 2 --prompt 30").out.find("2 steps, 4 rows"),
            std::string::npos);
  const Outcome blocks = run("bench tree " + good + " --method flatten,auto --block 32,64");
  EXPECT_NE(blocks.out.find("flatten 32"), std::string::npos);
  EXPECT_NE(blocks.out.find("flatten 64"), std::string::npos);

  const Outcome model = run("bench tree " + good + " --json --method auto -m " + tiny_);
  ASSERT_EQ(model.code, 0) << model.err;
  const json row = json::parse(model.out);
  EXPECT_EQ(row["n_tree_sum"], 110);
  EXPECT_GT(row["weights_ms"], 0);
  EXPECT_GT(row["step_ms"], row["weights_ms"]);

  const std::string forest = in_folder("forest.json");
  write_file(forest, R"({"format": "treetrace-1", "kind": "forest", "arrive": [0, 7], "trees": [)"
                     R"({"prompt": 16, "parent": [0, 0], "len": [3, 5]}, )"
                     R"({"prompt": 9, "parent": [0], "len": [2]}]})");
  EXPECT_NE(run("bench tree " + forest).out.find("7 steps, 10 rows"), std::string::npos);

  const std::string cycle = write("cycle.json", R"({"prompt": 1, "parent": [1], "len": [1]})");
  expect_refused("bench tree " + cycle, cycle + ": tree 0: node 1: parent is 1");
  expect_refused("bench tree " + in_folder("none.json"), in_folder("none.json"));
  expect_refused("bench tree " + good + " --tree 1", good + ": --tree is 1");
  expect_refused("bench tree " + good + " --prompt 0", "--prompt");
  expect_refused("bench tree " + good + " --heads 8 -m " + tiny_, "--heads");
  expect_refused("bench tree " + good + " --block 8", "--block");
  for (const std::string& options : {std::string(), " -m " + tiny_}) {
    expect_refused("bench tree " + good + " --kv-type f8" + options, "--kv-type is \"f8\"");
  }
  expect_refused("bench tree " + good + " --steps 1.5", "--steps");
  expect_refused("bench tree " + good + " --method best", "--method");
  expect_refused("bench tree " + good + " --kv-heads 5", "--kv-heads");
  expect_refused("bench tree " + good +
                     " --layers 4096 --heads 4096 --kv-heads 4096 "
                     "--head-dim 4096",
                 "are free");
}

TEST_F(Program, RefusesWrongUsage) {
  expect_refused("frobnicate", "frobnicate");
  expect_refused("eval", "logits");
  expect_refused("eval nonsense", "ppl");
  expect_refused("run " + with_tiny_ + "--no-such-option -p hi", "--no-such-option");
  expect_refused("run " + with_tiny_, "-p");
  expect_refused("run " + with_tiny_ + "-p a -f " + tiny_, "-f");
  expect_refused("run " + with_tiny_ + "-f " + in_folder("none.txt"), "none.txt");
  expect_refused("run " + with_tiny_ + "--raw -p hi -n -5", "-n");
  expect_refused("run " + with_tiny_ + "--raw -p hi -n 0", "-n");
  expect_refused("run " + with_tiny_ + "--raw -p hi -n many", "-n");
  expect_refused("run " + with_tiny_ + "--raw -p hi -t -1", "-t");
  expect_refused("run " + with_tiny_ + "--raw -p hi -c -4", "-c");
  expect_refused("run " + with_tiny_ + "--raw -p hi --stop ''", "--stop");
  expect_refused("run " + with_tiny_ + "--raw -p hi -ctk q9", "-ctk");
  expect_refused("run " + with_tiny_ + "--raw -p hi -ctv q9", "f32, f16, bf16 or q8_0");
  expect_refused("run " + with_tiny_ + "--raw -p hi --compute f64", "--compute");
  expect_refused("run " + with_tiny_ + "--raw -p hi --device cuda", "--device");
  expect_refused("run " + with_tiny_ + "--raw -p hi --rope-scaling cubic", "--rope-scaling");
  expect_refused("run -m " + tiny_ + " --raw -p hi --log-level loud", "--log-level");
  expect_refused("run " + with_tiny_ + "--raw -p hi", "BANYAN_ISA", "BANYAN_ISA=mmx");
  expect_refused("tokenize -m " + tiny_ + " --decode '5 x'", "--decode");
  expect_refused("tokenize -m " + tiny_ + " --decode '5 320'", "319");
  expect_refused("bench decode " + with_tiny_ + "-npp 0", "-npp");
  expect_refused("bench decode " + with_tiny_ + "--method best", "--method");
  expect_refused("bench prefill " + with_tiny_ + "--pattern striped", "--pattern");
}

TEST_F(Program, RefusesSamplerValuesThatAreNoNumbersOrOutOfRange) {
  for (const char* bad :
       {"--temp nan", "--temp inf", "--temp -1", "--top-k -1", "--top-p 0", "--top-p 1.5",
        "--top-p nan", "--min-p -0.1", "--min-p 2", "--typical 0", "--repeat-penalty 0",
        "--repeat-penalty nan", "--repeat-last-n -2", "--presence-penalty 3",
        "--frequency-penalty nan", "--logit-bias 5000+1", "--logit-bias x", "--logprobs 1000"}) {
    const std::string text = bad;
    expect_refused("run " + with_tiny_ + "--raw -p hi " + text, text.substr(0, text.find(' ')));
  }
}

TEST_F(Program, RefusesPromptsPastTheContextAndBudgetsTooSmall) {
  std::string words;
  for (int i = 0; i < 200; ++i) words += "word ";
  expect_refused("run " + with_tiny_ + "--raw -c 64 -n 4 -p '" + words + "'", "64");
  expect_refused("run " + with_tiny_ + "--raw -p hi --kv-budget 4", "--kv-budget");
  expect_refused("run " + with_tiny_ + "--raw -p hi --kv-budget lots", "--kv-budget");
  // One panel of this model is 6 KiB: 16 positions.
  expect_refused("run " + with_tiny_ + "--raw --kv-budget 12KiB -p '" + words + "'", "--kv-budget");
  expect_refused("run " + with_tiny_ + "--raw -p ''", "empty");
}

TEST_F(Program, RefusesBrokenTokenFiles) {
  for (const char* bad :
       {"", "{}", "[1, \"2\"]", "[1.5]", "[-1]", "[99999999999]", "[1, 2", "nul", "[320]", "[]"}) {
    write_file(in_folder("ids.json"), bad);
    expect_refused("eval logits " + with_tiny_ + "--tokens " + in_folder("ids.json"), "");
  }
  write_file(in_folder("ids.json"), "[1, 2, 3]");
  expect_refused("eval logits " + with_tiny_ + "--positions 3 --tokens " + in_folder("ids.json"),
                 "3");
  expect_refused("eval ppl " + with_tiny_ + "-f " + in_folder("ids.json"), "-c");
}

TEST_F(Program, RefusesBrokenModelsAndNamesThem) {
  const std::string whole = read_file(tiny_);
  const std::string path = in_folder("broken.gguf");
  const auto refuse = [&](const std::string& bytes) {
    write_file(path, bytes);
    expect_refused("run --raw -p hi -n 1 -m " + path, "broken.gguf");
  };
  refuse("");
  refuse("hello world, this is no model at all, not even nearly");
  for (const size_t cut : {3, 24, 160, 5000, 20000}) refuse(whole.substr(0, cut));
  refuse(whole.substr(0, whole.size() - 1));
  expect_refused("run --raw -p hi -m " + in_folder("none.gguf"), "none.gguf");
  expect_refused("run --raw -p hi -m " + folder_, folder_);
}

TEST_F(Program, SurvivesFlippedBytes) {
  const std::string whole = read_file(tiny_);
  std::mt19937 random(7);
  for (int trial = 0; trial < 40; ++trial) {
    std::string bytes = whole;
    for (int flip = 0; flip < 20; ++flip) {
      bytes[4 + random() % 12000] = static_cast<char>(random() % 256);
    }
    write_file(in_folder("flip.gguf"), bytes);
    const Outcome o = run("run --raw -p hi -n 2 --temp 0 -m " + in_folder("flip.gguf"));
    EXPECT_TRUE(o.code == 0 || o.code == 2 || o.code == 1) << "exit " << o.code << "\n" << o.err;
  }
}

TEST_F(Program, RefusesWeightsThatAreNotNumbers) {
  std::string bytes = read_file(tiny_);
  bytes.replace(bytes.size() - 4, 4, "\xFF\xFF\xFF\xFF");
  write_file(in_folder("nan.gguf"), bytes);
  write_file(in_folder("ids.json"), "[1, 2, 3]");
  const std::string model = " -m " + in_folder("nan.gguf");
  for (const std::string how : {"--temp 0", "--temp 1"}) {
    expect_refused("run --raw -p hi -n 2 " + how + model, "not numbers");
  }
  expect_refused("eval logits --tokens " + in_folder("ids.json") + model, "not numbers");
}

TEST_F(Program, SaysWhereTheDefaultModelShouldBe) {
  expect_refused("run -p hi", "make run", "XDG_CACHE_HOME=" + folder_);
  expect_refused("run -p hi", "-m", "env -u HOME -u XDG_CACHE_HOME");
}

TEST_F(Program, MeasuresPathsOnceAndKeepsThemInTheCache) {
  const std::string measured = "BANYAN_PATHS=measured XDG_CACHE_HOME=" + in_folder("cache");
  const std::string answer = "run -m " + tiny_ + " --raw -p hi -n 1 --json --log-level warn ";
  const auto kept = [&] { return std::filesystem::exists(in_folder("cache/banyan")); };
  EXPECT_EQ(run(answer).code, 0);
  EXPECT_EQ(run(answer + "--deterministic", measured).code, 0);
  EXPECT_EQ(run(answer + "--compute f32", measured).code, 0);
  EXPECT_FALSE(kept());
  const Outcome first = run(answer, measured);
  EXPECT_EQ(first.code, 0);
  EXPECT_EQ(first.err, "");
  EXPECT_TRUE(kept());
  const json machine = json::parse(run("inspect --machine --json", measured).out);
  EXPECT_EQ(machine["paths_from"], "file");
  EXPECT_TRUE(std::filesystem::exists(machine["paths_file"].get<std::string>()));
  EXPECT_GT(machine["bandwidth_gbps"], 0);
  for (const char* key : {"cpu", "isa", "cores", "threads", "caches", "memory_bytes"}) {
    EXPECT_TRUE(machine.contains(key)) << key;
  }
  for (const auto& [weights, row] : machine["paths"].items()) {
    EXPECT_EQ(row["1"]["path"], "dots") << weights;
  }
  EXPECT_EQ(json::parse(run("inspect --machine --json").out)["paths_from"], "default");
  const json again = json::parse(run("inspect --machine --measure --json", measured).out);
  EXPECT_EQ(again["paths_from"], "measured");
  expect_refused("inspect --machine " + with_tiny_, "--machine");
  expect_refused("inspect --measure", "--machine");
  expect_refused(answer, "BANYAN_PATHS", "BANYAN_PATHS=fast");
}

TEST_F(Program, AnswersOnMachinesWithoutAvx2AndOnOneCore) {
  const std::string answer = "run -m " + tiny_ + " --raw -p hi -n 4 --temp 0 --json --compute f32 ";
  const json tokens = json::parse(run(answer).out)["tokens"];
  for (const char* before : {"BANYAN_ISA=sse4", "BANYAN_ISA=avx2", "taskset -c 0"}) {
    const Outcome o = run(answer, before);
    EXPECT_EQ(o.code, 0) << before << "\n" << o.err;
    EXPECT_EQ(json::parse(o.out)["tokens"], tokens) << before;
  }
}

TEST_F(Program, KeepsExpandedWeightsWithinThePanelCache) {
  if (default_model().empty()) GTEST_SKIP() << "the default model is not on this machine";
  const std::string answer = "run -m " + default_model() +
                             " --raw -p 'one two three four five six seven eight nine' -n 2 "
                             "--temp 0 --json --compute f32 --panel-cache ";
  const json none = json::parse(run(answer + "0").out);
  const json all = json::parse(run(answer + "1GiB").out);
  const json some = json::parse(run(answer + "20MiB").out);
  EXPECT_EQ(none["memory"]["panel_cache"], 0);
  EXPECT_GT(all["memory"]["panel_cache"], some["memory"]["panel_cache"]);
  EXPECT_LE(some["memory"]["panel_cache"], 20 << 20);
  EXPECT_EQ(all["tokens"], none["tokens"]);
  EXPECT_EQ(some["tokens"], none["tokens"]);
  expect_refused(answer + "much", "--panel-cache");
}

TEST_F(Program, SaysOnceThatItsCacheCannotBeWritten) {
  write_file(in_folder("file"), "");
  const std::string measured = "BANYAN_PATHS=measured XDG_CACHE_HOME=" + in_folder("file");
  const Outcome o = run("run -m " + tiny_ + " --raw -p hi -n 1 --log-level warn", measured);
  EXPECT_EQ(o.code, 0);
  EXPECT_EQ(o.err.find("banyan: warning: " + in_folder("file") + "/banyan cannot be written"), 0U)
      << o.err;
  EXPECT_EQ(std::count(o.err.begin(), o.err.end(), '\n'), 1) << o.err;
}

TEST_F(Program, SaysOnceThatItHasNoCache) {
  const std::string homeless = "env -u HOME -u XDG_CACHE_HOME ";
  const std::string measured = homeless + "BANYAN_PATHS=measured";
  const std::string answer = "run -m " + tiny_ + " --raw -p hi -n 1 --log-level warn ";
  for (const std::string& command : {answer, std::string("inspect --machine --log-level warn")}) {
    const Outcome o = run(command, measured);
    EXPECT_EQ(o.code, 0);
    EXPECT_EQ(o.err.find("banyan: warning: neither HOME nor XDG_CACHE_HOME is set"), 0U) << o.err;
    EXPECT_EQ(std::count(o.err.begin(), o.err.end(), '\n'), 1) << o.err;
  }
  // Where paths are not chosen, nothing is missed.
  EXPECT_EQ(run(answer, homeless).err, "");
  EXPECT_EQ(run(answer + "--deterministic", measured).err, "");
  EXPECT_EQ(run(answer + "--compute f32", measured).err, "");

  // No place is looked into but those that are named.
  expect_refused("inspect -hf some/tiny", "neither HOME nor XDG_CACHE_HOME is set", homeless);
  expect_refused("inspect -hf some/tiny", "it is not in " + folder_ + ",",
                 homeless + "LLAMA_CACHE=" + folder_);
}

TEST_F(Program, WarnsWhenAnAnswerPassesTheTrainedContext) {
  const std::string ask = "run -m " + tiny_ + " --raw --ignore-eos --json -p hi ";
  EXPECT_NE(run(ask + "-n 4096 --kv-budget 64KiB").err.find("warning"), std::string::npos);
  const json within = json::parse(run(ask + "-n 64 -c 32").out);
  EXPECT_EQ(within["finish_reason"], "length");
  EXPECT_LE(within["usage"]["total_tokens"], 32);
}

// The hub's cache as its own tools lay it out.
TEST_F(Program, FindsModelsOfTheHubInItsCache) {
  const std::string cache = folder_ + "/hf/hub/models--some--tiny-GGUF";
  std::filesystem::create_directories(cache + "/refs");
  std::filesystem::create_directories(cache + "/snapshots/abc");
  std::filesystem::create_directories(cache + "/snapshots/old");
  write_file(cache + "/refs/main", "abc");
  const auto link = [&](const std::string& name) {
    std::filesystem::create_symlink(test_data("golden/llama/model.gguf"), name);
  };
  link(cache + "/snapshots/abc/tiny-Q4_K_M.gguf");
  link(cache + "/snapshots/abc/tiny-Q4_K.gguf");
  link(cache + "/snapshots/old/tiny-Q8_0.gguf");
  const std::string where = "HF_HOME=" + folder_ + "/hf LLAMA_CACHE=" + folder_ + "/llama";
  const auto path_of = [&](const std::string& name) {
    const Outcome o = run("inspect --json -hf " + name, where);
    EXPECT_EQ(o.code, 0) << o.err;
    return o.code == 0 ? json::parse(o.out)["path"].get<std::string>() : "";
  };
  EXPECT_EQ(path_of("some/tiny-GGUF"), cache + "/snapshots/abc/tiny-Q4_K_M.gguf");
  EXPECT_EQ(path_of("some/tiny-GGUF:q4_k"), cache + "/snapshots/abc/tiny-Q4_K.gguf");
  expect_refused("inspect -hf some/tiny-GGUF:Q8_0", "not as q8_0", where);
  expect_refused("inspect -hf some/other", "hf download some/other", where);
  for (const char* wrong : {"tiny", "../tiny", "a/b/c", "some/", "a/b:", "some/..", "'a b/c'"}) {
    expect_refused(std::string("inspect -hf ") + wrong, "expected USER/MODEL", where);
  }
  expect_refused("inspect -m x.gguf -hf some/tiny-GGUF", "two models", where);

  std::filesystem::create_directories(folder_ + "/llama");
  link(folder_ + "/llama/ggml-org_small_small-Q8_0.gguf");
  EXPECT_EQ(path_of("ggml-org/small"), folder_ + "/llama/ggml-org_small_small-Q8_0.gguf");

  const std::string whole = folder_ + "/hf/hub/models--some--folder/snapshots/x";
  std::filesystem::create_directories(whole);
  for (const char* name : {"config.json", "model.safetensors"}) {
    std::filesystem::create_symlink(test_data("golden/gemma3/") + name, whole + "/" + name);
  }
  EXPECT_EQ(path_of("some/folder"), whole);
  expect_refused("inspect -hf some/folder:Q4_0", "leave :QUANT away", where);
}

TEST_F(Program, SaysWhatAFolderIs) {
  const Outcome o = run("inspect --json " + test_data("golden/gemma3"));
  ASSERT_EQ(o.code, 0) << o.err;
  const json facts = json::parse(o.out);
  EXPECT_EQ(facts["architecture"], "gemma3_text");
  EXPECT_EQ(facts["layers"], 7);
  EXPECT_EQ(facts["heads"], 2);
  EXPECT_EQ(facts["kv_heads"], 1);
  EXPECT_EQ(facts["head_dim"], 32);
  EXPECT_EQ(facts["vocab"], 320);
  EXPECT_EQ(facts["context_length"], 4096);
  EXPECT_EQ(facts["kv_bytes_per_token"], 7 * 1 * 32 * 2 * 2);
  EXPECT_EQ(facts["types"]["F32"], 93);
  EXPECT_EQ(facts["bytes"],
            std::filesystem::file_size(test_data("golden/gemma3/model.safetensors")));
  EXPECT_EQ(facts["sliding_window"]["layers"], 6);
  EXPECT_EQ(facts["sliding_window"]["window"], 32);
  EXPECT_EQ(facts["rope"]["freq_base"], 1e6);
  EXPECT_EQ(facts["rope"]["sliding"]["freq_base"], 1e4);
}

TEST_F(Program, RefusesFoldersThatAreNoModels) {
  expect_refused("inspect " + folder_, folder_);
  write_file(folder_ + "/adapter_config.json", "{}");
  expect_refused("run -p hi -m " + folder_, "adapter (LoRA)");
  expect_refused("inspect " + test_data("golden/gemma3/model.safetensors"), "model.safetensors");
}

// A folder with a model and a tokenizer that fits it, in which each test breaks a file.
class BrokenFolder : public Program {
 protected:
  void SetUp() override {
    Program::SetUp();
    model_ = in_folder("model");
    std::filesystem::create_directory(model_);
    for (const char* name : {"config.json", "model.safetensors"}) {
      std::filesystem::copy(test_data("golden/gemma3/") + name, in_model(name));
    }
    std::filesystem::copy(test_data("tokenizers/unigram.json"), in_model("tokenizer.json"));
    write_file(in_folder("ids.json"), "[1, 2, 3]");
    logits_ = "eval logits --log-level error --tokens " + in_folder("ids.json") + " -m " + model_;
    run_ = "run --log-level error -n 1 -p hi -m " + model_;
  }

  std::string in_model(const std::string& name) const { return model_ + "/" + name; }

  // `bytes` in place of a file, for which it is blamed.
  void expect_refused_with(const std::string& command, const std::string& name,
                           const std::string& bytes) const {
    const bool was_there = std::filesystem::exists(in_model(name));
    const std::string whole = read_file(in_model(name));
    write_file(in_model(name), bytes);
    expect_refused(command, name);
    std::filesystem::remove(in_model(name));
    if (was_there) write_file(in_model(name), whole);
  }

  std::string model_;
  std::string logits_;
  std::string run_;
};

TEST_F(BrokenFolder, IsWholeAtFirst) {
  EXPECT_EQ(run(logits_).code, 0);
  EXPECT_EQ(run(run_ + " --raw").code, 0);
}

TEST_F(BrokenFolder, WhatIsNoJsonIsRefused) {
  const std::string bad[] = {std::string(1'000'000, '['),
                             "{\"a\":\"\xFF\"}",
                             R"({"a":1,"a":2})",
                             "[1]",
                             R"({"a":)",
                             std::string(1, '\0'),
                             ""};
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                           "generation_config.json", "chat_template.json"}) {
    for (const std::string& bytes : bad) expect_refused_with(run_ + " --raw", name, bytes);
  }
  for (const std::string& bytes : bad) expect_refused_with(logits_, "config.json", bytes);
  const std::string index = "model.safetensors.index.json";
  std::filesystem::rename(in_model("model.safetensors"), in_model("a.safetensors"));
  for (const std::string& bytes : bad) expect_refused_with(logits_, index, bytes);
  expect_refused_with(logits_, index, R"({"weight_map":{"x":"../model/a.safetensors"}})");
  expect_refused_with(logits_, index, R"({"weight_map":{"x":"a.safetensors"}})");
  write_file(in_model(index), R"({"weight_map":{"x":"b.safetensors"}})");
  expect_refused(logits_, "b.safetensors");
  std::filesystem::create_symlink("b.safetensors", in_model("b.safetensors"));
  expect_refused(logits_, "b.safetensors");
}

TEST_F(BrokenFolder, InspectSaysWhetherThereIsAChatTemplateOrWhatIsWrong) {
  const auto has_template = [&] {
    const Outcome o = run("inspect --json " + model_);
    EXPECT_EQ(o.code, 0) << o.err;
    return o.code == 0 && json::parse(o.out)["chat_template"].get<bool>();
  };
  for (const char* name : {"tokenizer_config.json", "chat_template.json"}) {
    expect_refused_with("inspect " + model_, name, "[1]");
    expect_refused_with("inspect " + model_, name, R"({"chat_template":5})");
  }
  EXPECT_FALSE(has_template());
  write_file(in_model("chat_template.jinja"), "{{ messages }}");
  EXPECT_TRUE(has_template());
  write_file(in_model("tokenizer.json"), "[1]");  // which a template does not need
  EXPECT_TRUE(has_template());
}

TEST_F(BrokenFolder, WhatIsThereButIsNoFileIsRefused) {
  for (const char* name : {"adapter_config.json", "tokenizer_config.json", "generation_config.json",
                           "chat_template.jinja"}) {
    std::filesystem::create_directory(in_model(name));
    expect_refused(run_, name);
    std::filesystem::remove(in_model(name));
    std::filesystem::create_symlink(name, in_model(name));
    expect_refused(run_, name);
    std::filesystem::remove(in_model(name));
  }
}

// The embedding has 320 rows, the tokenizer 426 tokens.
TEST_F(BrokenFolder, TokensWithoutARowAreTokenizedAsTheModelReadsThem) {
  std::filesystem::copy(test_data("tokenizers/byte_level.json"), in_model("tokenizer.json"),
                        std::filesystem::copy_options::overwrite_existing);
  const std::string text = " -p 'The banyan grows roots<mask>'";
  const json ids = json::parse(run("tokenize --json -m " + model_ + text).out)["tokens"];
  EXPECT_LT(*std::max_element(ids.begin(), ids.end()), 320);
  const json reply =
      json::parse(run("run --raw --json -n 1 --log-level error -m " + model_ + text).out);
  EXPECT_EQ(reply["usage"]["prompt_tokens"], ids.size());
  std::filesystem::remove(in_model("config.json"));
  const json alone = json::parse(run("tokenize --json -m " + model_ + text).out)["tokens"];
  EXPECT_LT(alone.size(), ids.size());
}

TEST_F(BrokenFolder, WeightsThatLieAreRefused) {
  const std::string name = "model.safetensors";
  const std::string whole = read_file(in_model(name));
  const auto refuse = [&](const std::string& bytes) { expect_refused_with(logits_, name, bytes); };
  const auto refuse_header = [&](const std::string& header, const std::string& data) {
    const uint64_t size = header.size();
    refuse(std::string(reinterpret_cast<const char*>(&size), sizeof size) + header + data);
  };
  refuse("");
  refuse(whole.substr(0, 7));
  refuse(whole.substr(0, whole.size() / 2));
  refuse(std::string("\0\0\0\0\0\0\0\x40{}", 10));  // 2^62 bytes
  refuse_header(std::string(1'000'000, '['), "");

  uint64_t size = 0;
  std::memcpy(&size, whole.data(), sizeof size);
  const json header = json::parse(whole.substr(sizeof size, size));
  const std::string data = whole.substr(sizeof size + size);
  const auto refuse_change = [&](const char* key, const json& value) {
    json changed = header;
    changed["model.norm.weight"][key] = value;
    refuse_header(changed.dump(), data);
  };
  refuse_change("shape", {uint64_t{1} << 62, 4});
  refuse_change("dtype", "F16");
  refuse_change("data_offsets", {0, uint64_t{1} << 62});
  refuse_change("data_offsets", header["model.embed_tokens.weight"]["data_offsets"]);
}

TEST_F(BrokenFolder, ConfigsThatLieAreRefused) {
  const json whole = json::parse(read_file(in_model("config.json")));
  const auto refuse = [&](const char* key, const json& value) {
    json changed = whole;
    changed[key] = value;
    expect_refused_with(logits_, "config.json", changed.dump());
  };
  for (const char* key : {"hidden_size", "num_hidden_layers", "num_attention_heads", "head_dim",
                          "num_key_value_heads", "intermediate_size", "max_position_embeddings"}) {
    for (const json& value : {json(uint64_t{1} << 62), json(-1), json("8"), json(1.5)}) {
      refuse(key, value);
    }
  }
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    for (const json& value : {json(5), json("x"), json::array(), json::array({json::object()})}) {
      refuse(key, value);
    }
  }
  refuse("rope_parameters", {{"full_attention", 5}});
  refuse("vocab_size", 319);
  refuse("vocab_size", 321);
  refuse("model_type", "none");
  refuse("rms_norm_eps", -1);
  refuse("rms_norm_eps", {});
}

TEST_F(BrokenFolder, TemplatesThatCannotBeAreRefused) {
  for (const std::string& text :
       {std::string("{% for x in y %}"), "{{ " + std::string(1'000'000, '('),
        std::string("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}"),
        std::string("{% for i in range(1000000000) %}x{% endfor %}"),
        std::string("{{ raise_exception('no') }}"), std::string("{{ 1 | nope }}")}) {
    write_file(in_model("chat_template.jinja"), text);
    expect_refused(run_, "chat template");
  }
}

TEST_F(BrokenFolder, ExpressionsThatBacktrackWithoutEndAreRefused) {
  json tokenizer = json::parse(read_file(in_model("tokenizer.json")));
  const json expression = {{"Regex", "(?:a+)+[bc]"}};
  tokenizer["pre_tokenizer"] = {
      {"type", "Split"}, {"pattern", expression}, {"behavior", "Isolated"}, {"invert", false}};
  write_file(in_model("tokenizer.json"), tokenizer.dump());
  const std::string command = "tokenize -m " + model_ + " -p ";
  EXPECT_EQ(run(command + "aab").code, 0);
  expect_refused(command + std::string(100, 'a'), "takes too long");
  tokenizer["pre_tokenizer"] = nullptr;
  tokenizer["normalizer"] = {{"type", "Replace"}, {"pattern", expression}, {"content", "c"}};
  write_file(in_model("tokenizer.json"), tokenizer.dump());
  EXPECT_EQ(run(command + "aab").code, 0);
  expect_refused(command + std::string(100, 'a'), "takes too long");
}

// Shards of a vocabulary with two tensors.
class BrokenShards : public Program {
 protected:
  static GgufWriter shard(int index, int count, const std::string& tensor) {
    GgufWriter writer;
    writer.set("split.no", static_cast<uint16_t>(index));
    writer.set("split.count", static_cast<uint16_t>(count));
    writer.set("split.tensors.count", int32_t{2});
    writer.set("tokenizer.ggml.model", "llama");
    writer.set("tokenizer.ggml.tokens", std::vector<std::string>{"<unk>", "h", "i"});
    writer.set("tokenizer.ggml.scores", std::vector<float>{0, -1, -2});
    writer.add_tensor(tensor, {2}, std::vector<float>{1, 2});
    return writer;
  }
  void SetUp() override {
    Program::SetUp();
    first_ = in_folder("m-00001-of-00002.gguf");
    second_ = in_folder("m-00002-of-00002.gguf");
    command_ = "tokenize -p hi -m " + first_;
    ASSERT_TRUE(shard(0, 2, "a").write(first_) && shard(1, 2, "b").write(second_));
    ASSERT_EQ(run(command_).code, 0);
  }
  // Names the second shard, which was changed, and says why.
  void expect_refused_with(const GgufWriter& changed, const std::string& why) const {
    ASSERT_TRUE(changed.write(second_));
    expect_refused(command_, second_);
    expect_refused(command_, why);
  }

  std::string first_;
  std::string second_;
  std::string command_;
};

TEST_F(BrokenShards, AreRefusedByName) {
  expect_refused_with(shard(0, 2, "b"), "it says that it is shard 1 of 2");
  expect_refused_with(shard(1, 3, "b"), "it says that it is shard 2 of 3");
  expect_refused_with(shard(1, 2, "a"), "tensor 'a' is in another file");
  expect_refused_with(shard(1, 2, "b").add_tensor_entry("c", {2}, 0, 0), "overlap");
  expect_refused_with(shard(1, 2, "b").add_tensor_entry("c", {2}, 0, uint64_t{1} << 62), "'c'");
  ASSERT_TRUE(shard(1, 2, "b").add_tensor("c", {1}, std::vector<float>{1}).write(second_));
  expect_refused(command_, "its 2 shards hold 3 tensors; it says 2");
  write_file(second_, "");
  expect_refused(command_, second_);
  std::filesystem::remove(second_);
  expect_refused(command_, second_);
  std::filesystem::create_symlink(second_, second_);
  expect_refused(command_, second_);
}

TEST_F(BrokenShards, TheFirstMustBeTheFirst) {
  expect_refused("tokenize -p hi -m " + second_, "the first, whose name ends in -00001-of-00002");
  ASSERT_TRUE(shard(0, 1 << 15, "a").write(first_));
  expect_refused(command_, "-00001-of-32768");
  std::filesystem::rename(first_, in_folder("other.gguf"));
  expect_refused("tokenize -p hi -m " + in_folder("other.gguf"), "other.gguf");
}

TEST_F(Program, RefusesAModelThatLinksToItself) {
  std::filesystem::create_symlink("m-00001-of-00002.gguf", in_folder("m-00001-of-00002.gguf"));
  expect_refused("inspect " + in_folder("m-00001-of-00002.gguf"), "m-00001-of-00002.gguf");
}

}  // namespace
}  // namespace banyan
