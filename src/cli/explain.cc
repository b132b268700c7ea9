// SPDX-License-Identifier: Apache-2.0
// banyan explain: what of a prompt the cache has, and if not all, why.
#include <fmt/format.h>

#include "cli/cli.h"

namespace banyan {
namespace {

struct ExplainOptions {
  CommonOptions common;
  PromptOptions prompt;
  bool prompt_given = false;
};

std::string sentence(const CacheFacts& facts) {
  switch (facts.why) {
    case CacheWhy::kHit:
      return "all that can be reused is stored";
    case CacheWhy::kEmpty:
      return "nothing is stored: a cache lives in memory, with the process that filled it";
    case CacheWhy::kDiverged:
      return fmt::format("after \"{}\" \"{}\" is stored, and \"{}\" is asked for, from token {} on",
                         facts.before, facts.had, facts.got, facts.position);
    case CacheWhy::kEvicted:
      return "more was stored once, and made room for something else";
    case CacheWhy::kOtherTenant:
      return "more is stored for another tenant";
    case CacheWhy::kApproximateOnly:
      return "more is stored, but it is approximate";
  }
  return "";
}

Result<int> explain(const ExplainOptions& o) {
  if (!o.prompt_given) return bad_input("there is no prompt: give -p TEXT or -f FILE");
  auto engine = open_engine(o.common);
  if (!engine) return engine.error();
  const auto prompt = prompt_tokens(**engine, o.prompt);
  if (!prompt) return prompt.error();
  if (prompt->empty()) return bad_input("the prompt is empty; give at least one token");
  const CacheFacts facts = (*engine)->explain(*prompt);
  if (o.common.json) {
    Json json = cache_json(facts);
    json["prompt_tokens"] = prompt->size();
    print_json(json);
  } else {
    fmt::print("{}: {}; {} of {} tokens would be reused\n", name(facts.why), sentence(facts),
               facts.reused_tokens, prompt->size());
  }
  return 0;
}

}  // namespace

Command explain_command() {
  auto o = std::make_shared<ExplainOptions>();
  auto app = std::make_unique<CLI::App>(
      "What of a prompt is cached, and if not all, why. A cache lives in memory, with the process "
      "that filled it.");
  add_prompt_options(*app, o->prompt);
  add_common_options(*app, o->common, /*engine=*/true);
  CLI::App* parsed = app.get();
  return {std::move(app), [o, parsed] {
            o->prompt_given = parsed->count("-p") > 0 || !o->prompt.file.empty();
            return explain(*o);
          }};
}

}  // namespace banyan
