// SPDX-License-Identifier: Apache-2.0
#include "text/normalizer.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "base/function_ref.h"
#include "text/charsmap.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace banyan {
namespace {

constexpr size_t kMaxSteps = 32;
constexpr size_t kMaxGrowth = 64;
constexpr size_t kMaxPrepended = 256;
constexpr size_t kMaxMappedGrapheme = 5;  // Hugging Face's charsmap takes longer ones apart

// Calls f with each well-formed part of a text; the bytes between go to `out` as they are.
void for_valid_parts(std::string_view text, std::string& out,
                     FunctionRef<void(std::string_view)> f) {
  while (!text.empty()) {
    const size_t valid = valid_utf8_length(text);
    if (valid > 0) f(text.substr(0, valid));
    text.remove_prefix(valid);
    if (text.empty()) return;
    const size_t invalid = first_utf8_unit(text).length;
    out += text.substr(0, invalid);
    text.remove_prefix(invalid);
  }
}

// Calls f with each character of well-formed text.
template <class F>
void for_characters(std::string_view text, F f) {
  while (!text.empty()) {
    const Character c = first_character(text);
    f(c.code, text.substr(0, c.length));
    text.remove_prefix(c.length);
  }
}

bool is_ascii(char c) { return static_cast<unsigned char>(c) < 0x80; }

std::string replace_text(std::string_view text, std::string_view pattern,
                         std::string_view content) {
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  size_t done = 0;
  for (size_t at = text.find(pattern); at != std::string_view::npos;
       at = text.find(pattern, done)) {
    out += text.substr(done, at - done);
    out += content;
    done = at + pattern.size();
  }
  out += text.substr(done);
  return out;
}

void replace_matches(const Expression& expression, std::string_view text, std::string_view content,
                     SearchEffort& effort, std::string& out) {
  Expression::Search search(expression, effort);
  size_t done = 0;
  while (done < text.size()) {
    const auto match = search.find(text, done);
    if (!match) break;
    out += text.substr(done, match->begin - done);
    out += content;
    done = match->end;
  }
  out += text.substr(done);
}

std::string_view strip(std::string_view text, bool left, bool right) {
  while (left && !text.empty() && valid_utf8_length(text) > 0) {
    const Character c = first_character(text);
    if (!is_white_space(c.code)) break;
    text.remove_prefix(c.length);
  }
  while (right && !text.empty()) {
    // White space ends in one of few bytes; what ends so and is not UTF-8 stays.
    size_t length = 1;
    while (length < std::min<size_t>(text.size(), 3) &&
           (static_cast<uint8_t>(text[text.size() - length]) & 0xC0) == 0x80) {
      ++length;
    }
    const std::string_view last = text.substr(text.size() - length);
    if (valid_utf8_length(last) != length || !is_white_space(first_character(last).code)) break;
    text.remove_suffix(length);
  }
  return text;
}

// sentencepiece's Nmt rules, as Hugging Face's tokenizers have them.
void clean_nmt(std::string_view text, std::string& out) {
  for_characters(text, [&out](int32_t code, std::string_view c) {
    const bool gone = (code >= 0x01 && code <= 0x08) || code == 0x0B ||
                      (code >= 0x0E && code <= 0x1F) || code == 0x7F || code == 0x8F ||
                      code == 0x9F;
    const bool space = code == 0x09 || code == 0x0A || code == 0x0C || code == 0x0D ||
                       code == 0x1680 || (code >= 0x200B && code <= 0x200F) || code == 0x2028 ||
                       code == 0x2029 || code == 0x2581 || code == 0xFEFF || code == 0xFFFD;
    if (space) {
      out += ' ';
    } else if (!gone) {
      out += c;
    }
  });
}

void map_longest(const Charsmap& map, std::string_view text, std::string& out) {
  while (!text.empty()) {
    size_t length = 0;
    if (const auto match = map.longest(text)) {
      out += match->replacement;
      length = match->length;
    } else {
      length = first_utf8_unit(text).length;
      out += text.substr(0, length);
    }
    text.remove_prefix(length);
  }
}

// As tokenizer.json's Precompiled: a short grapheme, or else each of its characters, becomes what
// its shortest known beginning does.
void map_graphemes(const Charsmap& map, std::string_view text, std::string& out) {
  while (!text.empty()) {
    // Two ASCII characters are never one grapheme, but for a line's end.
    const bool alone = is_ascii(text[0]) && text[0] != '\r' && text.size() > 1 && is_ascii(text[1]);
    if (alone && !map.replaces(text[0])) {
      out += text[0];
      text.remove_prefix(1);
      continue;
    }
    const size_t length = alone ? 1 : first_grapheme_length(text);
    const std::string_view grapheme = text.substr(0, length);
    text.remove_prefix(length);
    if (length <= kMaxMappedGrapheme) {
      if (const auto match = map.shortest(grapheme)) {
        out += match->replacement;
        continue;
      }
    }
    for_characters(grapheme, [&](int32_t, std::string_view c) {
      const auto match = map.shortest(c);
      out += match ? match->replacement : c;
    });
  }
}

std::string write_space_letters(std::string_view text, bool prefix, bool collapse) {
  std::string out;
  out.reserve(text.size() + text.size() / 2 + kSpaceLetter.size());
  bool in_word = false;
  for (const char c : text) {
    if (c == ' ') {
      in_word = false;
      if (!collapse) out += kSpaceLetter;
      continue;
    }
    if (!in_word && (collapse || prefix)) out += kSpaceLetter;
    in_word = true;
    if (!collapse) prefix = false;
    out += c;
  }
  return out;
}

// How many times as long a step may make a text, for those whose content is the file's.
Result<size_t> growth_of(const NormalizerStep& step) {
  const size_t content = step.content.size();
  switch (step.kind) {
    case NormalizerStep::kPrepend:
      if (content > kMaxPrepended) return bad_input("its normalizer puts a long text first");
      return size_t{1};
    case NormalizerStep::kReplaceText:
      if (step.pattern.empty()) return bad_input("its normalizer replaces an empty text");
      return std::max<size_t>(1, (content + step.pattern.size() - 1) / step.pattern.size());
    case NormalizerStep::kReplaceExpression:
      return content + 1;
    default:
      return size_t{1};
  }
}

}  // namespace

struct Normalizer::State {
  struct Step {
    NormalizerStep rule;
    std::optional<Expression> expression;
    std::optional<Charsmap> charsmap;
  };
  std::vector<Step> steps;
};

namespace {

template <class Step>
std::string run_step(const Step& step, std::string_view text, SearchEffort& effort) {
  const NormalizerStep& rule = step.rule;
  std::string out;
  const auto in_parts = [&](auto f) {
    out.reserve(text.size() + text.size() / 8);
    for_valid_parts(text, out, f);
    return std::move(out);
  };
  const auto form = [&](UnicodeForm which) {
    return in_parts([&, which](std::string_view part) { out += to_form(which, part); });
  };
  switch (rule.kind) {
    case NormalizerStep::kNfc:
      return form(UnicodeForm::kNfc);
    case NormalizerStep::kNfd:
      return form(UnicodeForm::kNfd);
    case NormalizerStep::kNfkc:
      return form(UnicodeForm::kNfkc);
    case NormalizerStep::kNfkd:
      return form(UnicodeForm::kNfkd);
    case NormalizerStep::kLowercase:
      return in_parts([&](std::string_view part) { out += to_lower_case(part); });
    case NormalizerStep::kStripAccents:
      return in_parts([&](std::string_view part) {
        for_characters(part, [&out](int32_t code, std::string_view c) {
          if (!is_mark(code)) out += c;
        });
      });
    case NormalizerStep::kStrip:
      return std::string(strip(text, rule.left, rule.right));
    case NormalizerStep::kPrepend:
      return text.empty() ? "" : rule.content + std::string(text);
    case NormalizerStep::kReplaceText:
      return replace_text(text, rule.pattern, rule.content);
    case NormalizerStep::kReplaceExpression:
      return in_parts([&](std::string_view part) {
        replace_matches(*step.expression, part, rule.content, effort, out);
      });
    case NormalizerStep::kNmt:
      return in_parts([&](std::string_view part) { clean_nmt(part, out); });
    case NormalizerStep::kCharsmapLongest:
      return in_parts([&](std::string_view part) { map_longest(*step.charsmap, part, out); });
    case NormalizerStep::kCharsmapGraphemes:
      return in_parts([&](std::string_view part) { map_graphemes(*step.charsmap, part, out); });
    case NormalizerStep::kSpaceLetters:
      return write_space_letters(text, rule.left, rule.collapse);
  }
  return std::string(text);
}

}  // namespace

Normalizer::Normalizer(std::unique_ptr<const State> state) : state_(std::move(state)) {}
Normalizer::Normalizer(Normalizer&&) noexcept = default;
Normalizer& Normalizer::operator=(Normalizer&&) noexcept = default;
Normalizer::~Normalizer() = default;

Result<Normalizer> Normalizer::create(std::span<const NormalizerStep> steps) {
  if (steps.size() > kMaxSteps) return bad_input("its normalizer has more than 32 steps");
  auto state = std::make_unique<State>();
  size_t growth = 1;
  for (const NormalizerStep& rule : steps) {
    auto factor = growth_of(rule);
    if (!factor) return factor.error();
    if (*factor > kMaxGrowth || growth * *factor > kMaxGrowth) {
      return bad_input("its normalizer could make a text more than 64 times as long");
    }
    growth *= *factor;
    State::Step step{rule, std::nullopt, std::nullopt};
    if (rule.kind == NormalizerStep::kReplaceExpression) {
      auto expression = Expression::create(rule.pattern);
      if (!expression) return expression.error();
      step.expression = *std::move(expression);
    }
    if (rule.kind == NormalizerStep::kCharsmapLongest ||
        rule.kind == NormalizerStep::kCharsmapGraphemes) {
      auto charsmap = Charsmap::create(rule.content);
      if (!charsmap) return charsmap.error();
      step.charsmap = *std::move(charsmap);
      step.rule.content = {};
    }
    state->steps.push_back(std::move(step));
  }
  return Normalizer(std::move(state));
}

bool Normalizer::empty() const { return state_->steps.empty(); }

std::string Normalizer::apply(std::string_view text, SearchEffort& effort) const {
  if (state_->steps.empty()) return std::string(text);
  std::string out = run_step(state_->steps[0], text, effort);
  for (size_t i = 1; i < state_->steps.size(); ++i) out = run_step(state_->steps[i], out, effort);
  return out;
}

}  // namespace banyan
