// SPDX-License-Identifier: Apache-2.0
#pragma once
// What happens to a text on its way to tokens, as data: normalized step by step, cut step by step
// into words, each word through a model of subwords. GGUF files name such rules, tokenizer.json
// files spell them out (https://huggingface.co/docs/tokenizers/components).

#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"

namespace banyan {

inline constexpr std::string_view kSpaceLetter = "\xE2\x96\x81";  // U+2581, SentencePiece's space

struct NormalizerStep {
  enum Kind {
    kNfc,
    kNfd,
    kNfkc,
    kNfkd,
    kLowercase,
    kStripAccents,       // marks (\p{M}) go
    kStrip,              // white space at the ends goes: `left`, `right`
    kPrepend,            // `content`, where there is any text
    kReplaceText,        // every `pattern` by `content`
    kReplaceExpression,  // every match of `pattern` by `content`
    kNmt,                // SentencePiece's clean-up of control characters and odd spaces
    // SentencePiece's compiled table of replacements, `content`: applied to the longest beginnings
    // that it knows, or (tokenizer.json) to characters as people see them.
    kCharsmapLongest,
    kCharsmapGraphemes,
    // Spaces become U+2581, one of them is put first (`left`), rows of them become one and those
    // at the end go (`collapse`).
    kSpaceLetters,
  };
  Kind kind;
  std::string pattern{};
  std::string content{};
  bool left = false;
  bool right = false;
  bool collapse = false;
};

struct SplitStep {
  enum Kind {
    kExpression,  // at matches of `pattern`
    kText,        // at every `pattern`
    // Spaces become `pattern`, which may be put first, and pieces are cut before each (`cut`).
    kMetaspace,
    kAddSpace,     // puts a space before a piece that does not begin with one
    kDigitGroups,  // digits in threes, counted from the right
  };
  // What becomes of a match.
  enum Behavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };
  enum Prepend { kNever, kFirst, kAlways };  // kFirst: at the start of the whole text only

  Kind kind = kExpression;
  std::string pattern;
  Behavior behavior = kIsolated;
  bool invert = false;  // what lies between the matches is what is matched
  Prepend prepend = kNever;
  bool cut = true;
};

// How words become tokens.
enum class Subwords {
  kByteMerges,       // GPT-2's: bytes merge as the merges say
  kCharacterMerges,  // characters merge as the merges say
  kScores,           // SentencePiece's BPE: characters merge into tokens, best scores first
  kUnigram,          // the sequence of tokens with the best sum of scores (Kudo 2018)
};

// Where encode() puts a space before a text, which decode() takes away again.
enum class SpacePrefix { kNone, kFirst, kEvery };  // kEvery: after special tokens, too

struct TextRules {
  std::vector<NormalizerStep> normalizer;
  std::vector<SplitStep> splits;
  Subwords subwords = Subwords::kByteMerges;
  bool whole_words = false;    // a word that is a token is taken as it is
  bool closed_merges = false;  // merges that do not lead from tokens to tokens are refused
  bool byte_fallback = false;  // characters without a token become their byte tokens
  bool fuse_unknown = false;   // unknown characters in a row become one unknown token
  bool space_letters = false;  // decode() writes U+2581 as a space
  SpacePrefix space_prefix = SpacePrefix::kNone;
};

// How a special token is found in a text.
struct TokenMatching {
  TokenId token = -1;
  bool single_word = false;  // only where no letter, digit or '_' adjoins
  bool strip_left = false;   // takes the white space before it along
  bool strip_right = false;  // and after it
  bool normalized = false;   // looked for after the text was normalized
};

}  // namespace banyan
