// SPDX-License-Identifier: Apache-2.0
#include "text/pre_tokenizer.h"

#include <pcre2.h>

#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/printable.h"
#include "text/pre_tokenizer_rules.h"

namespace banyan {
namespace {

// PCRE2's own default is 10 million; real words take a few dozen.
constexpr uint32_t kMatchLimit = 5'000'000;
constexpr uint32_t kHeapLimitKib = 64 << 10;

// What \s means to the tokenizers' own regex engines (Unicode's White_Space; PCRE2 would add
// U+180E), for use inside brackets.
constexpr std::string_view kSpaces =
    R"(\x09-\x0D\x20\x85\xA0\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";

// `expression` with \s and \S spelled out.
std::string spell_spaces(std::string_view expression) {
  std::string spelled;
  bool in_brackets = false;
  for (size_t i = 0; i < expression.size(); ++i) {
    const char c = expression[i];
    if (c == '\\' && i + 1 < expression.size()) {
      const char escaped = expression[++i];
      BANYAN_CHECK(escaped != 'S' || !in_brackets, "\\S inside brackets");
      if (escaped == 's' || escaped == 'S') {
        if (!in_brackets) spelled += escaped == 's' ? "[" : "[^";
        spelled += kSpaces;
        if (!in_brackets) spelled += ']';
      } else {
        spelled += c;
        spelled += escaped;
      }
      continue;
    }
    if (c == '[') in_brackets = true;
    if (c == ']') in_brackets = false;
    spelled += c;
  }
  return spelled;
}

struct Free {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

class Expression {
 public:
  explicit Expression(std::string_view text) {
    const std::string spelled = spell_spaces(text);
    int error = 0;
    PCRE2_SIZE offset = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(spelled.data()), spelled.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY | PCRE2_NO_AUTO_CAPTURE,
                              &error, &offset, nullptr));
    BANYAN_CHECK(code_ != nullptr, "a pre-tokenizer's expression does not compile");
    jit_ = pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE) == 0;
  }

  pcre2_match_data* make_match_data() const {
    return pcre2_match_data_create_from_pattern(code_.get(), nullptr);
  }

  // Places the next match at or after `from` into `data`; false: none, or a limit was passed.
  bool find(std::string_view text, size_t from, pcre2_match_data* data,
            pcre2_match_context* context) const {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    int found = PCRE2_ERROR_JIT_STACKLIMIT;
    if (jit_) {
      found = pcre2_jit_match(code_.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK, data,
                              context);
    }
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {  // the interpreter's stack is the heap
      found = pcre2_match(code_.get(), subject, text.size(), from,
                          PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data, context);
    }
    return found > 0;
  }

 private:
  std::unique_ptr<pcre2_code, Free> code_;
  bool jit_ = false;
};

// One text on its way through the expressions.
class Splitter {
 public:
  Splitter(const std::vector<Expression>& expressions, FunctionRef<void(std::string_view)> f)
      : expressions_(expressions), f_(f), context_(pcre2_match_context_create(nullptr)) {
    pcre2_set_match_limit(context_.get(), kMatchLimit);
    pcre2_set_heap_limit(context_.get(), kHeapLimitKib);
    for (const Expression& expression : expressions_) {
      data_.emplace_back(expression.make_match_data());
    }
  }

  // Matches of expression `level`, and what lies between them, go on to the next one.
  void split(std::string_view text, size_t level) {
    if (level == expressions_.size()) {
      f_(text);
      return;
    }
    size_t done = 0;
    while (done < text.size()) {
      size_t begin = text.size();
      size_t end = text.size();
      if (expressions_[level].find(text, done, data_[level].get(), context_.get())) {
        const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(data_[level].get());
        begin = offsets[0];
        end = offsets[1];
        BANYAN_CHECK(begin < end, "a pre-tokenizer's expression matched nothing");
      }
      if (begin > done) split(text.substr(done, begin - done), level + 1);
      if (end > begin) split(text.substr(begin, end - begin), level + 1);
      done = end;
    }
  }

 private:
  const std::vector<Expression>& expressions_;
  FunctionRef<void(std::string_view)> f_;
  std::unique_ptr<pcre2_match_context, Free> context_;
  std::vector<std::unique_ptr<pcre2_match_data, Free>> data_;  // one for each expression
};

}  // namespace

struct PreTokenizer::State {
  std::vector<Expression> expressions;
  bool takes_whole_words = false;
};

PreTokenizer::PreTokenizer(std::unique_ptr<const State> state) : state_(std::move(state)) {}
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;
PreTokenizer::~PreTokenizer() = default;

Result<PreTokenizer> PreTokenizer::create(std::string_view name) {
  const auto rule = find_pre_tokenizer_rule(name);
  if (!rule) {
    return bad_input("its pre-tokenizer '" + printable(name) + "' is not known");
  }
  auto state = std::make_unique<State>();
  state->takes_whole_words = rule->takes_whole_words;
  for (const std::string& expression : rule->expressions)
    state->expressions.emplace_back(expression);
  return PreTokenizer(std::move(state));
}

void PreTokenizer::split(std::string_view text, FunctionRef<void(std::string_view)> f) const {
  Splitter(state_->expressions, f).split(text, 0);
}

bool PreTokenizer::takes_whole_words() const { return state_->takes_whole_words; }

}  // namespace banyan
