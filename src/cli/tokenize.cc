// SPDX-License-Identifier: Apache-2.0
// banyan tokenize: text to token ids and back. Needs a vocabulary only, no weights.
#include <fmt/format.h>

#include <charconv>
#include <cstdio>
#include <iterator>
#include <utility>

#include "cli/cli.h"
#include "engine/vocabulary.h"

namespace banyan {
namespace {

struct TokenizeOptions {
  CommonOptions common;
  std::string prompt;
  std::string file;
  std::string decode;
  bool no_special = false;
  bool prompt_given = false;
  bool decode_given = false;
};

Result<std::vector<TokenId>> parse_ids(const std::string& text, int32_t vocabulary_size) {
  std::vector<TokenId> ids;
  const char* at = text.data();
  const char* end = at + text.size();
  while (at != end) {
    if (*at == ' ' || *at == ',' || *at == '\n' || *at == '\t') {
      ++at;
      continue;
    }
    TokenId id = -1;
    const auto [next, error] = std::from_chars(at, end, id);
    if (error != std::errc() || id < 0 || id >= vocabulary_size) {
      return bad_input(fmt::format("--decode holds \"{}\", expected ids from 0 to {}",
                                   std::string(at, std::min<size_t>(end - at, 20)),
                                   vocabulary_size - 1));
    }
    ids.push_back(id);
    at = next;
  }
  return ids;
}

// Token by token: a document of the tokens of a large text would take many times its memory.
void print_tokens(const Tokenizer& tokenizer, const std::vector<TokenId>& ids, bool as_json) {
  fmt::memory_buffer out;
  const auto print = [&out]<class... T>(fmt::format_string<T...> format, T&&... values) {
    fmt::format_to(std::back_inserter(out), format, std::forward<T>(values)...);
    if (out.size() < 1 << 16) return;
    std::fwrite(out.data(), 1, out.size(), stdout);
    out.clear();
  };
  std::vector<std::string> quoted(tokenizer.size());
  const auto quote = [&](TokenId id) -> const std::string& {
    if (quoted[id].empty()) {
      const Json piece = std::string(tokenizer.piece(id, Special::kParse));
      quoted[id] = piece.dump(-1, ' ', false, Json::error_handler_t::replace);
    }
    return quoted[id];
  };
  if (as_json) {
    print("{{\"tokens\":[");
    for (size_t i = 0; i < ids.size(); ++i) print("{}{}", i > 0 ? "," : "", ids[i]);
    print("],\"pieces\":[");
    for (size_t i = 0; i < ids.size(); ++i) print("{}{}", i > 0 ? "," : "", quote(ids[i]));
    print("]}}\n");
  } else {
    for (const TokenId id : ids) print("{:>8}  {}\n", id, quote(id));
  }
  std::fwrite(out.data(), 1, out.size(), stdout);
  std::fflush(stdout);
}

Result<int> tokenize(const TokenizeOptions& o) {
  if (int(o.prompt_given) + int(!o.file.empty()) + int(o.decode_given) != 1) {
    return bad_input("give one of -p TEXT, -f FILE or --decode \"1 2 3\"");
  }
  auto path = model_path(o.common);
  if (!path) return path.error();
  auto tokenizer = load_tokenizer_file(*path);
  if (!tokenizer) return tokenizer.error();
  if (o.decode_given) {
    auto ids = parse_ids(o.decode, tokenizer->size());
    if (!ids) return ids.error();
    const std::string text = tokenizer->decode(*ids, Special::kParse);
    if (o.common.json) {
      print_json({{"text", text}});
    } else {
      fmt::print("{}\n", text);
    }
    return 0;
  }
  std::string text = o.prompt;
  if (!o.file.empty()) {
    auto read = read_text_file(o.file);
    if (!read) return read.error();
    text = *std::move(read);
  }
  const auto ids = tokenizer->encode(text, o.no_special ? Special::kPlain : Special::kParse);
  if (!ids) return bad_input(fmt::format("{}: {}", *path, ids.error().message));
  print_tokens(*tokenizer, *ids, o.common.json);
  return 0;
}

}  // namespace

Command tokenize_command() {
  auto o = std::make_shared<TokenizeOptions>();
  auto app = std::make_unique<CLI::App>("Text to token ids; with --decode, ids to text.");
  app->add_option("-p,--prompt", o->prompt, "the text");
  app->add_option("-f,--file", o->file, "read the text from a file (-: standard input)");
  app->add_option("--decode", o->decode, "ids to turn into text, e.g. \"1 2 3\"");
  app->add_flag("--no-special", o->no_special, "special tokens in the text are plain text");
  add_common_options(*app, o->common, /*engine=*/false);
  CLI::App* parsed = app.get();
  return {std::move(app), [o, parsed] {
            o->prompt_given = parsed->count("-p") > 0;
            o->decode_given = parsed->count("--decode") > 0;
            return tokenize(*o);
          }};
}

}  // namespace banyan
