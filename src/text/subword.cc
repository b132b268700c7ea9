// SPDX-License-Identifier: Apache-2.0
#include "text/subword.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <unordered_set>
#include <utility>

#include "base/printable.h"
#include "text/byte_letters.h"
#include "text/utf8.h"

namespace banyan {
namespace {

constexpr Symbol kNoSymbol = std::numeric_limits<Symbol>::max();
constexpr size_t kMaxMerges = size_t{1} << 24;

// SentencePiece allows 16 characters by default; longer tokens are added ones, found by their text.
// Keeps the table of merges, one for each way to cut a token in two, in proportion to the file.
constexpr size_t kMaxMergedBytes = 256;

// Whether text may become this token by merging: what control tokens look like is text.
bool can_merge(const Vocabulary& vocabulary, size_t token) {
  if (vocabulary.types.empty()) return !parse_byte_token(vocabulary.tokens[token]);
  switch (vocabulary.types[token]) {
    case TokenType::kUnknown:
    case TokenType::kControl:
    case TokenType::kByte:
      return false;
    default:
      return true;
  }
}

// Symbols by their text, as the vocabulary spells it. Open addressing, with a part of the hash in
// each slot: loading a large vocabulary is a million look-ups that miss the caches.
}  // namespace

class SymbolsByText {
 public:
  // The vocabulary must outlive this.
  explicit SymbolsByText(const Vocabulary& vocabulary)
      : tokens_(vocabulary.tokens), slots_(std::bit_ceil(4 * tokens_.size() + 1024)) {
    for (size_t token = 0; token < tokens_.size(); ++token) {
      if (!can_merge(vocabulary, token)) continue;
      Slot& slot = slots_[place(tokens_[token])];
      if (slot.symbol == kNoSymbol) fill(slot, tokens_[token], static_cast<Symbol>(token));
    }
  }

  Symbol find(std::string_view text) const { return slots_[place(text)].symbol; }

  // A symbol that is no token, if there is none yet.
  Symbol find_or_add(std::string_view text) {
    Slot* slot = &slots_[place(text)];
    if (slot->symbol != kNoSymbol) return slot->symbol;
    if (2 * (n_filled_ + 1) > slots_.size()) {
      grow();
      slot = &slots_[place(text)];
    }
    const auto symbol = static_cast<Symbol>(tokens_.size() + fragments_.size());
    fragments_.emplace_back(text);
    fill(*slot, text, symbol);
    return symbol;
  }

  const std::vector<std::string>& fragments() const { return fragments_; }

 private:
  struct Slot {
    uint32_t tag = 0;  // upper half of the hash
    Symbol symbol = kNoSymbol;
  };

  static uint64_t hash(std::string_view text) { return std::hash<std::string_view>()(text); }

  std::string_view text_of(Symbol symbol) const {
    return symbol < tokens_.size() ? tokens_[symbol] : fragments_[symbol - tokens_.size()];
  }

  // The slot that holds `text`, or the free one where it belongs.
  size_t place(std::string_view text) const {
    const uint64_t full = hash(text);
    const size_t mask = slots_.size() - 1;
    size_t i = full & mask;
    for (; slots_[i].symbol != kNoSymbol; i = (i + 1) & mask) {
      if (slots_[i].tag == full >> 32 && text_of(slots_[i].symbol) == text) break;
    }
    return i;
  }

  void fill(Slot& slot, std::string_view text, Symbol symbol) {
    slot = {static_cast<uint32_t>(hash(text) >> 32), symbol};
    ++n_filled_;
  }

  void grow() {
    std::vector<Slot> old(2 * slots_.size());
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.symbol != kNoSymbol) slots_[place(text_of(slot.symbol))] = slot;
    }
  }

  const std::vector<std::string>& tokens_;
  std::vector<std::string> fragments_;
  std::vector<Slot> slots_;  // a power of two of them, at most half of them filled
  size_t n_filled_ = 0;
};

namespace {

// Token -> rank, 0 the best: the place of its score among all scores that occur.
std::vector<uint32_t> ranks_of_scores(const Vocabulary& vocabulary) {
  std::vector<float> scores(vocabulary.tokens.size(), 0.0F);
  for (size_t i = 0; i < vocabulary.scores.size(); ++i) {
    const float score = vocabulary.scores[i];
    scores[i] = std::isnan(score) ? -std::numeric_limits<float>::infinity() : score;
  }
  std::vector<float> best_first = scores;
  std::sort(best_first.begin(), best_first.end(), std::greater<>());
  best_first.erase(std::unique(best_first.begin(), best_first.end()), best_first.end());
  std::vector<uint32_t> ranks(scores.size());
  for (size_t i = 0; i < scores.size(); ++i) {
    const auto place =
        std::lower_bound(best_first.begin(), best_first.end(), scores[i], std::greater<>());
    ranks[i] = static_cast<uint32_t>(place - best_first.begin());
  }
  return ranks;
}

// The two sides of merge `rank`, empty if it is malformed.
std::pair<std::string_view, std::string_view> sides_of(const Vocabulary& vocabulary, size_t rank) {
  const std::string_view merge = vocabulary.merges[rank];
  const size_t space =
      rank < vocabulary.merge_cuts.size() ? vocabulary.merge_cuts[rank] : merge.find(' ', 1);
  if (space == 0 || space >= merge.size() || space + 1 == merge.size()) return {};
  return {merge.substr(0, space), merge.substr(space + 1)};
}

}  // namespace

Result<void> SubwordModel::add_merges(const Vocabulary& vocabulary, bool closed,
                                      SymbolsByText& symbols) {
  if (vocabulary.merges.empty() && !closed) return bad_input("it has no merges");
  if (vocabulary.merges.size() > kMaxMerges) return bad_input("it has more than 2^24 merges");
  std::unordered_set<std::string_view> others;  // tokens that are no symbols
  for (size_t token = 0; closed && token < vocabulary.tokens.size(); ++token) {
    if (!can_merge(vocabulary, token)) others.insert(vocabulary.tokens[token]);
  }
  merges_ = MergeTable(vocabulary.merges.size());
  std::string joined;
  for (size_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
    const auto [left, right] = sides_of(vocabulary, rank);
    if (left.empty()) return bad_input("its merge " + std::to_string(rank) + " is not two words");
    joined.assign(left).append(right);
    const std::pair<std::string_view, Symbol> parts[] = {{left, symbols.find_or_add(left)},
                                                         {right, symbols.find_or_add(right)},
                                                         {joined, symbols.find_or_add(joined)}};
    for (const auto& [text, symbol] : parts) {
      if (!closed || symbol < n_tokens_ || others.contains(text)) continue;
      return bad_input("its merge " + std::to_string(rank) + " needs '" + printable(text) +
                       "', which is no token");
    }
    const Merge entry{static_cast<uint32_t>(rank), parts[2].second};
    merges_.insert(parts[0].second, parts[1].second, entry);
  }
  return {};
}

Result<SubwordModel> SubwordModel::byte_level(const Vocabulary& vocabulary,
                                              const TextRules& rules) {
  SubwordModel model;
  model.n_tokens_ = static_cast<Symbol>(vocabulary.tokens.size());
  model.unknown_ = vocabulary.unk;
  SymbolsByText symbols(vocabulary);
  for (int byte = 0; byte < 256; ++byte) {
    const Symbol symbol = symbols.find_or_add(letter_of_byte(static_cast<uint8_t>(byte)));
    model.byte_symbols_[byte] = symbol;
    model.byte_tokens_[byte] = symbol < model.n_tokens_ ? static_cast<TokenId>(symbol) : -1;
  }

  BANYAN_TRY(model.add_merges(vocabulary, rules.closed_merges, symbols));
  for (const std::string& letters : symbols.fragments()) {
    model.fragments_.push_back(bytes_of_letters(letters).value_or(letters));
  }

  if (rules.whole_words) {
    model.whole_words_.reserve(vocabulary.tokens.size());
    for (size_t token = 0; token < vocabulary.tokens.size(); ++token) {
      if (!can_merge(vocabulary, token)) continue;
      if (auto bytes = bytes_of_letters(vocabulary.tokens[token])) {
        model.whole_words_.try_emplace(*std::move(bytes), static_cast<TokenId>(token));
      }
    }
  }
  return model;
}

Result<SubwordModel> SubwordModel::characters(const Vocabulary& vocabulary,
                                              const TextRules& rules) {
  SubwordModel model;
  model.n_tokens_ = static_cast<Symbol>(vocabulary.tokens.size());
  model.unknown_ = vocabulary.unk;
  model.in_characters_ = true;
  model.all_bytes_or_unknown_ = true;
  model.byte_fallback_ = rules.byte_fallback;
  model.fuse_unknown_ = rules.fuse_unknown;
  model.byte_symbols_.fill(kNoSymbol);
  model.byte_tokens_.fill(-1);
  SymbolsByText symbols(vocabulary);
  const auto add_if_character = [&model](std::string_view text, Symbol symbol) {
    if (!text.empty() && first_utf8_unit(text).length == text.size()) {
      model.add_character(text, symbol);
    }
  };
  for (size_t token = 0; token < vocabulary.tokens.size(); ++token) {
    const std::string_view text = vocabulary.tokens[token];
    if (const auto byte = parse_byte_token(text); byte && model.byte_tokens_[*byte] < 0) {
      model.byte_tokens_[*byte] = static_cast<TokenId>(token);
    }
    if (!can_merge(vocabulary, token)) continue;
    add_if_character(text, symbols.find(text));
    model.cuts_.add(text);
    if (rules.whole_words) model.whole_words_.try_emplace(std::string(text), token);
  }
  BANYAN_TRY(model.add_merges(vocabulary, rules.closed_merges, symbols));
  for (const std::string& text : symbols.fragments()) {
    add_if_character(text, static_cast<Symbol>(model.n_tokens_ + model.fragments_.size()));
    model.cuts_.add(text);
    model.fragments_.push_back(text);
  }
  return model;
}

SubwordModel SubwordModel::sentencepiece(const Vocabulary& vocabulary) {
  SubwordModel model;
  model.n_tokens_ = static_cast<Symbol>(vocabulary.tokens.size());
  model.unknown_ = vocabulary.unk;
  model.in_characters_ = true;
  model.byte_symbols_.fill(kNoSymbol);
  model.byte_tokens_.fill(-1);
  SymbolsByText symbols(vocabulary);
  const std::vector<uint32_t> ranks = ranks_of_scores(vocabulary);

  for (size_t token = 0; token < vocabulary.tokens.size(); ++token) {
    const std::string_view text = vocabulary.tokens[token];
    if (const auto byte = parse_byte_token(text); byte && model.byte_tokens_[*byte] < 0) {
      model.byte_tokens_[*byte] = static_cast<TokenId>(token);
    }
    if (!can_merge(vocabulary, token) || text.empty() || text.size() > kMaxMergedBytes) continue;
    model.cuts_.add(text);

    std::vector<size_t> cuts;  // where characters begin, and the end
    for (size_t at = 0; at < text.size(); at += first_utf8_unit(text.substr(at)).length) {
      cuts.push_back(at);
    }
    cuts.push_back(text.size());
    const auto half = [&](size_t from, size_t to) {
      const std::string_view part = text.substr(cuts[from], cuts[to] - cuts[from]);
      return to == from + 1 ? symbols.find_or_add(part) : symbols.find(part);
    };
    const size_t n = cuts.size() - 1;
    for (size_t cut = 1; cut < n; ++cut) {
      const Symbol left = half(0, cut);
      const Symbol right = half(cut, n);
      if (left == kNoSymbol || right == kNoSymbol) continue;
      model.merges_.insert(left, right, {ranks[token], symbols.find(text)});
    }
    if (n == 1) model.add_character(text, symbols.find(text));
  }
  for (const std::string& character : symbols.fragments()) {
    model.add_character(character, static_cast<Symbol>(model.n_tokens_ + model.fragments_.size()));
    model.fragments_.push_back(character);
  }
  return model;
}

void SubwordModel::add_character(std::string_view character, Symbol symbol) {
  const auto byte = static_cast<uint8_t>(character[0]);
  if (byte < 0x80) {
    byte_symbols_[byte] = symbol;
  } else {
    character_symbols_.emplace(character, symbol);
  }
}

void SubwordModel::encode(std::string_view word, Scratch& scratch,
                          std::vector<TokenId>& tokens) const {
  if (!whole_words_.empty()) {
    if (const auto found = whole_words_.find(word); found != whole_words_.end()) {
      tokens.push_back(found->second);
      return;
    }
  }
  std::vector<Symbol>& symbols = scratch.symbols;
  symbols.clear();
  if (in_characters_) {
    split_into_characters(word, symbols);
  } else {
    for (const char c : word) symbols.push_back(byte_symbols_[static_cast<uint8_t>(c)]);
  }
  merge_all(merges_, symbols, scratch.ranks);
  for (const Symbol symbol : symbols) {
    if (symbol < n_tokens_) {
      tokens.push_back(static_cast<TokenId>(symbol));
    } else {
      for (const char c : fragments_[symbol - n_tokens_]) {
        encode_byte(static_cast<uint8_t>(c), tokens);
      }
    }
  }
}

// Characters that no token holds become their byte tokens, or unknown, right away: those do not
// merge.
void SubwordModel::split_into_characters(std::string_view word,
                                         std::vector<Symbol>& symbols) const {
  bool after_unknown = false;
  for (size_t at = 0; at < word.size();) {
    const size_t length = first_utf8_unit(word.substr(at)).length;
    const std::string_view character = word.substr(at, length);
    at += length;
    Symbol symbol = kNoSymbol;
    if (length == 1) {
      symbol = byte_symbols_[static_cast<uint8_t>(character[0])];
    } else if (const auto found = character_symbols_.find(character);
               found != character_symbols_.end()) {
      symbol = found->second;
    }
    if (symbol == kNoSymbol && !add_bytes(character, symbols)) {
      if (unknown_ < 0 || (fuse_unknown_ && after_unknown)) continue;
      after_unknown = true;
      symbols.push_back(unknown_);
      continue;
    }
    after_unknown = false;
    if (symbol != kNoSymbol) symbols.push_back(symbol);
  }
}

// False if the character is unknown as a whole.
bool SubwordModel::add_bytes(std::string_view character, std::vector<Symbol>& symbols) const {
  if (!byte_fallback_) return false;
  const auto token_of = [this](char c) { return byte_tokens_[static_cast<uint8_t>(c)]; };
  if (all_bytes_or_unknown_ &&
      std::any_of(character.begin(), character.end(), [&](char c) { return token_of(c) < 0; })) {
    return false;
  }
  for (const char c : character) {
    const TokenId token = token_of(c) >= 0 ? token_of(c) : unknown_;
    if (token >= 0) symbols.push_back(token);
  }
  return true;
}

void SubwordModel::encode_byte(uint8_t byte, std::vector<TokenId>& tokens) const {
  const TokenId token = byte_tokens_[byte] >= 0 ? byte_tokens_[byte] : unknown_;
  if (token >= 0) tokens.push_back(token);
}

}  // namespace banyan
