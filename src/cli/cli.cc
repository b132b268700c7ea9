// SPDX-License-Identifier: Apache-2.0
#include "cli/cli.h"

#include <fmt/format.h>

#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <array>
#include <cstdio>
#include <span>

namespace banyan {
namespace {

constexpr const char* kOverview =
    "banyan runs language models where the KV cache is the bottleneck.\n"
    "\n"
    "  banyan run -p \"Why is the sky blue?\"   one answer; without -p, a chat\n"
    "  banyan explain -p TEXT                 what of a prompt is cached, and if not, why\n"
    "  banyan search beam|best-of|tot|mcts    the best of many continuations of a prompt\n"
    "  banyan tokenize -p TEXT                text to token ids, and back with --decode\n"
    "  banyan inspect [MODEL]                 what a model file is\n"
    "  banyan eval logits|ppl                 logits of tokens, perplexity of a text\n"
    "  banyan bench decode|serve-trace|..     how fast this machine is; bench lists all\n"
    "-m FILE.gguf or FOLDER chooses a model; COMMAND --help says more.\n";

struct Entry {
  const char* words;
  Command (*make)();
};

constexpr std::array kCommands = {
    Entry{"run", run_command},
    Entry{"explain", explain_command},
    Entry{"search beam", search_beam_command},
    Entry{"search best-of", search_best_of_command},
    Entry{"search tot", search_thoughts_command},
    Entry{"search mcts", search_monte_carlo_command},
    Entry{"tokenize", tokenize_command},
    Entry{"inspect", inspect_command},
    Entry{"eval logits", eval_logits_command},
    Entry{"eval ppl", eval_perplexity_command},
    Entry{"bench decode", bench_decode_command},
    Entry{"bench prefill", bench_prefill_command},
    Entry{"bench attention", bench_attention_command},
    Entry{"bench tree", bench_tree_command},
    Entry{"bench serve-trace", bench_serve_trace_command},
};

// Options that llama.cpp's users write with one dash. CLI11 knows such words with two.
constexpr std::array kOneDashWords = {"-sys", "-ctk", "-ctv", "-npp", "-ntg",
                                      "-npl", "-pps", "-hf",  "-md"};

int report(const Error& error) {
  fmt::print(stderr, "banyan: error: {}\n", error.message);
  return error.code == ErrorCode::kBadInput ? 2 : 1;
}

std::vector<std::string> arguments(std::span<char*> argv) {
  std::vector<std::string> words;
  for (const char* word : argv) {
    const bool one_dash = std::find_if(kOneDashWords.begin(), kOneDashWords.end(), [&](auto known) {
                            return std::string_view(known) == word;
                          }) != kOneDashWords.end();
    words.push_back(one_dash ? "-" + std::string(word) : word);
  }
  return words;
}

// CLI11's errors in one sentence, naming the option.
Error usage_error(const CLI::Error& error, const std::string& words) {
  std::string text = error.what();
  while (!text.empty() && (text.back() == '\n' || text.back() == '.')) text.pop_back();
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  return bad_input(fmt::format("{} (banyan {} --help lists the options)", text, words));
}

int run_entry(const Entry& entry, std::span<char*> argv) {
  Command command = entry.make();
  command.app->name("banyan " + std::string(entry.words));
  std::vector<std::string> words = arguments(argv);
  std::reverse(words.begin(), words.end());  // CLI11 takes them from the back
  try {
    command.app->parse(words);
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", command.app->help());
    return 0;
  } catch (const CLI::Error& error) {
    return report(usage_error(error, entry.words));
  }
  const Result<int> done = command.action();
  return done ? *done : report(done.error());
}

}  // namespace

int cli_main(int argc, char** argv) {
  std::span<char*> words(argv + 1, argc > 0 ? argc - 1 : 0);
  if (words.empty() || std::string_view(words[0]) == "--help" ||
      std::string_view(words[0]) == "-h") {
    fmt::print("{}", kOverview);
    return 0;
  }
  if (std::string_view(words[0]) == "--version") {
    fmt::print("banyan {}\n", BANYAN_VERSION);
    return 0;
  }
  const std::string one = words[0];
  const std::string two = words.size() > 1 ? one + " " + words[1] : one;
  std::string second_words;
  for (const Entry& entry : kCommands) {
    if (one == entry.words) return run_entry(entry, words.subspan(1));
    if (two == entry.words) return run_entry(entry, words.subspan(2));
    const std::string known = entry.words;
    if (known.rfind(one + " ", 0) == 0) {
      second_words += (second_words.empty() ? "" : ", ") + known.substr(one.size() + 1);
    }
  }
  if (!second_words.empty()) {
    return report(bad_input(fmt::format("banyan {} needs one of: {}", one, second_words)));
  }
  return report(
      bad_input(fmt::format("\"{}\" is no command; banyan alone lists them: run, explain, search, "
                            "tokenize, inspect, eval, bench",
                            one)));
}

}  // namespace banyan
