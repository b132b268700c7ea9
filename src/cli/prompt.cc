// SPDX-License-Identifier: Apache-2.0
#include "cli/cli.h"

namespace banyan {

void add_prompt_options(CLI::App& app, PromptOptions& o) {
  app.add_option("-p,--prompt", o.text, "the prompt");
  app.add_option("-f,--file", o.file, "read the prompt from a file (-: standard input)");
  app.add_option("--sys,--system-prompt", o.system, "-sys TEXT: what the system message says");
  app.add_flag("--raw", o.raw, "no chat template: the text as it is");
}

Result<bool> prompt_given(const PromptOptions& o) {
  if (o.text && !o.file.empty()) return bad_input("-p and -f are both given, expected one");
  return o.text || !o.file.empty();
}

Result<std::vector<TokenId>> prompt_tokens(const Engine& engine, const PromptOptions& o) {
  std::string text = o.text.value_or("");
  if (!o.file.empty()) {
    auto read = read_text_file(o.file);
    if (!read) return read.error();
    text = *std::move(read);
  }
  if (o.raw) return engine.encode_raw(text);
  std::vector<ChatMessage> messages;
  if (!o.system.empty()) messages.push_back({"system", o.system});
  messages.push_back({"user", std::move(text)});
  return engine.encode_chat(messages);
}

}  // namespace banyan
