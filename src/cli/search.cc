// SPDX-License-Identifier: Apache-2.0
// banyan search beam, best-of, tot, mcts: many continuations of one prompt, the best of them, and
// the tree that they were found in.
#include <fmt/format.h>

#include <cstdio>
#include <fstream>

#include "base/bytes.h"
#include "base/clock.h"
#include "cli/cli.h"
#include "engine/search_drawing.h"
#include "engine/search_policies.h"

namespace banyan {
namespace {

struct SearchOptions {
  CommonOptions common;
  PromptOptions prompt;
  SamplerOptions sampler;
  int max_tokens = 64;
  bool ignore_eos = false;
  std::vector<std::string> stop;
  std::string svg;
  BeamParams beam;
  std::string early_stop = "hopeless";
  bool votes = false;
  TreeOfThoughts thoughts;
  MonteCarlo monte_carlo;
  int thought_tokens = 16;
  std::string question;
  std::string answer;
};

// What a command does with the search, the sampler's parameters resolved.
using Policy = Result<std::vector<SearchChoice>> (*)(Search&, const SearchOptions&,
                                                     const Extension& sampled);

Result<std::vector<SearchChoice>> run_beam(Search& search, const SearchOptions& o,
                                           const Extension& /*sampled*/) {
  BeamParams params = o.beam;
  params.max_tokens = o.max_tokens;
  params.early_stop = o.early_stop == "at-once" ? EarlyStop::kAtOnce
                      : o.early_stop == "never" ? EarlyStop::kNever
                                                : EarlyStop::kHopeless;
  return beam_search(search, params, o.ignore_eos);
}

Result<std::vector<SearchChoice>> run_best_of(Search& search, const SearchOptions& o,
                                              const Extension& sampled) {
  auto choices = best_of(search, o.beam.width, sampled);
  if (!choices || !o.votes) return choices;
  return by_votes(*std::move(choices));
}

Result<Scorer> scorer(const Search& search, const SearchOptions& o) {
  if (o.question.empty() && o.answer.empty()) return score_by_likelihood();
  if (o.answer.empty()) return bad_input("--question needs the --answer whose probability counts");
  const auto encode = [&](const std::string& text) {
    return search.engine().encode(text, Special::kPlain, /*bos=*/false, /*eos=*/false);
  };
  auto question = encode(o.question);
  if (!question) return question.error();
  auto answer = encode(o.answer);
  if (!answer) return answer.error();
  return score_by_question(*std::move(question), *std::move(answer));
}

Result<std::vector<SearchChoice>> run_thoughts(Search& search, const SearchOptions& o,
                                               const Extension& sampled) {
  const auto score = scorer(search, o);
  if (!score) return score.error();
  TreeOfThoughts policy = o.thoughts;
  policy.thought = sampled;
  if (o.stop.empty()) policy.thought.stop = {"\n"};
  return tree_of_thoughts(search, policy, *score);
}

Result<std::vector<SearchChoice>> run_monte_carlo(Search& search, const SearchOptions& o,
                                                  const Extension& sampled) {
  const auto score = scorer(search, o);
  if (!score) return score.error();
  MonteCarlo policy = o.monte_carlo;
  policy.thought = policy.rollout = sampled;
  policy.thought.max_tokens = o.thought_tokens;
  return monte_carlo(search, policy, *score);
}

Json tree_json(const Engine& engine, const SearchTree& tree) {
  Json nodes = Json::array();
  for (size_t i = 0; i < tree.nodes.size(); ++i) {
    const SearchTree::Node& node = tree.nodes[i];
    nodes.push_back({{"node", i},
                     {"parent", node.parent < 0 ? Json(nullptr) : Json(node.parent)},
                     {"tokens", node.tokens},
                     {"text", engine.tokenizer().decode(node.tokens, Special::kParse)},
                     {"score", node.score}});
  }
  return {{"root", 0}, {"nodes", std::move(nodes)}};
}

// Opened before the search, which may take long.
Result<std::ofstream> open_file(const std::string& path) {
  std::ofstream file;
  if (path.empty()) return file;
  file.open(path, std::ios::binary);
  if (!file) return bad_input(fmt::format("{}: cannot be written; is the path right?", path));
  return file;
}

Result<int> run(const SearchOptions& o, Policy policy) {
  const auto given = prompt_given(o.prompt);
  if (!given) return given.error();
  if (!*given) return bad_input("there is no prompt: give -p TEXT or -f FILE");
  if (o.max_tokens < 1) {
    return bad_input(fmt::format("-n is {}, expected at least 1", o.max_tokens));
  }
  if (o.early_stop != "hopeless" && o.early_stop != "at-once" && o.early_stop != "never") {
    return bad_input(
        fmt::format("--early-stop is \"{}\", expected hopeless, at-once or never", o.early_stop));
  }
  BANYAN_TRY(check_range("--beams", o.beam.width, 1, 1024));
  BANYAN_TRY(validate(o.beam));
  BANYAN_TRY(check_stop(o.stop));
  auto sampler = sampler_params(o.sampler);
  if (!sampler) return sampler.error();
  auto opened = open_engine(o.common, {.drafts = false});
  if (!opened) return opened.error();
  Engine& engine = **opened;
  auto prompt = prompt_tokens(engine, o.prompt);
  if (!prompt) return prompt.error();
  Extension sampled;
  sampled.max_tokens = o.max_tokens;
  sampled.sampler = *std::move(sampler);
  sampled.stop = o.stop;
  sampled.ignore_eos = o.ignore_eos;
  BANYAN_TRY(validate(sampled.sampler, engine.tokenizer().size()));

  auto svg = open_file(o.svg);
  if (!svg) return svg.error();
  auto search = Search::open(engine, *prompt);
  if (!search) return search.error();
  const int64_t start = now_ns();
  BANYAN_TRY(search->extend(search->root(), {}));
  search->run();
  if (auto read = search->generated(search->root()); !read) return read.error();
  const double prompt_ms = ms_since(start);
  const StepRunner& steps = engine.steps();
  const StepTimes before = steps.times();
  const int64_t before_plan_ns = steps.plan_ns() + steps.tree_ns();
  const int64_t decode_start = now_ns();
  const auto choices = policy(*search, o, sampled);
  const double decode_ms = ms_since(decode_start);
  if (!choices) return choices.error();

  const SearchTree tree = search->snapshot();
  const SearchKv kv = search->kv();
  const double steps_per_second =
      per_second(static_cast<double>(search->decode_steps()), decode_ms);
  if (!o.svg.empty() && !(*svg << draw_svg(tree, engine.tokenizer())).flush()) {
    return failed(fmt::format("{}: the drawing could not be written; is the disk full?", o.svg));
  }
  if (o.common.json) {
    Json json;
    json["choices"] = Json::array();
    for (const SearchChoice& choice : *choices) {
      json["choices"].push_back(
          {{"text", choice.text}, {"tokens", choice.tokens}, {"score", choice.score}});
    }
    json["steps_per_second"] = steps_per_second;
    const StepTimes& after = steps.times();
    json["timings"] = {{"prompt_ms", prompt_ms},
                       {"search_ms", decode_ms},
                       {"steps", search->decode_steps()},
                       {"attention_ms", ms_between(before.attention_ns, after.attention_ns)},
                       {"weights_ms", ms_between(before.weights_ns, after.weights_ns)},
                       {"other_ms", ms_between(before.other_ns, after.other_ns)},
                       {"plan_ms", ms_between(before_plan_ns, steps.plan_ns() + steps.tree_ns())}};
    json["usage"] = {{"prompt_tokens", prompt->size()}};
    json["kv"] = {{"bytes_peak", kv.bytes_peak},
                  {"bytes", kv.bytes},
                  {"tokens", kv.tokens},
                  {"path_tokens", kv.path_tokens}};
    json["cache"] = cache_json(search->cache());
    json["compute"] = o.common.compute;
    json["tree"] = tree_json(engine, tree);
    print_json(json);
    return 0;
  }
  for (size_t i = 0; i < choices->size(); ++i) {
    fmt::print("{}. ({:.3f}) {}\n", i + 1, (*choices)[i].score, (*choices)[i].text);
  }
  fmt::print("\n{}", draw_text(tree, engine.tokenizer()));
  std::fflush(stdout);
  log_line(LogLevel::kInfo, log_level(o.common),
           fmt::format("prompt {} tokens in {:.0f} ms; {} steps at {:.1f}/s; KV {} for {} tokens, "
                       "{} on the leaves' paths; compute {}",
                       prompt->size(), prompt_ms, search->decode_steps(), steps_per_second,
                       format_bytes(kv.bytes), kv.tokens, kv.path_tokens, o.common.compute));
  return 0;
}

// The command and its options, to which each adds its own.
struct Begun {
  std::shared_ptr<SearchOptions> o = std::make_shared<SearchOptions>();
  std::unique_ptr<CLI::App> app;
};

Begun begin(const char* what, const char* max_tokens) {
  Begun begun;
  begun.app = std::make_unique<CLI::App>(what);
  SearchOptions& o = *begun.o;
  add_prompt_options(*begun.app, o.prompt);
  begun.app->add_option("-n,--n-predict", o.max_tokens, max_tokens);
  begun.app->add_flag("--ignore-eos", o.ignore_eos, "tokens that end a text are never chosen");
  begun.app->add_option("--svg", o.svg, "draw the tree into this file");
  return begun;
}

Command end(Begun begun, Policy policy) {
  add_stop_option(*begun.app, begun.o->stop);
  add_sampler_options(*begun.app, begun.o->sampler);
  add_common_options(*begun.app, begun.o->common, /*engine=*/true);
  return {std::move(begun.app), [o = begun.o, policy] { return run(*o, policy); }};
}

void add_score_options(CLI::App& app, SearchOptions& o) {
  app.add_option("--question", o.question,
                 "what is asked behind a text to score it (default: none, the text's likelihood)");
  app.add_option("--answer", o.answer, "the answer to it whose probability is the score");
}

}  // namespace

Command search_beam_command() {
  Begun begun = begin(
      "Beam search: the likeliest continuations of a prompt. Nothing is sampled, "
      "so sampling options and --stop change nothing.",
      "most tokens of a text (64)");
  BeamParams& beam = begun.o->beam;
  begun.app->add_option("--beams", beam.width, "beams, and texts found (8)");
  begun.app->add_option("--length-penalty", beam.length_penalty,
                        "scores are log-probabilities / tokens ^ this (1)");
  begun.app->add_option("--beam-groups", beam.groups, "groups of beams that differ (1)");
  begun.app->add_option("--diversity", beam.diversity, "by so much, in log-probability (0)");
  begun.app->add_option("--early-stop", begun.o->early_stop,
                        "with as many ended texts as beams, stop: hopeless (if no better one can "
                        "be ended now), at-once, never");
  return end(std::move(begun), run_beam);
}

Command search_best_of_command() {
  Begun begun = begin("Samples several continuations of a prompt; the likeliest come first.",
                      "most tokens of a text (64)");
  begun.app->add_option("--beams", begun.o->beam.width, "texts (8)");
  begun.app->add_flag("--vote", begun.o->votes,
                      "the answer that most give comes first: its last number or line");
  return end(std::move(begun), run_best_of);
}

Command search_thoughts_command() {
  Begun begun = begin("Tree of thoughts: samples lines, scores them, and goes on from the best.",
                      "most tokens of a thought (64); it ends with a line, or --stop");
  TreeOfThoughts& policy = begun.o->thoughts;
  begun.app->add_option("--branches", policy.branches, "thoughts behind each kept one (3)");
  begun.app->add_option("--breadth", policy.breadth, "thoughts kept (2)");
  begun.app->add_option("--depth", policy.depth, "thoughts in a text (3)");
  add_score_options(*begun.app, *begun.o);
  return end(std::move(begun), run_thoughts);
}

Command search_monte_carlo_command() {
  Begun begun = begin(
      "Monte Carlo tree search: plays continuations to their end and looks again "
      "where that was good.",
      "most tokens of what is played out (64)");
  MonteCarlo& policy = begun.o->monte_carlo;
  begun.app->add_option("--iterations", policy.iterations, "leaves that are looked at (8)");
  begun.app->add_option("--branches", policy.branches, "thoughts behind each (3)");
  begun.app->add_option("--depth", policy.depth, "most thoughts before a text is played out (4)");
  begun.app->add_option("--thought-tokens", begun.o->thought_tokens, "most tokens of one (16)");
  begun.app->add_option("--exploration", policy.exploration, "weight of the unknown (1.4)");
  add_score_options(*begun.app, *begun.o);
  return end(std::move(begun), run_monte_carlo);
}

}  // namespace banyan
