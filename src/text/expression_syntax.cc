// SPDX-License-Identifier: Apache-2.0
// From Oniguruma's syntax to PCRE2's (https://github.com/kkos/oniguruma/blob/master/doc/RE).

#include <vector>

#include "text/expression.h"

namespace banyan {
namespace {

// What \s means to the tokenizers' own engines (Unicode's White_Space; PCRE2 would add U+180E), for
// use inside brackets.
constexpr std::string_view kSpaces =
    R"(\x09-\x0D\x20\x85\xA0\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
// What \w means to them (PCRE2's takes other numbers, and no marks).
constexpr std::string_view kWord = R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc})";
constexpr int kMaxDepth = 20;  // of brackets in brackets

// One pass over an expression.
class Translator {
 public:
  explicit Translator(std::string_view in) : in_(in) {}

  Result<std::string> run() {
    std::string out;
    while (at_ < in_.size()) {
      const char c = in_[at_];
      if (c == '[') {
        auto set = brackets(0);
        if (!set) return set.error();
        out += *set;
      } else if (c == '\\') {
        BANYAN_TRY(escape(out, /*in_brackets=*/false));
      } else if (in_.substr(at_).starts_with("(?m")) {
        return bad_input("sets Ruby's option m, which is not supported");
      } else {
        out += c;
        ++at_;
      }
    }
    return out;
  }

 private:
  // Translates the escape at at_.
  Result<void> escape(std::string& out, bool in_brackets) {
    if (at_ + 1 == in_.size()) return bad_input("ends in a backslash");
    const char c = in_[at_ + 1];
    at_ += 2;
    const auto lower = static_cast<char>(c | 0x20);
    if (lower == 's' || lower == 'h' || lower == 'w') {
      const bool negated = lower != c;
      const std::string_view set = lower == 's' ? kSpaces : lower == 'w' ? kWord : "0-9A-Fa-f";
      if (negated && in_brackets) return bad_input("has \\S, \\W or \\H in brackets");
      if (!in_brackets) out += negated ? "[^" : "[";
      out += set;
      if (!in_brackets) out += ']';
      return {};
    }
    if (c == 'K' || c == 'g' || c == 'k' || (c >= '1' && c <= '9')) {
      return bad_input("refers to groups or resets its start, which is not supported");
    }
    out += '\\';
    out += c;
    return {};
  }

  // The set whose '[' is at at_, with brackets. A set may be an intersection of lists: all but the
  // first become look-aheads in front of it.
  Result<std::string> brackets(int depth) {
    if (depth > kMaxDepth) return bad_input("nests brackets too deeply");
    ++at_;
    const bool negated = at_ < in_.size() && in_[at_] == '^';
    if (negated) ++at_;
    std::vector<List> lists(1);
    for (bool first = true;; first = false) {
      if (at_ >= in_.size()) return bad_input("has a bracket that is not closed");
      const char c = in_[at_];
      if (c == ']' && !first) {
        ++at_;
        break;
      }
      if (in_.substr(at_).starts_with("&&")) {
        at_ += 2;
        lists.emplace_back();
      } else if (in_.substr(at_).starts_with("[:")) {
        const size_t end = in_.find(":]", at_);
        if (end == std::string_view::npos) return bad_input("has a bracket that is not closed");
        lists.back().members += in_.substr(at_, end + 2 - at_);
        at_ = end + 2;
      } else if (c == '[') {
        auto inner = brackets(depth + 1);
        if (!inner) return inner.error();
        lists.back().sets.push_back(*std::move(inner));
      } else if (c == '\\') {
        BANYAN_TRY(escape(lists.back().members, /*in_brackets=*/true));
      } else {
        if (c == ']') lists.back().members += '\\';
        lists.back().members += c;
        ++at_;
      }
    }
    return join(lists, negated);
  }

  struct List {                     // a union
    std::string members;            // of single brackets
    std::vector<std::string> sets;  // expressions that match one character each
  };

  static std::string text_of(const List& list) {
    std::string text = list.members.empty() ? "" : "[" + list.members + "]";
    for (const std::string& set : list.sets) text += (text.empty() ? "" : "|") + set;
    return list.sets.empty() || (list.members.empty() && list.sets.size() == 1)
               ? text
               : "(?:" + text + ")";
  }

  static Result<std::string> join(const std::vector<List>& lists, bool negated) {
    for (const List& list : lists) {
      if (list.members.empty() && list.sets.empty()) return bad_input("has empty brackets");
    }
    if (lists.size() == 1 && lists[0].sets.empty()) {
      return (negated ? "[^" : "[") + lists[0].members + "]";
    }
    std::string both = "(?:";
    for (size_t i = 1; i < lists.size(); ++i) both += "(?=" + text_of(lists[i]) + ")";
    both += text_of(lists[0]) + ")";
    return negated ? "(?:(?!" + both + ")(?s:.))" : both;
  }

  std::string_view in_;
  size_t at_ = 0;
};

}  // namespace

Result<std::string> translate_expression(std::string_view expression) {
  return Translator(expression).run();
}

}  // namespace banyan
