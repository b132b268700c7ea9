// SPDX-License-Identifier: Apache-2.0
#include "text/chat_template.h"

#include <algorithm>
#include <new>
#include <string_view>
#include <utility>

#include "jinja/lexer.h"
#include "jinja/limits.h"
#include "jinja/parser.h"
#include "jinja/runtime.h"
#include "text/utf8.h"

namespace banyan {
namespace {

// Live bytes of a run for each byte of output: the text stands in the pieces, in their
// concatenation one level up, and in the result.
constexpr size_t kMemoryPerOutputByte = 4;
constexpr size_t kMemoryBase = size_t{16} << 20;
constexpr size_t kMaxErrorBytes = 500;

// Positions that the engine reports are those of this text, and its own normalisation of line ends
// takes quadratic time where it finds any.
std::string with_unix_line_ends(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      text += source[i];
    } else if (i + 1 == source.size() || source[i + 1] != '\n') {
      text += '\n';
    }
  }
  return text;
}

// What the engine threw, as the rest of a sentence: one line, short, valid UTF-8.
std::string describe(std::string_view what) {
  std::string text = make_valid_utf8(what.substr(0, kMaxErrorBytes));
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 0x20; }, ' ');
  // What stands for a byte that is no UTF-8 takes three.
  size_t end = std::min(text.size(), kMaxErrorBytes);
  while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  const bool is_cut = end < text.size() || what.size() > kMaxErrorBytes;
  text.resize(end);
  if (is_cut) text += "..";
  return text;
}

jinja::budget make_budget(const TemplateLimits& limits) {
  const size_t memory = kMemoryBase + kMemoryPerOutputByte * limits.max_output_bytes;
  return jinja::budget(limits.max_steps, memory, limits.max_depth,
                       std::chrono::steady_clock::now() + limits.max_time);
}

jinja::value make_string(std::string_view text) {
  return jinja::mk_val<jinja::value_string>(std::string(text));
}

jinja::value make_messages(std::span<const ChatMessage> messages) {
  const auto list = jinja::mk_val<jinja::value_array>();
  for (const ChatMessage& message : messages) {
    const auto item = jinja::mk_val<jinja::value_object>();
    item->insert("role", make_string(message.role));
    item->insert("content", make_string(message.content));
    list->push_back(item);
  }
  return list;
}

}  // namespace

struct ChatTemplate::State {
  jinja::program program;
  std::string source;
  std::string bos_text;
  std::string eos_text;
  TemplateLimits limits;
};

ChatTemplate::ChatTemplate(std::unique_ptr<const State> state) : state_(std::move(state)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Result<ChatTemplate> ChatTemplate::create(std::string_view source, std::string bos_text,
                                          std::string eos_text, TemplateLimits limits) {
  if (source.size() > limits.max_source_bytes) {
    return bad_input("the chat template is " + std::to_string(source.size()) +
                     " bytes long; at most " + std::to_string(limits.max_source_bytes) +
                     " are accepted");
  }
  try {
    auto state = std::make_unique<State>();
    state->source = with_unix_line_ends(source);
    state->bos_text = std::move(bos_text);
    state->eos_text = std::move(eos_text);
    state->limits = limits;
    const jinja::budget budget = make_budget(limits);
    state->program = jinja::parse_from_tokens(jinja::lexer().tokenize(state->source));
    return ChatTemplate(std::move(state));
  } catch (const jinja::limit_error& error) {
    return bad_input(std::string("the chat template is refused: ") + error.what());
  } catch (const std::exception& error) {
    return bad_input("the chat template is not valid Jinja: " + describe(error.what()));
  }
}

Result<std::string> ChatTemplate::render(std::span<const ChatMessage> messages,
                                         bool add_generation_prompt) const {
  try {
    const jinja::budget budget = make_budget(state_->limits);
    jinja::context context(state_->source);
    // The variables that Hugging Face's apply_chat_template() sets, with its defaults.
    context.set_val("messages", make_messages(messages));
    context.set_val("bos_token", make_string(state_->bos_text));
    context.set_val("eos_token", make_string(state_->eos_text));
    context.set_val("add_generation_prompt",
                    jinja::mk_val<jinja::value_bool>(add_generation_prompt));
    context.set_val("tools", jinja::mk_val<jinja::value_none>());
    context.set_val("documents", jinja::mk_val<jinja::value_none>());

    jinja::runtime runtime(context);
    const jinja::value result = runtime.execute(state_->program);
    std::string text = jinja::runtime::gather_string_parts(result)->as_string().str();
    if (text.size() > state_->limits.max_output_bytes) {
      return bad_input("the chat template is refused: its output is longer than " +
                       std::to_string(state_->limits.max_output_bytes) + " bytes");
    }
    return text;
  } catch (const jinja::limit_error& error) {
    return bad_input(std::string("the chat template is refused: ") + error.what());
  } catch (const std::exception& error) {
    return bad_input("the chat template cannot be applied to these messages: " +
                     describe(error.what()));
  }
}

}  // namespace banyan
