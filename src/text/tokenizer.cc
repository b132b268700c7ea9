// SPDX-License-Identifier: Apache-2.0
#include "text/tokenizer.h"

#include <array>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/check.h"
#include "text/byte_letters.h"
#include "text/end_tokens.h"
#include "text/named_rules.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/special_tokens.h"
#include "text/subword.h"
#include "text/unicode.h"
#include "text/unigram.h"
#include "text/utf8.h"
#include "text/word_cache.h"

namespace banyan {
namespace {

constexpr size_t kMaxTokens = size_t{1} << 24;
constexpr size_t kCacheFromBytes = 1024;  // in shorter texts the cache costs more than it saves

Result<void> check(const Vocabulary& vocabulary) {
  const size_t n = vocabulary.tokens.size();
  if (n == 0) return bad_input("its vocabulary is empty");
  if (n > kMaxTokens) return bad_input("its vocabulary has more than 2^24 tokens");
  if (!vocabulary.types.empty() && vocabulary.types.size() != n) {
    return bad_input("it has " + std::to_string(vocabulary.types.size()) + " token types for " +
                     std::to_string(n) + " tokens");
  }
  if (!vocabulary.scores.empty() && vocabulary.scores.size() != n) {
    return bad_input("it has " + std::to_string(vocabulary.scores.size()) + " token scores for " +
                     std::to_string(n) + " tokens");
  }
  const std::pair<const char*, TokenId> ids[] = {{"BOS", vocabulary.bos},
                                                 {"EOS", vocabulary.eos},
                                                 {"EOT", vocabulary.eot},
                                                 {"unknown", vocabulary.unk}};
  for (const auto& [name, id] : ids) {
    if (id < -1 || id >= static_cast<int64_t>(n)) {
      return bad_input(std::string("its ") + name + " token " + std::to_string(id) +
                       " is not one of its " + std::to_string(n) + " tokens");
    }
  }
  for (const auto* list : {&vocabulary.more_begins, &vocabulary.more_ends}) {
    for (const TokenId id : *list) {
      if (id >= 0 && id < static_cast<int64_t>(n)) continue;
      return bad_input("its begin or end token " + std::to_string(id) + " is not one of its " +
                       std::to_string(n) + " tokens");
    }
  }
  return {};
}

// What begins a text, and ends it, as white space; bytes that are not UTF-8 are none.
size_t leading_space(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const Utf8Unit unit = first_utf8_unit(text.substr(at));
    if (unit.kind != Utf8Unit::kCharacter) break;
    const Character c = first_character(text.substr(at));
    if (!is_white_space(c.code)) break;
    at += c.length;
  }
  return at;
}

// The character in which a text ends, 0 if there is none.
int32_t last_code(std::string_view text) {
  for (size_t length = 1; length <= 4 && length <= text.size(); ++length) {
    const std::string_view last = text.substr(text.size() - length);
    if (valid_utf8_length(last) == length) return first_character(last).code;
  }
  return 0;
}

bool begins_with_word(std::string_view text) {
  return !text.empty() && first_utf8_unit(text).kind == Utf8Unit::kCharacter &&
         is_word_character(first_character(text).code);
}

size_t without_trailing_space(std::string_view text, size_t from) {
  while (text.size() > from) {
    const int32_t code = last_code(text);
    if (code == 0 || !is_white_space(code)) break;
    std::string character;
    append_character(code, character);
    if (text.size() - from < character.size()) break;
    text.remove_suffix(character.size());
  }
  return text.size();
}

// Leaves the merges whose two sides and their join are among the vocabulary's tokens.
void keep_closed_merges(Vocabulary& v) {
  const std::unordered_set<std::string_view> tokens(v.tokens.begin(), v.tokens.end());
  size_t kept = 0;
  for (size_t i = 0; i < v.merges.size(); ++i) {
    const std::string_view merge = v.merges[i];
    const size_t cut = v.merge_cuts.empty() ? merge.find(' ') : v.merge_cuts[i];
    if (cut >= merge.size()) continue;
    const std::string_view left = merge.substr(0, cut);
    const std::string_view right = merge.substr(cut + 1);
    const std::string join = std::string(left) + std::string(right);
    if (!tokens.contains(left) || !tokens.contains(right) || !tokens.contains(join)) continue;
    if (!v.merge_cuts.empty()) v.merge_cuts[kept] = v.merge_cuts[i];
    if (kept != i) v.merges[kept] = std::move(v.merges[i]);
    ++kept;
  }
  v.merges.resize(kept);
  if (!v.merge_cuts.empty()) v.merge_cuts.resize(kept);
}

}  // namespace

void keep_first_tokens(Vocabulary& v, size_t n) {
  if (v.tokens.size() <= n) return;
  v.tokens.resize(n);
  if (v.types.size() > n) v.types.resize(n);
  if (v.scores.size() > n) v.scores.resize(n);
  const auto is_gone = [n](TokenId id) { return id >= static_cast<int64_t>(n); };
  for (TokenId* id : {&v.bos, &v.eos, &v.eot, &v.unk}) {
    if (is_gone(*id)) *id = -1;
  }
  std::erase_if(v.more_begins, is_gone);
  std::erase_if(v.more_ends, is_gone);
  std::erase_if(v.matching, [&](const TokenMatching& how) { return is_gone(how.token); });
  keep_closed_merges(v);
}

struct Tokenizer::State {
  // Special tokens to look for, all and those found in any text.
  struct Found {
    SpecialTokens parsed;
    SpecialTokens plain;
    const SpecialTokens& of(Special special) const {
      return special == Special::kParse ? parsed : plain;
    }
  };
  // Of one call of encode().
  struct Work {
    Special special;
    std::vector<TokenId>& tokens;
    bool use_cache;
    SearchEffort effort;
    WordCache cache{};
    SubwordModel::Scratch subwords{};
    UnigramModel::Scratch unigram{};
  };

  Vocabulary vocabulary;
  TextRules rules;
  std::vector<bool> ends;
  std::string pieces;                // the bytes of all tokens, one after another
  std::vector<size_t> piece_begins;  // [tokens + 1]
  Found raw_tokens;                  // in the text as it is given
  Found normalized_tokens;           // in normalized text
  std::unordered_map<TokenId, TokenMatching> matching;  // of most there is nothing to say
  std::optional<Normalizer> normalizer;
  std::optional<PreTokenizer> pre_tokenizer;
  SubwordModel subwords;  // unless rules.subwords is kUnigram
  std::optional<UnigramModel> unigram;

  TokenType type(TokenId token) const {
    return vocabulary.types.empty() ? TokenType::kNormal : vocabulary.types[token];
  }
  bool is_hidden(TokenId token) const {  // not text
    return type(token) == TokenType::kControl || type(token) == TokenType::kUnknown;
  }
  bool is_special(TokenId token) const {
    return is_hidden(token) || type(token) == TokenType::kUserDefined;
  }

  Result<void> make_models();
  void index_special_tokens(const std::vector<TokenMatching>& how);
  void spell_pieces();
  std::string spell(TokenId token) const;
  const TokenMatching* matching_of(TokenId token) const {
    if (matching.empty()) return nullptr;
    const auto found = matching.find(token);
    return found == matching.end() ? nullptr : &found->second;
  }

  template <class F>
  void split_at(const SpecialTokens& specials, std::string_view text, std::vector<TokenId>& tokens,
                F f) const;
  void encode_text(std::string_view text, bool at_start, Work& work) const;
  void encode_normalized(std::string_view text, bool at_start, Work& work) const;
  void encode_word(std::string_view word, Work& work) const;
  void encode_byte(uint8_t byte, Work& work) const;
};

Result<void> Tokenizer::State::make_models() {
  auto made_normalizer = Normalizer::create(rules.normalizer);
  if (!made_normalizer) return made_normalizer.error();
  normalizer = *std::move(made_normalizer);
  auto made_pre_tokenizer = PreTokenizer::create(rules.splits);
  if (!made_pre_tokenizer) return made_pre_tokenizer.error();
  pre_tokenizer = *std::move(made_pre_tokenizer);
  if (rules.subwords == Subwords::kUnigram) {
    auto model = UnigramModel::create(vocabulary, rules);
    if (!model) return model.error();
    unigram = *std::move(model);
    return {};
  }
  if (rules.subwords == Subwords::kScores) {
    subwords = SubwordModel::sentencepiece(vocabulary);
    return {};
  }
  auto model = rules.subwords == Subwords::kByteMerges
                   ? SubwordModel::byte_level(vocabulary, rules)
                   : SubwordModel::characters(vocabulary, rules);
  if (!model) return model.error();
  subwords = *std::move(model);
  return {};
}

void Tokenizer::State::index_special_tokens(const std::vector<TokenMatching>& how) {
  for (const TokenMatching& one : how) matching.emplace(one.token, one);
  SearchEffort effort(0);
  using List = std::vector<std::pair<std::string, TokenId>>;
  std::array<List, 4> lists;  // raw and parsed, raw and plain, normalized ..
  for (TokenId token = 0; token < static_cast<TokenId>(vocabulary.tokens.size()); ++token) {
    if (!is_special(token)) continue;
    const TokenMatching* one = matching_of(token);
    const bool normalized = one != nullptr && one->normalized;
    const std::string& text = vocabulary.tokens[token];
    const std::pair entry{normalized ? normalizer->apply(text, effort) : text, token};
    if (!is_hidden(token)) lists[normalized ? 3 : 1].push_back(entry);
    lists[normalized ? 2 : 0].push_back(entry);
  }
  raw_tokens = {SpecialTokens(std::move(lists[0])), SpecialTokens(std::move(lists[1]))};
  normalized_tokens = {SpecialTokens(std::move(lists[2])), SpecialTokens(std::move(lists[3]))};
}

std::string Tokenizer::State::spell(TokenId token) const {
  const std::string& text = vocabulary.tokens[token];
  if (is_special(token)) return text;
  const bool bytes = rules.subwords == Subwords::kByteMerges;
  if (type(token) == TokenType::kByte || (!bytes && vocabulary.types.empty())) {
    if (const auto byte = parse_byte_token(text)) return std::string(1, static_cast<char>(*byte));
  }
  if (bytes) return bytes_of_letters(text).value_or(text);
  if (!rules.space_letters) return text;
  std::string spelled;
  for (std::string_view rest = text; !rest.empty();) {
    const bool space = rest.starts_with(kSpaceLetter);
    spelled += space ? ' ' : rest[0];
    rest.remove_prefix(space ? kSpaceLetter.size() : 1);
  }
  return spelled;
}

void Tokenizer::State::spell_pieces() {
  piece_begins.reserve(vocabulary.tokens.size() + 1);
  for (size_t token = 0; token < vocabulary.tokens.size(); ++token) {
    piece_begins.push_back(pieces.size());
    pieces += spell(static_cast<TokenId>(token));
  }
  piece_begins.push_back(pieces.size());
}

// Appends the special tokens of `text` and calls f with what lies between.
template <class F>
void Tokenizer::State::split_at(const SpecialTokens& specials, std::string_view text,
                                std::vector<TokenId>& tokens, F f) const {
  size_t done = 0;
  for (size_t from = 0; from < text.size();) {
    const auto match = specials.find(text, from);
    if (!match) break;
    size_t begin = match->begin;
    size_t end = begin + match->length;
    from = end;
    if (const TokenMatching* how = matching_of(match->token)) {
      if (how->single_word && (is_word_character(last_code(text.substr(0, begin))) ||
                               begins_with_word(text.substr(end)))) {
        continue;
      }
      if (how->strip_left) begin = without_trailing_space(text.substr(0, begin), done);
      if (how->strip_right) end += leading_space(text.substr(end));
      from = end;
    }
    if (begin > done) f(text.substr(done, begin - done));
    tokens.push_back(match->token);
    done = end;
  }
  if (done < text.size()) f(text.substr(done));
}

// `text` holds no special tokens but those that normalization brings out.
void Tokenizer::State::encode_text(std::string_view text, bool at_start, Work& work) const {
  std::string normalized;
  if (!normalizer->empty()) {
    normalized = normalizer->apply(text, work.effort);
    text = normalized;
  }
  const char* begin = text.data();
  split_at(normalized_tokens.of(work.special), text, work.tokens, [&](std::string_view part) {
    encode_normalized(part, at_start && part.data() == begin, work);
  });
}

void Tokenizer::State::encode_normalized(std::string_view text, bool at_start, Work& work) const {
  const bool bytes = rules.subwords == Subwords::kByteMerges;
  const SpaceCuts& cuts = unigram ? unigram->cuts() : subwords.cuts();
  const auto encode_piece = [&](std::string_view piece) {
    if (bytes || rules.whole_words) return encode_word(piece, work);
    while (!piece.empty()) {
      const size_t length = cuts.first_word(piece);
      encode_word(piece.substr(0, length), work);
      piece.remove_prefix(length);
    }
  };
  while (!text.empty()) {
    const size_t valid = valid_utf8_length(text);
    if (valid > 0) pre_tokenizer->split(text.substr(0, valid), at_start, work.effort, encode_piece);
    at_start = false;
    text.remove_prefix(valid);
    if (text.empty()) return;
    const size_t invalid = first_utf8_unit(text).length;
    for (const char c : text.substr(0, invalid)) encode_byte(static_cast<uint8_t>(c), work);
    text.remove_prefix(invalid);
  }
}

void Tokenizer::State::encode_word(std::string_view word, Work& work) const {
  if (work.use_cache && work.cache.append(word, work.tokens)) return;
  const size_t first = work.tokens.size();
  if (unigram) {
    unigram->encode(word, work.unigram, work.tokens);
  } else {
    subwords.encode(word, work.subwords, work.tokens);
  }
  if (work.use_cache) work.cache.remember(word, first, work.tokens);
}

void Tokenizer::State::encode_byte(uint8_t byte, Work& work) const {
  unigram ? unigram->encode_byte(byte, work.tokens) : subwords.encode_byte(byte, work.tokens);
}

Tokenizer::Tokenizer(std::unique_ptr<const State> state) : state_(std::move(state)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::create(Vocabulary vocabulary) {
  BANYAN_TRY(check(vocabulary));
  auto state = std::make_unique<State>();
  std::vector<TokenMatching> matching = std::move(vocabulary.matching);
  state->ends = find_ends(vocabulary);
  if (vocabulary.rules) {
    state->rules = *std::move(vocabulary.rules);
  } else {
    auto rules = named_rules(vocabulary);
    if (!rules) return rules.error();
    state->rules = *std::move(rules);
    matching = named_matching(vocabulary);
  }
  state->vocabulary = std::move(vocabulary);
  BANYAN_TRY(state->make_models());
  // In tables now.
  state->vocabulary.merges = {};
  state->vocabulary.merge_cuts = {};
  state->vocabulary.matching = {};
  state->vocabulary.charsmap = {};
  state->vocabulary.rules.reset();
  state->index_special_tokens(matching);
  state->spell_pieces();
  return Tokenizer(std::move(state));
}

Result<std::vector<TokenId>> Tokenizer::encode(std::string_view text, Special special) const {
  std::vector<TokenId> tokens;
  tokens.reserve(text.size() / 4 + 4);
  State::Work work{special, tokens, text.size() >= kCacheFromBytes, SearchEffort(text.size())};
  state_->split_at(state_->raw_tokens.of(special), text, tokens, [&](std::string_view part) {
    state_->encode_text(part, part.data() == text.data(), work);
  });
  if (!work.effort.spent()) return tokens;
  return bad_input(
      "a regular expression of its tokenizer takes too long on this text; one that does not "
      "backtrack over and over is needed");
}

std::string_view Tokenizer::piece(TokenId token, Special special) const {
  BANYAN_CHECK(token >= 0 && token < size(), "a token that is not in the vocabulary");
  if (special == Special::kPlain && state_->is_hidden(token)) return {};
  const size_t begin = state_->piece_begins[token];
  return std::string_view(state_->pieces).substr(begin, state_->piece_begins[token + 1] - begin);
}

std::string Tokenizer::decode(std::span<const TokenId> tokens, Special special) const {
  std::string text;
  const SpacePrefix prefix = state_->rules.space_prefix;
  bool drop_space = prefix != SpacePrefix::kNone;
  for (const TokenId token : tokens) {
    std::string_view bytes = piece(token, special);
    if (state_->is_special(token)) {
      drop_space = prefix == SpacePrefix::kEvery;
    } else if (!bytes.empty()) {
      if (drop_space && bytes[0] == ' ') bytes.remove_prefix(1);
      drop_space = false;
    }
    text += bytes;
  }
  return text;
}

bool Tokenizer::is_end(TokenId token) const {
  return token >= 0 && token < size() && state_->ends[token];
}

bool Tokenizer::is_special(TokenId token) const {
  BANYAN_CHECK(token >= 0 && token < size(), "a token that is not in the vocabulary");
  return state_->is_special(token);
}

int32_t Tokenizer::size() const { return static_cast<int32_t>(state_->vocabulary.tokens.size()); }

SpacePrefix Tokenizer::space_prefix() const { return state_->rules.space_prefix; }

const Vocabulary& Tokenizer::vocabulary() const { return state_->vocabulary; }

}  // namespace banyan
