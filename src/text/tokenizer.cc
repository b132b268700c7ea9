// SPDX-License-Identifier: Apache-2.0
#include "text/tokenizer.h"

#include <algorithm>
#include <cctype>
#include <initializer_list>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/printable.h"
#include "text/byte_letters.h"
#include "text/pre_tokenizer.h"
#include "text/special_tokens.h"
#include "text/subword.h"
#include "text/utf8.h"
#include "text/word_cache.h"

namespace banyan {
namespace {

constexpr size_t kMaxTokens = size_t{1} << 24;
constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581, SentencePiece's space
constexpr size_t kCacheFromBytes = 1024;  // in shorter texts the cache costs more than it saves

bool is_one_of(std::string_view text, std::initializer_list<std::string_view> list) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

// Texts of tokens that end an answer, or the part of it that a program must look at. GGUF files
// name one or two of them; models emit others too (llama.cpp's list).
bool names_an_end(std::string_view text) {
  return is_one_of(text, {"<|eot_id|>",
                          "<|im_end|>",
                          "<|end|>",
                          "<|return|>",
                          "<|call|>",
                          "<|flush|>",
                          "<|calls|>",
                          "<end_of_turn>",
                          "<|endoftext|>",
                          "</s>",
                          "<|eom_id|>",
                          "<EOT>",
                          "_<EOT>",
                          "[EOT]",
                          "[EOS]",
                          "<|end_of_text|>",
                          "<end_of_utterance>",
                          "<eos>",
                          "<turn|>",
                          "<|tool_response>",
                          "<｜end▁of▁sentence｜>",
                          "[e~[",
                          "<|fim_pad|>",
                          "<|repo_name|>",
                          "<|file_sep|>"});
}

// The tokens that end generation, by id, and their types corrected: a token that ends generation
// is not text.
std::vector<bool> find_ends(Vocabulary& vocabulary) {
  const size_t n = vocabulary.tokens.size();
  std::vector<bool> ends(n, false);
  const auto find = [&](std::string_view text) -> std::optional<size_t> {
    const auto at = std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), text);
    if (at == vocabulary.tokens.end()) return std::nullopt;
    return at - vocabulary.tokens.begin();
  };
  // Channels of gpt-oss and Solar Open close with <|end|>, their answers with <|return|> and such.
  const bool channels = find("<|call|>") ? find("<|return|>") || find("<|flush|>")
                                         : find("<|calls|>") && find("<|flush|>");
  // In these vocabularies </s> is text (Gemma 4, PLaMo).
  const bool plain_s = find("<|tool_response>") || find("<|plamo:eos|>");
  for (size_t token = 0; token < n; ++token) {
    const std::string& text = vocabulary.tokens[token];
    if (!names_an_end(text) || (channels && text == "<|end|>") || (plain_s && text == "</s>")) {
      continue;
    }
    ends[token] = true;
    if (vocabulary.types.empty()) vocabulary.types.assign(n, TokenType::kNormal);
    vocabulary.types[token] = TokenType::kControl;
  }
  for (const TokenId token : {vocabulary.eos, vocabulary.eot}) {
    if (token >= 0) ends[token] = true;
  }
  return ends;
}

Result<void> check(const Vocabulary& vocabulary) {
  const size_t n = vocabulary.tokens.size();
  if (vocabulary.model != "gpt2" && vocabulary.model != "llama") {
    return bad_input("its tokenizer model '" + printable(vocabulary.model) +
                     "' is not known; gpt2 (byte-level BPE) and llama (SentencePiece BPE) are");
  }
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
  return {};
}

std::string lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

}  // namespace

struct Tokenizer::State {
  Vocabulary vocabulary;
  bool sentencepiece = false;
  std::vector<bool> ends;
  std::string pieces;                // the bytes of all tokens, one after another
  std::vector<size_t> piece_begins;  // [tokens + 1]
  SpecialTokens parsed_tokens;       // found in text with Special::kParse
  SpecialTokens plain_tokens;        // found in any text
  bool swallows_space = false;       // special tokens take the white space after them along
  std::optional<PreTokenizer> pre_tokenizer;  // byte-level BPE
  SubwordModel subwords;

  TokenType type(TokenId token) const {
    return vocabulary.types.empty() ? TokenType::kNormal : vocabulary.types[token];
  }
  bool is_hidden(TokenId token) const {  // not text
    return type(token) == TokenType::kControl || type(token) == TokenType::kUnknown;
  }
  bool is_special(TokenId token) const {
    return is_hidden(token) || type(token) == TokenType::kUserDefined;
  }
  bool adds_space() const { return sentencepiece && vocabulary.add_space_prefix; }

  void index_special_tokens();
  void spell_pieces();
  std::string spell(TokenId token) const;
  bool swallows(TokenId token) const;
  void encode_fragment(std::string_view text, bool add_space, SubwordModel::Scratch& scratch,
                       std::vector<TokenId>& tokens) const;
};

void Tokenizer::State::index_special_tokens() {
  std::vector<std::pair<std::string, TokenId>> parsed;
  std::vector<std::pair<std::string, TokenId>> plain;
  for (TokenId token = 0; token < static_cast<TokenId>(vocabulary.tokens.size()); ++token) {
    if (!is_special(token)) continue;
    parsed.emplace_back(vocabulary.tokens[token], token);
    if (!is_hidden(token)) plain.emplace_back(vocabulary.tokens[token], token);
  }
  parsed_tokens = SpecialTokens(std::move(parsed));
  plain_tokens = SpecialTokens(std::move(plain));
  const std::string name = lower_case(vocabulary.name);
  swallows_space =
      name.find("phi-3") != std::string::npos || name.find("phi3") != std::string::npos;
}

bool Tokenizer::State::swallows(TokenId token) const {
  return swallows_space && !is_one_of(vocabulary.tokens[token], {"<unk>", "<s>", "<|endoftext|>"});
}

std::string Tokenizer::State::spell(TokenId token) const {
  const std::string& text = vocabulary.tokens[token];
  if (is_special(token)) return text;
  if (type(token) == TokenType::kByte || (sentencepiece && vocabulary.types.empty())) {
    if (const auto byte = parse_byte_token(text)) return std::string(1, static_cast<char>(*byte));
  }
  if (!sentencepiece) return bytes_of_letters(text).value_or(text);
  std::string spelled;
  for (std::string_view rest = text; !rest.empty();) {
    const bool space = rest.starts_with(kSpace);
    spelled += space ? ' ' : rest[0];
    rest.remove_prefix(space ? kSpace.size() : 1);
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

// `text` holds no special tokens.
void Tokenizer::State::encode_fragment(std::string_view text, bool add_space,
                                       SubwordModel::Scratch& scratch,
                                       std::vector<TokenId>& tokens) const {
  WordCache cache;
  const bool use_cache = text.size() >= kCacheFromBytes;
  const auto encode_word = [&](std::string_view word) {
    if (use_cache && cache.append(word, tokens)) return;
    const size_t first = tokens.size();
    subwords.encode(word, scratch, tokens);
    if (use_cache) cache.remember(word, first, tokens);
  };

  if (!sentencepiece) {
    while (!text.empty()) {
      const size_t valid = valid_utf8_length(text);
      if (valid > 0) pre_tokenizer->split(text.substr(0, valid), encode_word);
      text.remove_prefix(valid);
      if (text.empty()) return;
      const size_t invalid = first_utf8_unit(text).length;
      for (const char c : text.substr(0, invalid)) {
        subwords.encode_byte(static_cast<uint8_t>(c), tokens);
      }
      text.remove_prefix(invalid);
    }
    return;
  }

  std::string escaped;
  escaped.reserve(text.size() + text.size() / 2 + kSpace.size());
  if (add_space) escaped += kSpace;
  for (const char c : text) {
    if (c == ' ') {
      escaped += kSpace;
    } else {
      escaped += c;
    }
  }
  if (!subwords.words_are_apart()) return subwords.encode(escaped, scratch, tokens);
  // A word: its spaces, and what follows up to the next space.
  for (std::string_view rest = escaped; !rest.empty();) {
    size_t end = 0;
    while (rest.substr(end).starts_with(kSpace)) end += kSpace.size();
    end = std::min(rest.find(kSpace, end), rest.size());
    encode_word(rest.substr(0, end));
    rest.remove_prefix(end);
  }
}

Tokenizer::Tokenizer(std::unique_ptr<const State> state) : state_(std::move(state)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::create(Vocabulary vocabulary) {
  BANYAN_TRY(check(vocabulary));
  auto state = std::make_unique<State>();
  state->sentencepiece = vocabulary.model == "llama";
  state->ends = find_ends(vocabulary);
  if (state->sentencepiece) {
    state->subwords = SubwordModel::sentencepiece(vocabulary);
  } else {
    auto pre_tokenizer = PreTokenizer::create(vocabulary.pre);
    if (!pre_tokenizer) return pre_tokenizer.error();
    auto subwords = SubwordModel::byte_level(vocabulary, pre_tokenizer->takes_whole_words());
    if (!subwords) return subwords.error();
    state->pre_tokenizer = *std::move(pre_tokenizer);
    state->subwords = *std::move(subwords);
  }
  state->vocabulary = std::move(vocabulary);
  state->vocabulary.merges = {};
  state->index_special_tokens();
  state->spell_pieces();
  return Tokenizer(std::move(state));
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, Special special) const {
  const State& state = *state_;
  const SpecialTokens& found =
      special == Special::kParse ? state.parsed_tokens : state.plain_tokens;
  std::vector<TokenId> tokens;
  tokens.reserve(text.size() / 4 + 4);
  SubwordModel::Scratch scratch;
  bool add_space = state.adds_space();
  for (size_t done = 0; done < text.size();) {
    const auto match = found.find(text, done);
    const size_t end = match ? match->begin : text.size();
    if (end > done) {
      state.encode_fragment(text.substr(done, end - done), add_space, scratch, tokens);
      add_space = false;
    }
    if (!match) break;
    tokens.push_back(match->token);
    add_space = state.adds_space();
    done = end + match->length;
    if (state.swallows(match->token)) {
      while (done < text.size() && is_space(text[done])) ++done;
    }
  }
  return tokens;
}

std::string_view Tokenizer::piece(TokenId token, Special special) const {
  BANYAN_CHECK(token >= 0 && token < size(), "a token that is not in the vocabulary");
  if (special == Special::kPlain && state_->is_hidden(token)) return {};
  const size_t begin = state_->piece_begins[token];
  return std::string_view(state_->pieces).substr(begin, state_->piece_begins[token + 1] - begin);
}

std::string Tokenizer::decode(std::span<const TokenId> tokens, Special special) const {
  std::string text;
  bool drop_space = state_->adds_space();
  for (const TokenId token : tokens) {
    std::string_view bytes = piece(token, special);
    if (state_->is_special(token)) {
      drop_space = state_->adds_space();
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

const Vocabulary& Tokenizer::vocabulary() const { return state_->vocabulary; }

}  // namespace banyan
