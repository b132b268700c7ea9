// SPDX-License-Identifier: Apache-2.0
#pragma once
// A vocabulary as a merge table: words in, tokens out.

#include <array>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "text/merge.h"
#include "text/space_cuts.h"
#include "text/tokenizer.h"

namespace banyan {

// Hash of std::unordered_map<std::string, ..> that can be asked about a std::string_view.
struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
template <class T>
using TextMap = std::unordered_map<std::string, T, TextHash, std::equal_to<>>;

// Immutable, safe to share between threads.
class SubwordModel {
 public:
  struct Scratch {
    std::vector<Symbol> symbols;
    std::vector<uint32_t> ranks;
  };

  // Words are bytes; merges are given. kBadInput for missing or malformed merges.
  static Result<SubwordModel> byte_level(const Vocabulary& vocabulary, const TextRules& rules);

  // Words are characters; merges are given. What becomes of characters without a token is the
  // rules'. kBadInput for missing or malformed merges.
  static Result<SubwordModel> characters(const Vocabulary& vocabulary, const TextRules& rules);

  // Words are characters, spaces written as U+2581; two symbols merge if together they are a token,
  // better scores first.
  static SubwordModel sentencepiece(const Vocabulary& vocabulary);

  // Appends the tokens of `word`. Bytes that have no token become the unknown token, or nothing if
  // there is none.
  void encode(std::string_view word, Scratch& scratch, std::vector<TokenId>& tokens) const;

  // Appends the token of one byte outside any word.
  void encode_byte(uint8_t byte, std::vector<TokenId>& tokens) const;

  // Where a text may be cut without changing its tokens.
  const SpaceCuts& cuts() const { return cuts_; }

 private:
  Result<void> add_merges(const Vocabulary& vocabulary, bool closed, class SymbolsByText& symbols);
  void add_character(std::string_view character, Symbol symbol);
  void split_into_characters(std::string_view word, std::vector<Symbol>& symbols) const;
  bool add_bytes(std::string_view character, std::vector<Symbol>& symbols) const;

  MergeTable merges_;
  Symbol n_tokens_ = 0;                     // symbols from here on are no tokens
  std::vector<std::string> fragments_;      // the bytes of those
  bool in_characters_ = false;              // what a word begins as: characters, else bytes
  std::array<Symbol, 256> byte_symbols_{};  // of bytes; of ASCII characters (or kNoSymbol)
  std::array<TokenId, 256> byte_tokens_{};  // -1: none
  TextMap<Symbol> character_symbols_;       // of characters beyond ASCII
  TextMap<TokenId> whole_words_;
  TokenId unknown_ = -1;
  bool all_bytes_or_unknown_ = false;  // a character with some byte tokens is unknown as a whole
  bool byte_fallback_ = true;
  bool fuse_unknown_ = false;
  SpaceCuts cuts_;
};

}  // namespace banyan
