// SPDX-License-Identifier: Apache-2.0
// banyan run: one prompt, one answer; without a prompt on a terminal, a chat.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "base/clock.h"
#include "cli/cli.h"

namespace banyan {
namespace {

struct RunOptions {
  CommonOptions common;
  PromptOptions prompt;
  std::string batch;
  std::string output;
  int max_tokens = 128;
  int n = 1;
  int best_of = 0;
  bool ignore_eos = false;
  std::vector<std::string> stop;
  SamplerOptions sampler;
  bool max_tokens_given = false;
  std::string alien_to_batch;  // an option that is given and that --batch has no use for
};

Json logprobs_json(const Engine& engine, const Reply& reply) {
  Json list = Json::array();
  const auto entry = [&](TokenId token, float logprob) {
    return Json{{"id", token},
                {"token", std::string(engine.tokenizer().piece(token, Special::kParse))},
                {"logprob", logprob}};
  };
  for (size_t i = 0; i < reply.tokens.size(); ++i) {
    Json item = entry(reply.tokens[i], reply.logprobs[i]);
    item["top_logprobs"] = Json::array();
    for (const TokenLogprob& top : reply.top_logprobs[i]) {
      item["top_logprobs"].push_back(entry(top.token, top.logprob));
    }
    list.push_back(std::move(item));
  }
  return list;
}

bool several(const RunOptions& o) { return o.n > 1 || o.best_of > 1; }

Json reply_json(const Engine& engine, const Reply& reply, const RunOptions& o, double load_ms) {
  size_t n_generated = 0;
  for (const Sample& sample : reply.samples) n_generated += sample.tokens.size();
  // The first token of each comes with the prompt.
  const size_t n_later = n_generated - std::min(n_generated, reply.samples.size());
  Json json;
  json["text"] = reply.text;
  json["tokens"] = reply.tokens;
  json["finish_reason"] = name(reply.finish);
  if (!reply.note.empty()) json["note"] = reply.note;
  json["usage"] = usage_json(reply);
  json["timings"] = {
      {"load_ms", load_ms},
      {"queue_ms", reply.queue_ms},
      {"prompt_ms", reply.prompt_ms},
      {"prompt_per_second", per_second(reply.prompt_tokens - reply.cached_tokens, reply.prompt_ms)},
      {"predicted_ms", reply.predicted_ms},
      {"predicted_per_second", per_second(static_cast<double>(n_later), reply.predicted_ms)}};
  json["cache"] = cache_json(reply.cache);
  json["speculation"] = speculation_json(reply.speculation);
  json["kv"] = {{"bytes_peak", reply.kv_bytes_peak}, {"exact", reply.kv_exact}};
  json["compute"] = o.common.compute;
  json["memory"] = memory_json(engine.memory());
  if (o.sampler.params.top_logprobs > 0) json["logprobs"] = logprobs_json(engine, reply);
  if (several(o)) {
    json["choices"] = Json::array();
    for (const Sample& sample : reply.samples) {
      json["choices"].push_back({{"text", sample.text},
                                 {"tokens", sample.tokens},
                                 {"mean_logprob", sample.mean_logprob},
                                 {"finish_reason", name(sample.finish)}});
      if (!sample.note.empty()) json["choices"].back()["note"] = sample.note;
    }
  }
  return json;
}

void print_figures(const Reply& reply, const RunOptions& o, double load_ms, const Engine& engine) {
  const int computed = reply.prompt_tokens - reply.cached_tokens;
  log_line(LogLevel::kInfo, log_level(o.common),
           fmt::format(
               "loaded in {:.0f} ms; prompt {} tokens in {:.0f} ms ({:.0f}/s); answer {} "
               "tokens at {:.1f}/s{}; compute {}, KV {}",
               load_ms, reply.prompt_tokens, reply.prompt_ms, per_second(computed, reply.prompt_ms),
               reply.tokens.size(),
               per_second(std::max<double>(0, double(reply.tokens.size()) - 1), reply.predicted_ms),
               reply.speculation.drafted == 0
                   ? ""
                   : fmt::format(", {} of {} drafted ones accepted", reply.speculation.accepted,
                                 reply.speculation.drafted),
               o.common.compute, reply.kv_exact ? "exact" : "approximate (q8_0)"));
  log_line(LogLevel::kInfo, log_level(o.common), memory_sentence(engine.memory()));
}

Result<int> answer(Engine& engine, const RunOptions& o, const SamplerParams& sampler,
                   double load_ms) {
  auto prompt = prompt_tokens(engine, o.prompt);
  if (!prompt) return prompt.error();
  Request request;
  request.prompt = *std::move(prompt);
  request.sampler = sampler;
  request.max_tokens = o.max_tokens;
  request.ignore_eos = o.ignore_eos;
  request.stop = o.stop;
  request.n = o.n;
  request.best_of = o.best_of;
  const int n = static_cast<int>(request.prompt.size());
  if (o.common.context == 0 && o.max_tokens > 0 && n <= engine.context() &&
      n + o.max_tokens > engine.context()) {
    log_line(LogLevel::kWarn, log_level(o.common),
             fmt::format("warning: {} + {} tokens pass the {} that the model was trained with", n,
                         o.max_tokens, engine.context()));
  }
  const InterruptGuard interrupt;
  ProgressLine progress(log_level(o.common) >= LogLevel::kInfo);
  auto show_prompt = [&](int done, int total) {
    if (done < total)
      progress.show(fmt::format("reading the prompt: {} of {} tokens", done, total));
    return !InterruptGuard::take();
  };
  auto show_text = [&](TokenId, const std::string& text) {
    progress.clear();
    if (!o.common.json) {
      std::fwrite(text.data(), 1, text.size(), stdout);
      std::fflush(stdout);
    }
    return !InterruptGuard::take();
  };
  const FunctionRef<bool(int, int)> on_prompt = show_prompt;
  const FunctionRef<bool(TokenId, const std::string&)> on_token = show_text;
  auto ask = [] { return !InterruptGuard::take(); };
  const FunctionRef<bool()> go_on = ask;
  auto reply = engine.generate(request, {&on_token, &on_prompt, several(o) ? &go_on : nullptr});
  progress.clear();
  if (!reply) return reply.error();
  if (!reply->note.empty()) {
    log_line(LogLevel::kWarn, log_level(o.common), "warning: the answer ends here: " + reply->note);
  }
  if (o.common.json) {
    print_json(reply_json(engine, *reply, o, load_ms));
  } else {
    if (several(o)) {
      for (size_t i = 0; i < reply->samples.size(); ++i) {
        fmt::print("{}. {}\n", i + 1, reply->samples[i].text);
      }
    }
    std::fputc('\n', stdout);
    std::fflush(stdout);
    print_figures(*reply, o, load_ms, engine);
  }
  return reply->finish == FinishReason::kCancelled ? 1 : 0;
}

Result<int> run(const RunOptions& o) {
  if (!o.batch.empty()) {
    if (!o.alien_to_batch.empty()) {
      return bad_input(
          fmt::format("{} is given with --batch, whose lines say themselves what is asked and how; "
                      "leave it out",
                      o.alien_to_batch));
    }
    if (o.output.empty()) return bad_input("--batch needs a file for the results: give -o FILE");
    return run_batch(o.common, o.batch, o.output);
  }
  if (!o.output.empty())
    return bad_input("-o is for the results of --batch FILE, which is not given");
  const auto given = prompt_given(o.prompt);
  if (!given) return given.error();
  const bool prompted = *given;
  if (!prompted && (isatty(STDIN_FILENO) == 0 || o.common.json)) {
    return bad_input("there is no prompt: give -p TEXT or -f FILE, or run on a terminal to chat");
  }
  if (o.max_tokens < -1 || o.max_tokens == 0) {
    return bad_input(
        fmt::format("-n is {}, expected at least 1 (-1: until the context is full)", o.max_tokens));
  }
  if (!prompted && several(o)) return bad_input("--n and --best-of need a prompt: give -p or -f");
  BANYAN_TRY(check_stop(o.stop));
  auto sampler = sampler_params(o.sampler);
  if (!sampler) return sampler.error();
  const int64_t start = now_ns();
  auto engine = open_engine(o.common);
  if (!engine) return engine.error();
  BANYAN_TRY(validate(*sampler, (*engine)->tokenizer().size()));
  const double load_ms = ms_since(start);
  if (prompted) return answer(**engine, o, *sampler, load_ms);
  return chat(**engine,
              {o.prompt.system, *sampler, o.max_tokens_given ? o.max_tokens : -1, o.stop});
}

}  // namespace

Command run_command() {
  auto o = std::make_shared<RunOptions>();
  auto app = std::make_unique<CLI::App>("Answers a prompt; on a terminal without -p, a chat.");
  add_prompt_options(*app, o->prompt);
  app->add_option("-n,--n-predict", o->max_tokens, "most tokens to generate (default 128)");
  app->add_option("--n", o->n, "answers to give, the likeliest first (1)");
  app->add_option("--best-of", o->best_of, "answers to choose those of --n from (as many)");
  app->add_flag("--ignore-eos", o->ignore_eos, "never end before -n tokens");
  add_stop_option(*app, o->stop);
  add_sampler_options(*app, o->sampler);
  app->add_option("--logprobs", o->sampler.params.top_logprobs, "alternatives to report")
      ->group("Sampling");
  const std::vector<CLI::Option*> own = app->get_options();
  app->add_option("--batch", o->batch, "answer a file of OpenAI batch requests, one a line");
  app->add_option("-o,--output", o->output, "their results; what is there already is kept");
  add_common_options(*app, o->common, /*engine=*/true);
  CLI::App* parsed = app.get();
  return {std::move(app), [o, parsed, own] {
            for (const CLI::Option* option : own) {
              if (option->count() > 0) o->alien_to_batch = option->get_name();
            }
            o->max_tokens_given = parsed->count("-n") > 0;
            return run(*o);
          }};
}

}  // namespace banyan
