// SPDX-License-Identifier: Apache-2.0
#include "text/expression.h"

#include <pcre2.h>
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include "base/printable.h"

namespace banyan {
namespace {

// Words take a few dozen steps, a word of a million letters as many again.
constexpr size_t kMatchLimit = 5'000'000;
constexpr size_t kMatchLimitPerByte = 8;
constexpr int64_t kTimeLimitNs = 1'000'000'000;
constexpr int64_t kTimeLimitNsPerByte = 1'000;
constexpr size_t kSearchesBetweenLooks = 64;  // at the clock
constexpr uint32_t kHeapLimitKib = 64 << 10;
constexpr size_t kMaxBytes = 64 << 10;  // those of real models have fewer than 2,000
constexpr size_t kMaxCompiledBytes = 8 << 20;

struct Free {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
  void operator()(pcre2_compile_context* context) const { pcre2_compile_context_free(context); }
};

// Not the time that others took from this thread.
int64_t thread_time_ns() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

}  // namespace

void SearchEffort::count_search() {
  if (n_searches_++ % kSearchesBetweenLooks != 0) return;
  const int64_t now = thread_time_ns();
  if (n_searches_ == 1) start_ns_ = now;
  const auto limit = kTimeLimitNs + kTimeLimitNsPerByte * static_cast<int64_t>(text_bytes_);
  spent_ = spent_ || now - start_ns_ > limit;
}

uint32_t SearchEffort::match_limit() const {
  constexpr size_t kMax = std::numeric_limits<uint32_t>::max();
  return static_cast<uint32_t>(std::min(kMatchLimit + kMatchLimitPerByte * text_bytes_, kMax));
}

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
  SearchEffort* effort = nullptr;
  std::unique_ptr<pcre2_match_data, Free> data;
  std::unique_ptr<pcre2_match_context, Free> context;

  // Whether there is one. What is neither is a limit that was passed.
  bool match(std::string_view text, size_t from) const {
    if (effort->spent_) return false;
    effort->count_search();
    const int found = try_match(text, from);
    if (found < 0 && found != PCRE2_ERROR_NOMATCH) effort->spent_ = true;
    return found > 0;
  }

  int try_match(std::string_view text, size_t from) const {
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

Expression::Search::Search(const Expression& expression, SearchEffort& effort)
    : state_(std::make_unique<State>()) {
  state_->expression = expression.state_.get();
  state_->effort = &effort;
  state_->data.reset(pcre2_match_data_create_from_pattern(expression.state_->code.get(), nullptr));
  state_->context.reset(pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(state_->context.get(), effort.match_limit());
  pcre2_set_heap_limit(state_->context.get(), kHeapLimitKib);
}
Expression::Search::Search(Search&&) noexcept = default;
Expression::Search::~Search() = default;

std::optional<Expression::Range> Expression::Search::find(std::string_view text, size_t from) {
  if (!state_->match(text, from)) return std::nullopt;
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(state_->data.get());
  if (offsets[0] < from || offsets[1] < offsets[0] || offsets[1] == from) return std::nullopt;
  return Range{offsets[0], offsets[1]};
}

}  // namespace banyan
