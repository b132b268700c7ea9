// SPDX-License-Identifier: Apache-2.0
// banyan explain: what of a prompt the cache has, and if not all, why.
#include <fmt/format.h>

#include "cli/cli.h"

namespace banyan {
namespace {

struct ExplainOptions {
  CommonOptions common;
  PromptOptions prompt;
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
  const auto given = prompt_given(o.prompt);
  if (!given) return given.error();
  if (!*given) return bad_input("there is no prompt: give -p TEXT or -f FILE");
  auto engine = open_engine(o.common, {.drafts = false});
  if (!engine) return engine.error();
  auto prompt = prompt_tokens(**engine, o.prompt);
  if (!prompt) return prompt.error();
  Request request;
  request.prompt = *std::move(prompt);
  const auto explained = (*engine)->explain(request);
  if (!explained) return explained.error();
  const CacheFacts& facts = *explained;
  if (o.common.json) {
    Json json = cache_json(facts);
    json["prompt_tokens"] = request.prompt.size();
    print_json(json);
  } else {
    fmt::print("{}: {}; {} of {} tokens would be reused\n", name(facts.why), sentence(facts),
               facts.reused_tokens, request.prompt.size());
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
  return {std::move(app), [o] { return explain(*o); }};
}

}  // namespace banyan
