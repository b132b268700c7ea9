// SPDX-License-Identifier: Apache-2.0
// banyan eval: logits of given tokens, perplexity of a text.
#include <fmt/format.h>

#include <algorithm>

#include "base/clock.h"
#include "cli/cli.h"
#include "engine/evaluate.h"

namespace banyan {
namespace {

struct LogitsOptions {
  CommonOptions common;
  std::string tokens;
  std::vector<int> positions;
  int piece = 0;
};

Result<std::vector<TokenId>> read_tokens(const std::string& path) {
  auto text = read_text_file(path);
  if (!text) return text.error();
  const Json json = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
  const auto wrong = [&] {
    return bad_input(fmt::format("{}: expected a JSON array of token ids like [1, 2, 3]", path));
  };
  if (!json.is_array()) return wrong();
  std::vector<TokenId> tokens;
  for (const Json& item : json) {
    if (!item.is_number_integer()) return wrong();
    const auto id = item.get<int64_t>();
    if (id < 0 || id > INT32_MAX) return wrong();
    tokens.push_back(static_cast<TokenId>(id));
  }
  return tokens;
}

Result<int> eval_logits(const LogitsOptions& o) {
  auto tokens = read_tokens(o.tokens);
  if (!tokens) return tokens.error();
  if (o.piece < 0) return bad_input(fmt::format("--piece is {}, expected at least 1", o.piece));
  auto engine = open_engine(o.common, {.with_tokenizer = false, .drafts = false});
  if (!engine) return engine.error();
  std::vector<int> positions = o.positions;
  const int last = static_cast<int>(tokens->size()) - 1;
  if (!tokens->empty()) positions.push_back(last);
  std::sort(positions.begin(), positions.end());
  positions.erase(std::unique(positions.begin(), positions.end()), positions.end());
  auto found = evaluate_logits(**engine, *tokens, positions, o.piece);
  if (!found) return found.error();
  Json json = {{"n_tokens", tokens->size()},
               {"last_logits", found->back().logits},
               {"logits_positions", Json::object()},
               {"compute", o.common.compute}};
  for (const LogitsAt& at : *found) {
    if (std::count(o.positions.begin(), o.positions.end(), at.position) > 0) {
      json["logits_positions"][std::to_string(at.position)] = at.logits;
    }
  }
  print_json(json);
  return 0;
}

struct PerplexityOptions {
  CommonOptions common;
  std::string file;
  int chunks = 0;
};

Result<int> eval_perplexity(PerplexityOptions& o) {
  auto text = read_text_file(o.file);
  if (!text) return text.error();
  if (o.chunks < 0) return bad_input(fmt::format("--chunks is {}, expected at least 1", o.chunks));
  const int window = o.common.context > 0 ? o.common.context : 1024;
  o.common.context = window;
  auto engine = open_engine(o.common, {.drafts = false});
  if (!engine) return engine.error();
  const int64_t start = now_ns();
  const auto tokens = (*engine)->tokenizer().encode(*text, Special::kPlain);
  if (!tokens) return bad_input(fmt::format("{}: {}", o.file, tokens.error().message));
  ProgressLine progress(true);
  auto show = [&](int done, int total, double ppl) {
    progress.show(fmt::format("window {} of {}, perplexity {:.4f}", done, total, ppl));
  };
  const FunctionRef<void(int, int, double)> on_window = show;
  auto found = evaluate_perplexity(**engine, *tokens, window, o.chunks, &on_window);
  progress.clear();
  if (!found) return found.error();
  const double seconds = ms_since(start) * 1e-3;
  if (o.common.json) {
    print_json({{"ppl", found->ppl},
                {"stderr", found->standard_error},
                {"tokens_scored", found->tokens_scored},
                {"seconds", seconds},
                {"compute", o.common.compute}});
  } else {
    fmt::print("perplexity {:.4f} +/- {:.4f} over {} tokens in {:.1f} s\n", found->ppl,
               found->standard_error, found->tokens_scored, seconds);
  }
  return 0;
}

}  // namespace

Command eval_logits_command() {
  auto o = std::make_shared<LogitsOptions>();
  auto app = std::make_unique<CLI::App>("Prints the logits after given tokens, as JSON.");
  app->add_option("--tokens", o->tokens, "JSON array of token ids, in a file")->required();
  app->add_option("--positions", o->positions, "also after these tokens, e.g. 3,50")
      ->delimiter(',');
  app->add_option("--piece", o->piece, "feed the tokens in pieces of this size");
  add_common_options(*app, o->common, /*engine=*/true);
  return {std::move(app), [o] { return eval_logits(*o); }};
}

Command eval_perplexity_command() {
  auto o = std::make_shared<PerplexityOptions>();
  auto app = std::make_unique<CLI::App>("Perplexity of a text, counted as llama-perplexity does.");
  app->add_option("-f,--file", o->file, "the text")->required();
  app->add_option("--chunks", o->chunks, "windows to score (default: all)");
  add_common_options(*app, o->common, /*engine=*/true);
  return {std::move(app), [o] { return eval_perplexity(*o); }};
}

}  // namespace banyan
