// SPDX-License-Identifier: Apache-2.0
#include "text/named_rules.h"

#include <algorithm>
#include <cctype>
#include <string>

#include "base/printable.h"
#include "text/pre_tokenizer_rules.h"

namespace banyan {
namespace {

std::string lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

NormalizerStep replace(std::string_view pattern, std::string_view content) {
  NormalizerStep step{NormalizerStep::kReplaceText};
  step.pattern = pattern;
  step.content = content;
  return step;
}

TextRules sentencepiece(const Vocabulary& vocabulary) {
  TextRules rules;
  rules.subwords = Subwords::kScores;
  rules.space_letters = true;
  if (vocabulary.add_space_prefix) {
    NormalizerStep prefix{NormalizerStep::kPrepend};
    prefix.content = kSpaceLetter;
    rules.normalizer.push_back(std::move(prefix));
    rules.space_prefix = SpacePrefix::kEvery;
  }
  rules.normalizer.push_back(replace(" ", kSpaceLetter));
  return rules;
}

TextRules unigram(const Vocabulary& vocabulary) {
  TextRules rules;
  rules.subwords = Subwords::kUnigram;
  rules.space_letters = true;
  if (!vocabulary.charsmap.empty()) {
    NormalizerStep map{NormalizerStep::kCharsmapLongest};
    map.content = vocabulary.charsmap;
    rules.normalizer.push_back(std::move(map));
  }
  NormalizerStep spaces{NormalizerStep::kSpaceLetters};
  spaces.left = vocabulary.add_space_prefix;
  spaces.collapse = vocabulary.remove_extra_whitespaces;
  if (spaces.left || spaces.collapse) rules.space_prefix = SpacePrefix::kEvery;
  rules.normalizer.push_back(std::move(spaces));
  return rules;
}

}  // namespace

Result<TextRules> named_rules(const Vocabulary& vocabulary) {
  if (vocabulary.model == "llama") return sentencepiece(vocabulary);
  if (vocabulary.model == "t5") return unigram(vocabulary);
  if (vocabulary.model == "bert") {
    return bad_input(
        "its tokenizer is WordPiece (bert), that of encoders, which do not generate text");
  }
  const bool letters = vocabulary.model == "gemma4" || vocabulary.pre == "sarvam-moe";
  if (vocabulary.model != "gpt2" && !letters) {
    return bad_input("its tokenizer model '" + printable(vocabulary.model) +
                     "' is not known; gpt2 (byte-level BPE), llama (SentencePiece BPE), t5 "
                     "(SentencePiece unigram) and gemma4 (BPE of characters) are");
  }
  const std::string_view pre = letters ? std::string_view("gemma4") : vocabulary.pre;
  auto rule = find_pre_tokenizer_rule(pre);
  if (!rule) return bad_input("its pre-tokenizer '" + printable(pre) + "' is not known");
  TextRules rules;
  rules.splits = std::move(rule->splits);
  rules.whole_words = rule->takes_whole_words;
  if (letters) {
    rules.subwords = Subwords::kCharacterMerges;
    rules.byte_fallback = true;
    rules.space_letters = true;
    rules.normalizer.push_back(replace(" ", kSpaceLetter));
  }
  return rules;
}

std::vector<TokenMatching> named_matching(const Vocabulary& vocabulary) {
  std::vector<TokenMatching> matching;
  const std::string name = lower_case(vocabulary.name);
  if (name.find("phi-3") == std::string::npos && name.find("phi3") == std::string::npos) {
    return matching;
  }
  for (size_t token = 0; token < vocabulary.types.size(); ++token) {
    const TokenType type = vocabulary.types[token];
    const std::string& text = vocabulary.tokens[token];
    const bool special = type == TokenType::kControl || type == TokenType::kUnknown ||
                         type == TokenType::kUserDefined;
    if (!special || text == "<unk>" || text == "<s>" || text == "<|endoftext|>") continue;
    TokenMatching how;
    how.token = static_cast<TokenId>(token);
    how.strip_right = true;
    matching.push_back(how);
  }
  return matching;
}

}  // namespace banyan
