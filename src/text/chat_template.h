// SPDX-License-Identifier: Apache-2.0
#pragma once
// A model's own chat template (Jinja), run with bounds: a hostile template can fail, not hang, not
// crash and not fill the memory.

#include <chrono>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace banyan {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

struct TemplateLimits {
  size_t max_source_bytes = 1 << 20;
  size_t max_output_bytes = 64 << 20;
  uint64_t max_steps = 10'000'000;  // nodes of the syntax tree executed
  int max_depth = 200;              // nesting of syntax and of execution
  std::chrono::milliseconds max_time{2000};
};

class ChatTemplate {
 public:
  // Parses. kBadInput with the template's own error and place.
  static Result<ChatTemplate> create(std::string_view source, std::string bos_text,
                                     std::string eos_text, TemplateLimits limits = {});
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // The prompt's text; with `add_generation_prompt` it ends where the assistant begins to speak.
  // kBadInput if the template refuses the messages (raise_exception) or passes a limit.
  Result<std::string> render(std::span<const ChatMessage> messages,
                             bool add_generation_prompt) const;

 private:
  struct State;
  explicit ChatTemplate(std::unique_ptr<const State> state);
  std::unique_ptr<const State> state_;
};

}  // namespace banyan
