// SPDX-License-Identifier: Apache-2.0
// The conversation on a terminal. History is kept as messages; what the tree still holds of it is
// not computed again.
#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "cli/cli.h"

namespace banyan {
namespace {

enum class Input { kLine, kInterrupted, kEnd };

Input read_line(std::string& line) {
  line.clear();
  for (;;) {
    errno = 0;
    const int c = std::fgetc(stdin);
    if (c == '\n') return Input::kLine;
    if (c != EOF) {
      line.push_back(static_cast<char>(c));
      continue;
    }
    if (errno == EINTR) {
      std::clearerr(stdin);
      return Input::kInterrupted;
    }
    return line.empty() ? Input::kEnd : Input::kLine;
  }
}

Result<Reply> answer(Engine& engine, const ChatOptions& options,
                     std::span<const ChatMessage> messages) {
  auto prompt = engine.encode_chat(messages);
  if (!prompt) return prompt.error();
  Request request;
  request.prompt = *std::move(prompt);
  request.sampler = options.sampler;
  request.max_tokens = options.max_tokens;
  request.stop = options.stop;
  ProgressLine progress(true);
  auto show_prompt = [&](int done, int total) {
    if (done < total) progress.show(fmt::format("reading: {} of {} tokens", done, total));
    return !InterruptGuard::take();
  };
  auto show_text = [&](TokenId, const std::string& text) {
    progress.clear();
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
    return !InterruptGuard::take();
  };
  const FunctionRef<bool(int, int)> on_prompt = show_prompt;
  const FunctionRef<bool(TokenId, const std::string&)> on_token = show_text;
  return engine.generate(request, {&on_token, &on_prompt});
}

}  // namespace

Result<int> chat(Engine& engine, const ChatOptions& options) {
  std::vector<ChatMessage> messages;
  const auto begin = [&] {
    messages.clear();
    if (!options.system.empty()) messages.push_back({"system", options.system});
  };
  begin();
  fmt::print("Ctrl-C stops an answer; /clear forgets the conversation; Ctrl-D or /exit leaves.\n");
  const InterruptGuard interrupt;
  std::string line;
  for (;;) {
    fmt::print("\n> ");
    std::fflush(stdout);
    const Input input = read_line(line);
    InterruptGuard::take();
    if (input == Input::kEnd || line == "/exit") break;
    if (input == Input::kInterrupted) {
      fmt::print("\n(Ctrl-D or /exit leaves)");
      continue;
    }
    if (line.empty()) continue;
    if (line == "/clear") {
      begin();
      continue;
    }
    messages.push_back({"user", line});
    auto reply = answer(engine, options, messages);
    if (!reply) {
      messages.pop_back();
      fmt::print(stderr, "banyan: error: {}; /clear starts again\n", reply.error().message);
      continue;
    }
    messages.push_back({"assistant", reply->text});
    fmt::print("{}\n", reply->finish == FinishReason::kCancelled ? " .." : "");
    fmt::print(stderr, "({} + {} tokens, {} reused, {:.1f}/s)\n", reply->prompt_tokens,
               reply->tokens.size(), reply->cached_tokens,
               per_second(static_cast<double>(reply->tokens.size()), reply->predicted_ms));
  }
  fmt::print("\n");
  return 0;
}

}  // namespace banyan
