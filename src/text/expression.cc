// SPDX-License-Identifier: Apache-2.0
#include "text/expression.h"

#include <pcre2.h>

#include <cstdint>
#include <utility>

#include "base/printable.h"

namespace banyan {
namespace {

// PCRE2's own default is 10 million; real words take a few dozen.
constexpr uint32_t kMatchLimit = 5'000'000;
constexpr uint32_t kHeapLimitKib = 64 << 10;
constexpr size_t kMaxBytes = 64 << 10;  // those of real models have fewer than 2,000
constexpr size_t kMaxCompiledBytes = 8 << 20;

struct Free {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
  void operator()(pcre2_compile_context* context) const { pcre2_compile_context_free(context); }
};

}  // namespace

struct Expression::State {
  std::unique_ptr<pcre2_code, Free> code;
  bool jit = false;
};

Expression::Expression(std::unique_ptr<const State> state) : state_(std::move(state)) {}
Expression::Expression(Expression&&) noexcept = default;
Expression& Expression::operator=(Expression&&) noexcept = default;
Expression::~Expression() = default;

Result<Expression> Expression::create(std::string_view text) {
  const auto refused = [text](std::string_view why) {
    return bad_input("its expression '" + printable(text) + "' " + std::string(why));
  };
  if (text.size() > kMaxBytes) return refused("is longer than 64 KiB");
  auto translated = translate_expression(text);
  if (!translated) return refused(translated.error().message);
  const std::unique_ptr<pcre2_compile_context, Free> context(pcre2_compile_context_create(nullptr));
  pcre2_set_max_pattern_length(context.get(), 4 * kMaxBytes);
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto state = std::make_unique<State>();
  // Ruby's ^ and $ are those of lines.
  state->code.reset(pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(translated->data()), translated->size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_AUTO_CAPTURE | PCRE2_NEVER_BACKSLASH_C,
      &error, &offset, context.get()));
  if (state->code == nullptr) {
    PCRE2_UCHAR message[160];
    pcre2_get_error_message(error, message, sizeof message);
    return refused("does not compile: " + std::string(reinterpret_cast<const char*>(message)));
  }
  size_t compiled = 0;
  pcre2_pattern_info(state->code.get(), PCRE2_INFO_SIZE, &compiled);
  if (compiled > kMaxCompiledBytes) return refused("takes more than 8 MiB when compiled");
  state->jit = pcre2_jit_compile(state->code.get(), PCRE2_JIT_COMPLETE) == 0;
  return Expression(std::move(state));
}

struct Expression::Search::State {
  const Expression::State* expression = nullptr;
  std::unique_ptr<pcre2_match_data, Free> data;
  std::unique_ptr<pcre2_match_context, Free> context;

  int match(std::string_view text, size_t from) const {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    constexpr uint32_t kOptions = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY_ATSTART;
    int found = PCRE2_ERROR_JIT_STACKLIMIT;
    if (expression->jit) {
      found = pcre2_jit_match(expression->code.get(), subject, text.size(), from, kOptions,
                              data.get(), context.get());
    }
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {  // the interpreter's stack is the heap
      found = pcre2_match(expression->code.get(), subject, text.size(), from,
                          kOptions | PCRE2_NO_JIT, data.get(), context.get());
    }
    return found;
  }
};

Expression::Search::Search(const Expression& expression) : state_(std::make_unique<State>()) {
  state_->expression = expression.state_.get();
  state_->data.reset(pcre2_match_data_create_from_pattern(expression.state_->code.get(), nullptr));
  state_->context.reset(pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(state_->context.get(), kMatchLimit);
  pcre2_set_heap_limit(state_->context.get(), kHeapLimitKib);
}
Expression::Search::Search(Search&&) noexcept = default;
Expression::Search::~Search() = default;

std::optional<Expression::Range> Expression::Search::find(std::string_view text, size_t from) {
  if (state_->match(text, from) <= 0) return std::nullopt;
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(state_->data.get());
  if (offsets[0] < from || offsets[1] < offsets[0] || offsets[1] == from) return std::nullopt;
  return Range{offsets[0], offsets[1]};
}

}  // namespace banyan
