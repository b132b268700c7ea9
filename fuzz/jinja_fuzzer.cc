// SPDX-License-Identifier: Apache-2.0
// Any bytes as a chat template: refused, or rendered within its bounds, twice to the same text.
// Seeds: seeds/jinja, each a template.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "text/chat_template.h"

namespace {

using namespace banyan;

// Small enough that a template which runs into them costs the fuzzer milliseconds.
constexpr size_t kMaxOutputBytes = 64 << 10;

TemplateLimits small_limits() {
  TemplateLimits limits;
  limits.max_source_bytes = 64 << 10;
  limits.max_output_bytes = kMaxOutputBytes;
  limits.max_steps = 20'000;
  limits.max_depth = 100;
  limits.max_time = std::chrono::milliseconds(200);
  return limits;
}

const std::vector<ChatMessage>& conversation() {
  static const std::vector<ChatMessage> messages = {{"system", "Be brief."},
                                                    {"user", "Where's the {{ bank }}?\n"},
                                                    {"assistant", "  There. \xc3\xa9"},
                                                    {"user", ""}};
  return messages;
}

void check_error(const Error& error) {
  BANYAN_CHECK(error.code == ErrorCode::kBadInput, "a template that fails is bad input");
  BANYAN_CHECK(!error.message.empty() && error.message.size() < 1000, "an error is a sentence");
  for (const unsigned char c : error.message) BANYAN_CHECK(c >= 0x20, "on one line");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string source(reinterpret_cast<const char*>(data), size);
  const auto created = ChatTemplate::create(source, "<s>", "</s>", small_limits());
  if (!created) {
    check_error(created.error());
    return 0;
  }
  const auto text = created->render(conversation(), true);
  const auto again = created->render(conversation(), true);
  if (!text) {
    check_error(text.error());
    return 0;
  }
  BANYAN_CHECK(text->size() <= kMaxOutputBytes, "the output keeps its bound");
  // The clock may show in a text, and may end a run.
  if (again && source.find("strftime") == std::string::npos) {
    BANYAN_CHECK(*text == *again, "rendering leaves the template as it was");
  }
  return 0;
}
