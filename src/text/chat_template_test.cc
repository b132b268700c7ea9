// SPDX-License-Identifier: Apache-2.0
#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "text/testing_vocabulary.h"

namespace banyan {
namespace {

const std::vector<ChatMessage>& conversation() {
  static const std::vector<ChatMessage> messages = {{"system", "Be brief."},
                                                    {"user", "Hi\nthere {{ 1 + 1 }}"}};
  return messages;
}

// What the template gives, or "error: .." with the message.
std::string render(const std::string& source, TemplateLimits limits = {},
                   std::span<const ChatMessage> messages = conversation()) {
  const auto created = ChatTemplate::create(source, "<s>", "</s>", limits);
  if (!created) {
    EXPECT_EQ(created.error().code, ErrorCode::kBadInput);
    return "error: " + created.error().message;
  }
  const auto text = created->render(messages, true);
  if (text) return *text;
  EXPECT_EQ(text.error().code, ErrorCode::kBadInput);
  return "error: " + text.error().message;
}

// The default limits but for the time, which a sanitizer may stretch.
TemplateLimits patient() {
  TemplateLimits limits;
  limits.max_time = std::chrono::minutes(5);
  return limits;
}

std::string repeat(std::string_view text, size_t n) {
  std::string repeated;
  repeated.reserve(text.size() * n);
  for (size_t i = 0; i < n; ++i) repeated += text;
  return repeated;
}

TEST(ChatTemplate, RendersMessagesAndTheVariablesModelsExpect) {
  EXPECT_EQ(
      render("{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m['content'] }}\n"
             "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}{{ eos_token }}"),
      "<s>[system] Be brief.\n[user] Hi\nthere {{ 1 + 1 }}\n[assistant]</s>");
  EXPECT_EQ(
      render("{{ 'none' if tools is none }} {{ documents is none }} {{ missing is defined }}"),
      "none True False");
  EXPECT_EQ(render("{% if tools %}T{% endif %}{{ messages|length }}{{ messages[-1].role }}"),
            "2user");
  EXPECT_EQ(render(""), "");
  EXPECT_EQ(render("plain text\n"), "plain text");
}

TEST(ChatTemplate, WhiteSpaceControlIsThatOfTransformers) {
  EXPECT_EQ(render("a\n  {% if true %}\nb\n  {% endif %}\nc"), "a\nb\nc");
  EXPECT_EQ(render("a  {%- if true -%}  b  {%- endif %} c"), "ab c");
  EXPECT_EQ(render("x {% if true %}y{% endif %}"), "x y");
  EXPECT_EQ(render("a\r\nb\rc{# note #}\r\nd"), "a\nb\ncd");
}

TEST(ChatTemplate, OperationsOfTheEngineThatOurPatchTouches) {
  EXPECT_EQ(render("{{ 'a-b-c'.split('-')|string }} {{ 'a-b-c'.rsplit('-', 1)|string }}"),
            "['a', 'b', 'c'] ['a-b', 'c']");
  EXPECT_EQ(render("{{ 'a--b---'.split('--')|string }}{{ 'aaa'.rsplit('aa')|string }}"),
            "['a', 'b', '-']['a', '']");
  EXPECT_EQ(render("{{ 'aXbX'.replace('X', 'yy') }} {{ 'ab'.replace('', '-') }}"), "ayybyy -a-b-");
  EXPECT_EQ(render("{{ ' x '|trim }}|{{ 'xxyx'.strip('x') }}|{{ ('a' ~ 'b')|capitalize }}"),
            "x|y|Ab");
  EXPECT_EQ(render("{{ 'ab' * 3 }}{{ 'x' * -1 }}{{ ['a', 'b']|join(', ') }}"), "abababa, b");
  EXPECT_EQ(render("{{ range(3)|string }}{{ range(5, 0, -2)|string }}"), "[0, 1, 2][5, 3, 1]");
  EXPECT_EQ(render("{{ 'abcdef'[1:4] }}{{ 'abc'[::-1] }}{{ [1,2,3][-2:]|string }}"),
            "bcdcba[2, 3]");
  EXPECT_EQ(render("{{ {'a': [1, 'x']}|tojson }}"), "{\"a\": [1, \"x\"]}");
  EXPECT_EQ(render("{{ [3, 1, 2]|sort|string }}{{ 'b' in 'abc' }}{{ 9 is divisibleby 3 }}"),
            "[1, 2, 3]TrueTrue");
  EXPECT_EQ(render("{{ 'l1\nl2'|indent(2) }}|{{ '{}-{}'.format('a', 'b') }}"), "l1\n  l2|a-b");
  EXPECT_EQ(render("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m('a') }}{{ m(x=1) }}"), "<a><1>");
  EXPECT_EQ(render("{% set ns = namespace(n=0) %}{% for i in range(4) %}{% set ns.n = ns.n + i %}"
                   "{% endfor %}{{ ns.n }}"),
            "6");
}

TEST(ChatTemplate, ErrorsSayWhereAndWhat) {
  EXPECT_EQ(
      render("{{ 1 }}\n{{ raise_exception('Only user turns.') }}"),
      "error: the chat template cannot be applied to these messages: line 2, column 19: Jinja "
      "Exception: Only user turns.");
  EXPECT_EQ(render("{% if %}"),
            "error: the chat template is not valid Jinja: Unexpected token: %} of type 9");
  EXPECT_EQ(
      render("ab\n{{ 'x"),
      "error: the chat template is not valid Jinja: line 2, column 6: unexpected end of input "
      "during consume_while");
  EXPECT_EQ(render("{{ 99999999999999999999 }}"),
            "error: the chat template is not valid Jinja: line 1, column 4: Number out of range");
  const std::string loud = render("{{ raise_exception('\x1b[31m' ~ 'x' * 100000) }}");
  EXPECT_LT(loud.size(), 700U);
  EXPECT_EQ(loud.find('\x1b'), std::string::npos);
}

TEST(ChatTemplate, EveryTemplateAtHandRendersASimpleConversation) {
  const std::filesystem::path folder = BANYAN_VOCAB_DATA "/templates";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not on this machine.";
  int n = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".jinja") continue;
    const std::string name = entry.path().filename().string();
    const std::string text = render(read_file(entry.path()));
    ++n;
    // Refuses system messages, as its model does.
    const bool refuses_system = name == "google-gemma-2-2b-it.jinja";
    // Written for calls with tools: they loop over `tools` and fail in transformers, too.
    const bool needs_tools =
        name.find("tool_use") != std::string::npos && name.find("command-r7b") == std::string::npos;
    EXPECT_EQ(text.starts_with("error: "), refuses_system || needs_tools) << name << ": " << text;
    if (!refuses_system && !needs_tools) {
      EXPECT_NE(text.find("there {{ 1 + 1 }}"), std::string::npos) << name;
    }
  }
  EXPECT_GT(n, 30);
}

// Questions and the token ids of their prompts, as transformers made them with the default model.
TEST(ChatTemplate, DefaultModelsPromptsAreTheGoldenOnes) {
  const std::string model = default_model_path();
  const std::string golden = read_file(BANYAN_TEST_DATA "/golden/default-model.json");
  if (model.empty() || golden.empty()) GTEST_SKIP() << "The model or its prompts are not here.";
  const Tokenizer tokenizer = create_or_fail(GgufVocabulary(model).vocabulary);
  const Vocabulary& vocabulary = tokenizer.vocabulary();
  const auto chat =
      ChatTemplate::create(vocabulary.chat_template, vocabulary.tokens[vocabulary.bos],
                           vocabulary.tokens[vocabulary.eos]);
  ASSERT_TRUE(chat.has_value()) << chat.error().message;

  const std::string question_key = "{\"question\": \"";
  const std::string tokens_key = "\"tokens\": [";
  int n = 0;
  for (size_t at = 0; (at = golden.find(question_key, at)) != std::string::npos; ++n) {
    at += question_key.size();
    const std::string question = golden.substr(at, golden.find("\", ", at) - at);
    ASSERT_EQ(question.find('\\'), std::string::npos) << "the file escapes characters";
    at = golden.find(tokens_key, at) + tokens_key.size();
    std::string list = golden.substr(at, golden.find(']', at) - at);
    std::replace(list.begin(), list.end(), ',', ' ');
    std::istringstream stream(list);
    const std::vector<TokenId> expected{std::istream_iterator<TokenId>(stream), {}};

    const ChatMessage message{"user", question};
    const auto text = chat->render({&message, 1}, true);
    ASSERT_TRUE(text.has_value()) << text.error().message;
    EXPECT_EQ(*tokenizer.encode(*text, Special::kParse), expected) << question;
  }
  EXPECT_EQ(n, 11);
}

TEST(ChatTemplate, ThreadsShareOneTemplate) {
  const auto chat = ChatTemplate::create(
      "{% for m in messages %}{{ m.role|upper }}:{{ m.content }};{% endfor %}", "", "");
  ASSERT_TRUE(chat.has_value());
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&chat, i] {
      const ChatMessage message{"user", std::to_string(i)};
      for (int round = 0; round < 200; ++round) {
        EXPECT_EQ(*chat->render({&message, 1}, true), "USER:" + message.content + ";");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(ChatTemplate, LongConversationsAndMessagesPassTheDefaultLimits) {
  const std::string source =
      "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + "
      "'\n' }}{% endfor %}";
  const std::vector<ChatMessage> many(5000, ChatMessage{"user", "hello"});
  EXPECT_EQ(render(source, {}, many), repeat("<|im_start|>user\nhello<|im_end|>\n", 5000));
  const std::vector<ChatMessage> large = {
      {"user", std::string(20'000'000, 'x')}};  // NOLINT(bugprone-string-constructor)
  EXPECT_EQ(render(source, {}, large).size(), 20'000'000 + 33 - 5);
}

// A user's message must not cost more than its length, whatever the template does to it.
TEST(ChatTemplate, MessagesOfManySeparatorsAreHandledInLinearTime) {
  const std::string source =
      "{{ messages[0].content.split('</think>')[-1] }}{{ "
      "messages[0].content.rsplit('\n')[0]|length "
      "}}{{ messages[0].content.replace('\n', '\n  ')|length }}{{ messages[0].content|trim|length "
      "}}";
  const std::vector<ChatMessage> messages = {{"user", repeat("</think>\n", 200'000)}};
  TemplateLimits limits;
  limits.max_time = std::chrono::minutes(10);
  EXPECT_EQ(render(source, limits, messages).substr(0, 2), "\n8");
}

struct Hostile {
  const char* name;
  std::string source;
};

std::vector<Hostile> hostile_templates() {
  const std::string doubling =
      "{% set ns = namespace(v='aaaaaaaaaaaaaaaa') %}{% for i in range(99) %}";
  const std::string nesting = "{% set ns = namespace(v=[1]) %}{% for i in range(5000) %}";
  return {
      {"a long range", "{% for i in range(1000000000000) %}x{% endfor %}"},
      {"an endless range", "{{ range(-9223372036854775807, 9223372036854775807, 1)|list|length }}"},
      {"nested loops", repeat("{% for i in range(1000) %}", 9) + "x" + repeat("{% endfor %}", 9)},
      {"a repeated string", "{{ 'a' * 1000000000 }}"},
      {"a string repeated for ever", "{{ 'a' * 9223372036854775807 }}"},
      {"doubled strings", doubling + "{% set ns.v = ns.v + ns.v %}{% endfor %}{{ ns.v }}"},
      {"doubled lists",
       "{% set ns = namespace(v=[1]) %}{% for i in range(99) %}{% set ns.v = ns.v + ns.v %}"
       "{% endfor %}{{ ns.v|length }}"},
      {"doubled by joining", doubling + "{% set ns.v = [ns.v, ns.v]|join %}{% endfor %}{{ ns.v }}"},
      {"doubled by replacing",
       doubling + "{% set ns.v = ns.v|replace('a', 'aaaa') %}{% endfor %}{{ ns.v }}"},
      {"doubled by replacing nothing",
       doubling + "{% set ns.v = ns.v|replace('', 'aaaa') %}{% endfor %}{{ ns.v }}"},
      {"doubled by formatting",
       doubling + "{% set ns.v = '{}{}'.format(ns.v, ns.v) %}{% endfor %}{{ ns.v }}"},
      {"doubled text of lists",
       "{% set ns = namespace(v=[1, 2]) %}{% for i in range(60) %}{% set ns.v = [ns.v, ns.v] %}"
       "{% endfor %}{{ ns.v|string|length }}"},
      {"doubled JSON",
       "{% set ns = namespace(v=[1, 2]) %}{% for i in range(60) %}{% set ns.v = [ns.v, ns.v] %}"
       "{% endfor %}{{ ns.v|tojson|length }}"},
      {"doubled output",
       "{% set ns = namespace(v=['x']) %}{% for i in range(60) %}{% set ns.v = [ns.v, ns.v] %}"
       "{% endfor %}{{ ns.v }}"},
      {"a key of doubled tuples",
       "{% set ns = namespace(v=(1, 2)) %}{% for i in range(60) %}{% set ns.v = (ns.v, ns.v) %}"
       "{% endfor %}{{ {ns.v: 1}|length }}"},
      {"doubled tuples compared",
       "{% set a = namespace(v=(1, 2)) %}{% set b = namespace(v=(1, 2)) %}{% for i in range(60) %}"
       "{% set a.v = (a.v, a.v) %}{% set b.v = (b.v, b.v) %}{% endfor %}{{ a.v == b.v }}"},
      {"a wide indent", "{{ 'x\ny'|indent(999999999999) }}"},
      {"a wide indent of JSON", "{{ [[1]]|tojson(indent=2000000000) }}"},
      {"a deep indent of JSON",
       nesting + "{% set ns.v = [ns.v] %}{% endfor %}{{ ns.v|tojson(indent=60) }}"},
      {"a recursive macro", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"},
      {"a macro that calls itself twice",
       "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(30) "
       "}}"},
      {"macros that call each other",
       "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}"},
      {"a recursive caller",
       "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}"},
      {"parentheses", "{{ " + repeat("(", 300'000) + "1" + repeat(")", 300'000) + " }}"},
      {"open parentheses", "{{ " + repeat("(", 1'000'000)},
      {"brackets", "{{ " + repeat("[", 300'000)},
      {"braces", "{{ " + repeat("{1:", 300'000)},
      {"negations", "{{ " + repeat("not ", 200'000) + "1 }}"},
      {"signs", "{{ " + repeat("- ", 300'000) + "x }}"},
      {"calls", "{{ x" + repeat("()", 300'000) + " }}"},
      {"calls with arguments", "{{ x" + repeat("(x", 300'000)},
      {"members", "{{ x" + repeat(".a", 300'000) + " }}"},
      {"indices", "{{ x" + repeat("[0]", 300'000) + " }}"},
      {"sums", "{{ 1" + repeat("+1", 300'000) + " }}"},
      {"products", "{{ 1" + repeat("*1", 300'000) + " }}"},
      {"comparisons", "{{ 1" + repeat("<1", 300'000) + " }}"},
      {"conjunctions", "{{ 1" + repeat(" and 1", 100'000) + " }}"},
      {"filters", "{{ x" + repeat("|f", 300'000) + " }}"},
      {"tests", "{{ x" + repeat(" is y", 200'000) + " }}"},
      {"ternaries", "{{ " + repeat("1 if 0 else ", 80'000) + "1 }}"},
      {"nested ifs", repeat("{% if 1 %}", 40'000) + repeat("{% endif %}", 40'000)},
      {"nested loops of one", repeat("{% for i in [1] %}", 30'000)},
      {"elifs", "{% if 0 %}" + repeat("{% elif 0 %}", 80'000) + "{% endif %}"},
      {"nested macros", repeat("{% macro m() %}", 60'000)},
      {"nested sets", repeat("{% set x %}", 80'000)},
      {"nested filter blocks", repeat("{% filter f %}", 60'000)},
      {"a deep list printed", nesting + "{% set ns.v = [ns.v] %}{% endfor %}{{ ns.v }}"},
      {"a deep list as text", nesting + "{% set ns.v = [ns.v] %}{% endfor %}{{ ns.v|string }}"},
      {"a deep tuple as key", nesting + "{% set ns.v = (ns.v, 1) %}{% endfor %}{{ {ns.v: 1} }}"},
      {"a list that holds itself", "{% set a = [1] %}{% set b = a.append(a) %}{{ a|string }}"},
      {"an object that holds itself",
       "{% set ns = namespace(a=1) %}{% set ns.me = ns %}{{ ns|tojson }}"},
      {"a list that holds itself, compared",
       "{% set a = [1] %}{% set x = a.append(a) %}{% set b = [1] %}{% set x = b.append(b) %}"
       "{{ (a, 1) == (b, 1) }}{{ a|string }}"},
      {"a huge number", "{{ " + repeat("9", 500'000) + " }}"},
      {"division by zero", "{{ 1 is divisibleby 0 }}"},
      {"a slice of step zero", "{{ 'abc'[::0] }}"},
      {"too long", std::string((1 << 20) + 1, 'x')},
  };
}

TEST(ChatTemplate, HostileTemplatesAreRefused) {
  TemplateLimits limits;
  limits.max_output_bytes = 4 << 20;
  limits.max_time = std::chrono::milliseconds(300);
  for (const Hostile& hostile : hostile_templates()) {
    const std::string text = render(hostile.source, limits);
    EXPECT_TRUE(text.starts_with("error: the chat template "))
        << hostile.name << ": " << text.substr(0, 200);
    EXPECT_LT(text.size(), 700U) << hostile.name;
  }
}

TEST(ChatTemplate, BytesThatAreNoUtf8MakeNoLongErrors) {
  // The engine quotes the token that it did not expect.
  const std::string text =
      render("{% set x = a|b((v>=c' d" + std::string(400, '\xe3') + " n'.v %}");
  EXPECT_TRUE(text.starts_with("error: the chat template ")) << text;
  EXPECT_LT(text.size(), 700U) << text;
  EXPECT_TRUE(text.ends_with("\xef\xbf\xbd..")) << text;  // whole characters
}

// Odd, but within the bounds: must end well, sanitizers looking on.
TEST(ChatTemplate, OddTemplatesAreHarmless) {
  const std::string deep =
      "{% set ns = namespace(v=[]) %}{% for i in range(20000) %}{% set ns.v = [ns.v] %}{% endfor "
      "%}";
  for (const std::string& source : std::vector<std::string>{
           deep + "{% set ns.v = 0 %}done",
           // NOLINTNEXTLINE(bugprone-suspicious-missing-comma)
           "{% set ns = namespace(v=[]) %}{% set ns.w = ns.v %}{% for i in range(20000) %}{% set n "
           "= "
           "[] %}{% set x = ns.v.append(n) %}{% set ns.v = n %}{% endfor %}done",
           "{% set a = [] %}{% set x = a.append(a) %}done",
           "{% set a = [] %}{% set x = a.append(a.append) %}{% set x = a.append(a=a) %}done",
           "{% set ns = namespace() %}{% set ns.me = ns %}{% macro m() %}{% endmacro %}{% set ns.m "
           "= "
           "m %}done",
           "{% set x = [1, 'a', 2.5, none, [1], {}, 0 / 0, '1', true]|sort %}done",
           "{% set x = {'a': 1, 2: 3}|dictsort %}done",
           "{% set x = -9223372036854775807 - 1 %}{% set y = (x|abs, -x, x is divisibleby(-1)) "
           "%}done",
           "{% set x = 1e300 * 1e300 %}done",
           "{% set x = (1.5 * 9999999999999999999.0)|int %}{% set y = 9223372036854775807 * 3 "
           "%}done",
           "{% set x = 'abc'[-9223372036854775807:9223372036854775807:9223372036854775807] %}done",
           "{% set x = 'abc'[9223372036854775807:-9223372036854775807:-9223372036854775807] %}done",
           "{% set x = range(9223372036854775800, 9223372036854775807, 5)|list %}done",
           "{% set x = strftime_now('%Y') %}done",
           "\xFF\xC3{{ '\xE2\x82' ~ messages[0].content|upper|lower|title|capitalize }}done",
           std::string("\0{{ 'a\0b'|length }}", 19) + "done",
       }) {
    const std::string text = render(source, patient());
    EXPECT_TRUE(text.ends_with("done") || text.starts_with("error: ")) << source << ": " << text;
  }
  EXPECT_EQ(render(deep + "{% set ns.v = 0 %}done", patient()), "done");
}

TEST(ChatTemplate, EachLimitSaysWhatWasTooMuch) {
  const std::string loop = "{% for i in range(100) %}{{ 'x' * 100 }}{% endfor %}";
  const std::string prefix = "error: the chat template is refused: ";
  TemplateLimits limits = patient();
  limits.max_steps = 50;
  EXPECT_EQ(render(loop, limits), prefix + "it runs for too many steps");
  limits = patient();
  limits.max_output_bytes = 9999;
  EXPECT_EQ(render(loop, limits), prefix + "its output is longer than 9999 bytes");
  limits.max_output_bytes = 10'000;
  EXPECT_EQ(render(loop, limits).size(), 10'000U);
  EXPECT_EQ(render("{{ 'x' * 100000000 }}", limits), prefix + "it makes too much text");
  limits = patient();
  limits.max_depth = 20;
  EXPECT_EQ(render(repeat("{% if 1 %}", 20) + repeat("{% endif %}", 20), limits),
            prefix + "it is nested too deeply");
  limits = patient();
  limits.max_time = std::chrono::milliseconds(0);
  EXPECT_EQ(render(loop + loop, limits), prefix + "it runs for too long");
  limits = patient();
  limits.max_source_bytes = 3;
  EXPECT_EQ(render("abcd", limits),
            "error: the chat template is 4 bytes long; at most 3 are accepted");
}

}  // namespace
}  // namespace banyan
