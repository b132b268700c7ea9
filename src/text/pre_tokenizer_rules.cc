// SPDX-License-Identifier: Apache-2.0
#include "text/pre_tokenizer_rules.h"

#include <algorithm>
#include <utility>

namespace banyan {

const char* const kGpt2Expression =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

// The expressions of the models' tokenizer.json files; which name stands for which is llama.cpp's
// convention (convert_hf_to_gguf_update.py).

// Letters of the alphabets that have two cases, as that model lists them.
const char* const kDeepSeekLetters =
    R"(\s?[)"
    R"(A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293})"
    R"(\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386})"
    R"(\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F})"
    R"(\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA})"
    R"(\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A})"
    R"(\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D})"
    R"(\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4})"
    R"(\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3})"
    R"(\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107})"
    R"(\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D})"
    R"(\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184})"
    R"(\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D})"
    R"(\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E})"
    R"(\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A})"
    R"(\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB})"
    R"(\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943})"
    R"(]+)";

struct Rule {
  std::vector<std::string_view> names;
  std::vector<std::string> expressions;  // one after another
  bool takes_whole_words = false;
};

// Stands for digits in threes, counted from the right, among expressions.
constexpr std::string_view kDigitGroups = R"(\d{1,3}(?=(?:\d{3})*\b))";

std::vector<Rule> make_rules() {
  const std::string one_digit = R"(\p{N})";
  const std::string three_digits = R"(\p{N}{1,3})";
  const std::string ascii_three = "[0-9][0-9][0-9]";
  const std::string line_end = R"([\r\n])";
  const std::string contraction = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])";
  const std::string letters = R"([^\r\n\p{L}\p{N}]?\p{L}+)";
  const std::string others = R"( ?[^\s\p{L}\p{N}]+[\r\n]*)";
  const std::string spaces = R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
  const std::string gpt2 = kGpt2Expression;

  // GPT-4's shape, which most models since 2024 share: they differ in how they take digits.
  const auto gpt4 = [&](const std::string& digits) {
    return contraction + "|" + letters + "|" + digits + "|" + others + "|" + spaces;
  };
  const std::string lead = R"([^\r\n\p{L}\p{N}]?)";
  // GPT-4o's: words change at an upper-case letter after a lower-case one.
  const std::string upper = R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])";
  const std::string lower = R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])";
  const auto gpt4o = [&](const std::string& digits, const std::string& suffix) {
    return lead + upper + "*" + lower + "+" + suffix + "|" + lead + upper + "+" + lower + "*" +
           suffix + "|" + digits + R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*|)" + spaces;
  };
  const std::string qwen2 = gpt4(one_digit);
  const std::string llama3 = gpt4(three_digits);

  const std::string qwen35 = contraction +
                             R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N})"
                             R"(| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|)" +
                             spaces;
  const std::string seed_coder =
      contraction + "|" + letters + R"(|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|)" + spaces;
  const std::string bailing =
      R"('(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N})"
      R"(| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)";
  const std::string exaone_moe = contraction +
                                 R"(|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N})" +
                                 R"(| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+)";
  const std::string cjk = "[一-龥぀-ゟ゠-ヿ]+";
  const std::string youtu_scripts =
      "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|" + cjk;
  const std::string deepseek_han = "[一-龥ࠀ-一가-퟿]+";
  const std::string ascii_mark_and_word = R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+)";
  const std::string deepseek3 = ascii_mark_and_word +
                                R"(|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|)" +
                                spaces;
  const std::string bloom = R"( ?[^(\s|.,!?…。，、।۔،)]+)";

  const std::string jais2 =
      contraction + "|" + letters + "|" + three_digits + "|" + others +
      R"(|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S))"
      R"(|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s)";
  const std::string spark = ascii_mark_and_word +
                            R"(|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n])"
                            R"(|\s+(?!\S)|\s+)";
  // Moonshot's tokenization_kimi.py.
  const std::string kimi_upper = R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]])";
  const std::string kimi_lower = R"([\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]])";
  const std::string kimi = R"([\p{Han}]+|)" + lead + kimi_upper + "*" + kimi_lower + "+" +
                           contraction + "?|" + lead + kimi_upper + "+" + kimi_lower + "*" +
                           contraction + "?|" + three_digits + "|" + others + "|" + spaces;
  const std::string afmoe_scripts =
      "[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-"
      "꧿가-"
      "힯ᄀ-"
      "ᇿ]"
      "+";

  return {
      {{"", "default"}, {R"([\p{P}\$\+<=>\^~\|]+)", gpt2, R"(\p{N}+)", ascii_three}},
      {{"gpt-2",      "gpt2",        "mpt",        "olmo",
        "gpt-neox",   "jais",        "trillion",   "granite-docling",
        "phi-2",      "exaone4",     "gigachat",   "a.x-4.0",
        "mellum",     "modern-bert", "jina-es",    "jina-de",
        "jina-v1-en", "jina-v2-es",  "jina-v2-de", "jina-v2-code",
        "roberta-bpe"},
       {gpt2}},
      {{"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b",
        "mellum2"},
       {one_digit, gpt2}},
      {{"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
        "jina-v5-nano", "glm4", "glm5"},
       {llama3},
       true},
      {{"dbrx", "smaug-bpe", "chatglm-bpe"}, {llama3}},
      {{"qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan", "solar-open", "kormo",
        "f2llmv2", "grok-2"},
       {qwen2}},
      {{"qwen35"}, {qwen35}},
      {{"minicpm5"}, {three_digits, gpt4(R"(\p{N}+)")}, true},
      {{"ufakzeka"}, {letters + R"(|\p{N}|)" + others + "|" + spaces}},
      {{"laguna"}, {R"([^\n]+|[\n]+)", qwen2}},
      {{"seed-coder"}, {seed_coder}},
      {{"bailingmoe", "bailingmoe2", "llada-moe"}, {bailing}},
      {{"exaone-moe"}, {exaone_moe}},
      {{"tekken"}, {gpt4o(one_digit, "")}, true},
      {{"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"},
       {gpt4o(three_digits, contraction + "?")}},
      {{"youtu"}, {youtu_scripts, gpt4o(one_digit, contraction + "?")}, true},
      {{"deepseek-llm"},
       {line_end, kDeepSeekLetters, R"(\s?[!-/:-~！-／：-～‘-‟　-。]+)", R"(\s+$)", deepseek_han,
        R"(\p{N}+)"}},
      {{"deepseek-coder"}, {line_end, R"(\s?\p{L}+)", R"(\s?\p{P}+)", deepseek_han, one_digit}},
      {{"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"}, {three_digits, cjk, deepseek3}},
      {{"falcon"}, {R"([\p{P}\$\+<=>\^~\|`]+)", gpt2, ascii_three}},
      {{"bloom", "poro-chat", "gpt3-finnish"}, {bloom}},
      {{"viking"}, {bloom, one_digit}},
      {{"jais-2"}, {jais2}},
      {{"spark2_5"}, {three_digits, cjk, spark, one_digit}},
      {{"chameleon"},
       {"<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", R"([\t\n]|    |  )", one_digit,
        R"([\p{P}!-/:-@\[-`{-~])", gpt2}},
      {{"tiny_aya", "cohere2moe"},
       {std::string(kDigitGroups), gpt4o(three_digits, contraction + "?")}},
      {{"superbpe"}, {R"(\p{N}+)", std::string(kDigitGroups)}},
      {{"kimi-k2"}, {kimi}},
      {{"afmoe"}, {std::string(kDigitGroups), afmoe_scripts, deepseek3}},
      {{"gemma4", "sarvam-moe"}, {R"([^\n]+|\n+)"}},
  };
}

}  // namespace

std::optional<PreTokenizerRule> find_pre_tokenizer_rule(std::string_view name) {
  for (const Rule& rule : make_rules()) {
    if (std::find(rule.names.begin(), rule.names.end(), name) == rule.names.end()) continue;
    PreTokenizerRule found{rule.names, {}, rule.takes_whole_words};
    for (const std::string& expression : rule.expressions) {
      SplitStep step;
      step.kind = expression == kDigitGroups ? SplitStep::kDigitGroups : SplitStep::kExpression;
      step.pattern = expression;
      found.splits.push_back(std::move(step));
    }
    return found;
  }
  return std::nullopt;
}

}  // namespace banyan
