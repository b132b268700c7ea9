// SPDX-License-Identifier: Apache-2.0
// tools/make-model, and through it what holds for models of every family and of any size: formats
// and types agree, known weights give their known answer, loading maps and does not read.
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/testing_temp_folder.h"
#include "engine/evaluate.h"
#include "engine/inspect.h"
#include "support.h"

namespace banyan {
namespace {

using nlohmann::json;

struct FamilyCase {
  std::string name;
  bool gguf = true;            // there is one
  bool own_kv = false;         // as many KV heads as heads
  std::string in_gguf = {};    // general.architecture, where it is another word
  std::string in_folder = {};  // model_type, likewise
};

const FamilyCase kFamilies[] = {{"llama"},
                                {"mistral", true, false, "llama"},
                                {"mixtral", true, false, "llama"},
                                {"qwen2"},
                                {"qwen3"},
                                {"phi3"},
                                {"gpt_neox", true, true, "gptneox"},
                                {"opt", false, true},
                                {"glm", true, false, "chatglm"},
                                {"glm4"},
                                {"gemma2"},
                                {"gemma3", true, false, "", "gemma3_text"}};

struct Outcome {
  int code = 0;
  std::string output;  // and errors
};

class MakeModel : public testing::Test {
 protected:
  Outcome run(const std::string& arguments) const {
    return run_line(BANYAN_TOOLS "/make-model " + arguments);
  }
  Outcome run_line(const std::string& line) const {
    const std::string log = path("log");
    const std::string whole = line + " >" + log + " 2>&1";
    const int status = std::system(whole.c_str());  // NOLINT(cert-env33-c): a shell is wanted
    std::ifstream file(log);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1,
            std::string((std::istreambuf_iterator<char>(file)), {})};
  }
  // Makes a model and returns its path.
  std::string make(const std::string& family, const std::string& out,
                   const std::string& options) const {
    const Outcome o = run(family + " " + path(out) + " " + options);
    EXPECT_EQ(o.code, 0) << o.output;
    return path(out);
  }
  // What `banyan inspect` prints for people: labels and values, no line empty or as programs like
  // it. Empty if there is no such model.
  std::string expect_table(const std::string& model, const std::string& architecture) const {
    if (!std::filesystem::exists(model)) return "";
    const Outcome o = run_line(BANYAN_PROGRAM " inspect " + model);
    EXPECT_EQ(o.code, 0) << o.output;
    std::istringstream lines(o.output);
    std::map<std::string, std::string> values;
    for (std::string line; std::getline(lines, line);) {
      EXPECT_GT(line.size(), 19U) << line;
      EXPECT_TRUE(line.starts_with("path ") || line.size() <= 100) << line;
      EXPECT_EQ(line.find_first_of("{}\"[]"), std::string::npos) << line;
      EXPECT_NE(line.back(), ' ') << line;
      const std::string label = line.substr(0, line.find("  "));
      EXPECT_TRUE(values.emplace(label, line.substr(std::min<size_t>(19, line.size()))).second);
    }
    EXPECT_EQ(values["architecture"], architecture);
    return o.output;
  }
  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }

  static std::vector<float> last_logits(const std::string& model,
                                        const std::vector<TokenId>& tokens) {
    const auto engine = open_or_fail(exact_options(model));
    if (engine == nullptr) return {};
    const int last = static_cast<int>(tokens.size()) - 1;
    auto found = evaluate_logits(*engine, tokens, {&last, 1});
    EXPECT_TRUE(found.has_value()) << found.error().message;
    return found ? (*found)[0].logits : std::vector<float>();
  }

  TempFolder folder_;
};

class MakeFamily : public MakeModel, public testing::WithParamInterface<FamilyCase> {};

void expect_near(const std::vector<float>& found, const std::vector<float>& want, double bound,
                 const std::string& what) {
  ASSERT_EQ(found.size(), want.size()) << what;
  double worst = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_TRUE(std::isfinite(found[i])) << what;
    worst = std::max(worst, std::abs(double(found[i]) - want[i]));
  }
  EXPECT_LE(worst, bound) << what;
}

// Seven layers, so that Gemma 3 has one that does not slide.
std::string small_shape(const FamilyCase& family) {
  return std::string("--layers 7 --hidden 64 --heads 4 --head-dim 16 --ffn 96 --vocab 320 ") +
         (family.own_kv ? "" : "--kv-heads 2 ");
}

TEST_P(MakeFamily, FormatsAndTypesOfOneSeedGiveTheSameLogits) {
  const FamilyCase& family = GetParam();
  std::vector<TokenId> tokens(90);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<TokenId>(3 + i * 37 % 300);
  const std::string shape = small_shape(family);
  const std::vector<float> want =
      last_logits(make(family.name, "f32", shape + "--type f32"), tokens);
  ASSERT_EQ(want.size(), 320U);
  const auto [low, high] = std::ranges::minmax(want);
  EXPECT_GT(high - low, 1);
  const double bound = 1e-4 * (high - low);
  expect_near(last_logits(make(family.name, "bf16", shape), tokens), want, bound, "bf16 folder");
  expect_near(last_logits(make(family.name, "f16", shape + "--type f16"), tokens), want, bound,
              "f16 folder");
  const std::vector<float> other =
      last_logits(make(family.name, "other", shape + "--seed 2"), tokens);
  EXPECT_NE(other, want);
  if (!family.gguf) return;
  for (const std::string type : {"f32", "f16", "bf16", "q8_0"}) {
    const std::string model = make(family.name, type + ".gguf", shape + "--type " + type);
    expect_near(last_logits(model, tokens), want, bound, type + " GGUF");
  }
  // Other weights, of four bits.
  const auto q4 = last_logits(make(family.name, "q4_0.gguf", shape + "--type q4_0"), tokens);
  ASSERT_EQ(q4.size(), 320U);
  for (const float logit : q4) EXPECT_TRUE(std::isfinite(logit));
}

TEST_P(MakeFamily, IsWhatWasAskedFor) {
  const FamilyCase& family = GetParam();
  const auto expect_facts = [&](const std::string& model, const std::string& architecture) {
    const auto facts = inspect_model(model, DType::kF16, DType::kF16);
    ASSERT_TRUE(facts.has_value()) << facts.error().message;
    EXPECT_EQ(facts->architecture, architecture.empty() ? family.name : architecture);
    EXPECT_EQ(facts->layers, 7);
    EXPECT_EQ(facts->heads, 4);
    EXPECT_EQ(facts->kv_heads, family.own_kv ? 4 : 2);
    EXPECT_EQ(facts->head_dim, 16);
    EXPECT_EQ(facts->vocab, 320);
    EXPECT_EQ(facts->context_length, 512);
    EXPECT_EQ(facts->experts, family.name == "mixtral" ? 4 : 0);
    expect_table(model, facts->architecture);
  };
  const std::string shape = small_shape(family) + "--context 512 " +
                            (family.name == "mixtral" ? "--experts 4 --experts-used 1 " : "");
  expect_facts(make(family.name, "folder", shape), family.in_folder);
  if (family.gguf) expect_facts(make(family.name, "x.gguf", shape), family.in_gguf);
}

// Logits are in proportion to how often a token was seen; soft caps bend the line, not the order.
TEST_P(MakeFamily, CountingWeightsCount) {
  const FamilyCase& family = GetParam();
  const std::vector<std::pair<TokenId, int>> counts = {{80, 9},  {70, 7},  {90, 5}, {100, 2},
                                                       {110, 2}, {120, 1}, {130, 1}};
  std::vector<TokenId> tokens;
  for (const auto& [token, count] : counts)
    tokens.insert(tokens.begin() + tokens.size() / 2, count, token);
  ASSERT_NE(tokens.back(), 120);
  const std::string shape =
      "--layers 2 --hidden 384 --heads 6 --kv-heads 6 --head-dim 64 --ffn 96 --vocab 320 "
      "--weights count ";
  std::vector<std::string> models = {make(family.name, "folder", shape)};
  if (family.gguf) {
    models.push_back(make(family.name, "q8_0.gguf", shape));
    models.push_back(make(family.name, "q4_0.gguf", shape + "--type q4_0"));
  }
  for (const std::string& model : models) {
    const auto logits = last_logits(model, tokens);
    ASSERT_EQ(logits.size(), 320U);
    const float none = logits[5];
    const float one = logits[120] - none;
    EXPECT_GT(one, 0.5);
    const double slack = family.name == "gemma2" ? 0.2 : 0.01;
    for (const auto& [token, count] : counts) {
      if (token == tokens.back()) continue;
      EXPECT_NEAR((logits[token] - none) / (one * count), 1, slack) << model << " " << token;
    }
    for (TokenId token = 140; token < 320; ++token) EXPECT_NEAR(logits[token], none, 1e-4);
  }
}

TEST_F(MakeModel, TheTableCountsFiles) {
  const std::string table = expect_table(shared_data("golden/mistral"), "mistral");
  if (table.empty()) GTEST_SKIP() << "the golden model mistral is not here";
  EXPECT_NE(table.find("in 2 files"), std::string::npos) << table;
}

INSTANTIATE_TEST_SUITE_P(Each, MakeFamily, testing::ValuesIn(kFamilies),
                         [](const auto& test) { return test.param.name; });

TEST_F(MakeModel, WhatIsBehindTheWindowIsNotCounted) {
  const std::string model =
      make("mistral", "folder",
           "--layers 2 --hidden 384 --heads 6 --kv-heads 2 --head-dim 192 --ffn 96 --vocab 320 "
           "--weights count --window 8");
  std::vector<TokenId> tokens(40, 70);
  std::fill(tokens.end() - 8, tokens.end() - 5, 80);
  std::fill(tokens.end() - 5, tokens.end(), 90);
  const auto logits = last_logits(model, tokens);
  ASSERT_EQ(logits.size(), 320U);
  EXPECT_NEAR(logits[70], logits[71], 1e-4);
  EXPECT_GT(logits[80], logits[70] + 1);
  EXPECT_GT(logits[90], logits[80]);
}

TEST_F(MakeModel, BytesAreTokensInBothFormats) {
  const std::string shape = small_shape({}) + "--tied";
  for (const std::string& model :
       {make("llama", "folder", shape), make("llama", "x.gguf", shape)}) {
    const auto engine = open_or_fail(exact_options(model));
    ASSERT_NE(engine, nullptr);
    const std::string text = "a b  \u00e9";
    const std::vector<TokenId> tokens = {3 + 'a', 259, 3 + 'b', 260, 3 + 0xC3, 3 + 0xA9};
    EXPECT_EQ(*engine->encode_raw(text), tokens) << model;
    EXPECT_EQ(engine->tokenizer().decode(tokens, Special::kParse), text) << model;
  }
}

TEST_F(MakeModel, WrongArgumentsGetASentence) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "FAMILY"},
      {"bert x", "bert"},
      {"llama x --layers", "--layers"},
      {"llama x --layers many", "many"},
      {"llama x --layers 0", "--layers is 0"},
      {"llama x --nonsense", "--nonsense"},
      {"llama x --heads 5 --kv-heads 2", "5 heads"},
      {"llama x --heads 7", "--head-dim"},
      {"llama x --head-dim 7", "even"},
      {"llama x --type q4_0", "q4_0"},
      {"llama x --type q9", "q9"},
      {"llama x.gguf --hidden 100 --heads 10 --kv-heads 10", "multiple of 32"},
      {"llama x --vocab 100", "261"},
      {"llama x --window 9", "no sliding window"},
      {"llama x --experts 4", "mixtral"},
      {"mixtral x --experts 4 --experts-used 5", "5 of 4"},
      {"mixtral x --experts 0", "experts"},
      {"mistral x.gguf --window 9", "give a folder"},
      {"opt x.gguf", "give a folder"},
      {"opt x --kv-heads 3", "as many as heads"},
      {"gpt_neox x --tied", "never tied"},
      {"llama x --weights count", "--weights count"}};
  for (const auto& [arguments, place] : cases) {
    const Outcome o = run(arguments);
    EXPECT_EQ(o.code, 2) << arguments << ": " << o.output;
    EXPECT_EQ(o.output.find("make-model: error: "), 0U) << o.output;
    EXPECT_EQ(std::ranges::count(o.output, '\n'), 1) << o.output;
    EXPECT_NE(o.output.find(place), std::string::npos) << arguments << ": " << o.output;
  }
  EXPECT_EQ(run("llama " + path("log/x.gguf")).code, 1);  // log is a file
  const Outcome help = run("--help");
  EXPECT_EQ(help.code, 0);
  EXPECT_LE(std::ranges::count(help.output, '\n'), 60);
}

// Gemma 3's tokenizer knows an image token that its text model has no row for.
TEST_F(MakeModel, TokensWithoutARowAreText) {
  const std::string model = make("gemma3", "folder", small_shape({}));
  const std::string without = "<image_soft_token>";
  {
    const std::string file = model + "/tokenizer.json";
    json tokenizer = json::parse(std::ifstream(file));
    json added = tokenizer["added_tokens"][2];
    added["id"] = 320;
    added["content"] = without;
    tokenizer["added_tokens"].push_back(added);
    tokenizer["model"]["vocab"][without] = 320;
    tokenizer["model"]["vocab"]["ab"] = 321;
    tokenizer["model"]["vocab"]["a"] = 3 + 'a';  // instead of its byte
    tokenizer["model"]["vocab"]["b"] = 3 + 'b';
    tokenizer["model"]["vocab"].erase("<0x61>");
    tokenizer["model"]["vocab"].erase("<0x62>");
    tokenizer["model"]["merges"].push_back("a b");
    std::ofstream(file) << tokenizer;
  }
  const auto engine = open_or_fail(exact_options(model));
  ASSERT_NE(engine, nullptr);
  EXPECT_EQ(engine->tokenizer().size(), 320);
  const std::string text = "ab" + without + "ab";
  const auto tokens = *engine->encode_raw(text);
  EXPECT_EQ(tokens.size(), text.size());
  EXPECT_LT(*std::ranges::max_element(tokens), 320);
  EXPECT_EQ(engine->tokenizer().decode(tokens, Special::kParse), text);
  const int last = static_cast<int>(tokens.size()) - 1;
  EXPECT_TRUE(evaluate_logits(*engine, tokens, {&last, 1}).has_value());
}

// A line of /proc/self/status, in bytes; -1 if there is none.
int64_t resident(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(key + ":")) return std::stoll(line.substr(key.size() + 1)) * 1024;
  }
  return -1;
}

// A quarter of a GiB, of which loading reads next to nothing and a token only what it needs: two
// experts of 16.
TEST_F(MakeModel, MemoryGrowsOnlyAsWeightsAreTouched) {
  if (resident("RssFile") < 0) GTEST_SKIP() << "this system does not tell what is resident";
  constexpr int64_t kMiB = 1 << 20;
  const std::string shape =
      "--layers 4 --hidden 512 --heads 8 --ffn 1024 --experts 16 --vocab 320 --weights zero ";
  for (const std::string out : {"x.gguf", "folder"}) {
    const std::string model = make("mixtral", out, shape + "--type bf16");
    const auto bytes = static_cast<int64_t>(
        std::filesystem::file_size(out == "folder" ? model + "/model.safetensors" : model));
    ASSERT_GT(bytes, 200 * kMiB);
    const int64_t mapped = resident("RssFile");
    const int64_t own = resident("RssAnon");
    EngineOptions options = exact_options(model);
    options.compute = Compute::kAuto;
    const auto engine = open_or_fail(options);
    ASSERT_NE(engine, nullptr);
    EXPECT_LT(resident("RssFile") - mapped, 8 * kMiB) << out;
    EXPECT_LT(resident("RssAnon") - own, 32 * kMiB) << out;
    const std::array<TokenId, 1> token = {7};
    const int at = 0;
    ASSERT_TRUE(evaluate_logits(*engine, token, {&at, 1}).has_value());
    EXPECT_GT(resident("RssFile") - mapped, bytes / 16) << out;
    EXPECT_LT(resident("RssFile") - mapped, bytes / 4) << out;
    EXPECT_LT(resident("RssAnon") - own, 64 * kMiB) << out;
  }
}

}  // namespace
}  // namespace banyan
