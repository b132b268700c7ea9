// SPDX-License-Identifier: Apache-2.0
#pragma once
// Text <-> token ids. A Tokenizer is immutable after creation and safe to share between threads.

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "text/text_rules.h"

namespace banyan {

enum class TokenType { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };  // GGUF's

// What a tokenizer is made of, whatever file it came from. Where a field names what GGUF's
// tokenizer.ggml.* keys hold, it has their meaning.
struct Vocabulary {
  // How the model tokenizes: its rules, or names that stand for rules. "gpt2": byte-level BPE,
  // "llama": SentencePiece BPE, "t5": SentencePiece unigram, "gemma4": BPE of characters.
  std::optional<TextRules> rules;
  std::string model;  // without rules
  std::string pre;    // pre-tokenizer's name, for byte-level BPE; empty: "default"
  std::string name;   // general.name: Phi-3's special tokens swallow the white space after them
  std::vector<std::string> tokens;   // as stored (byte-level BPE: GPT-2's printable byte letters)
  std::vector<float> scores;         // SentencePiece; may be empty
  std::vector<TokenType> types;      // empty: all normal
  std::vector<std::string> merges;   // "left right", best first
  std::vector<uint32_t> merge_cuts;  // where their left sides end; empty: at the first space
  std::vector<TokenMatching> matching;  // of special tokens that are not found as they stand
  std::string charsmap;                 // SentencePiece's compiled table of replacements, or empty
  TokenId bos = -1, eos = -1, eot = -1, unk = -1;  // -1: none
  std::vector<TokenId> more_begins;  // tokens that follow BOS where BOS is added (GLM: "<sop>")
  std::vector<TokenId> more_ends;    // other tokens that end generation
  bool add_bos = false;
  bool add_eos = false;
  bool add_space_prefix = true;           // SentencePiece
  bool remove_extra_whitespaces = false;  // SentencePiece unigram
  std::string chat_template;              // Jinja source; empty: none
};

// Leaves the first `n` tokens; what names another (merges, special tokens) goes with it.
void keep_first_tokens(Vocabulary& vocabulary, size_t n);

enum class Special {
  kParse,  // special tokens written out in the text become those tokens
  kPlain,  // they are text like any other
};

class Tokenizer {
 public:
  // kBadInput, in a sentence without a file name (the caller adds it), for an unknown model or
  // pre-tokenizer, missing merges, ids out of range, more tokens than 2^24.
  static Result<Tokenizer> create(Vocabulary vocabulary);
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // No BOS or EOS is added. Any bytes are accepted: what is not UTF-8 is tokenized byte by byte.
  // Time is linear in the text up to a logarithm. kBadInput, in a sentence without a file name,
  // where an expression of the vocabulary takes too long (SearchEffort).
  Result<std::vector<TokenId>> encode(std::string_view text, Special special) const;

  // Bytes that a token stands for; may be part of a character. Control tokens are written out
  // (kParse) or empty (kPlain). Requires 0 <= token < size().
  std::string_view piece(TokenId token, Special special) const;
  // All pieces one after another; the space that encode() put in front of a text (SpacePrefix) is
  // taken away again. Undoes encode() with the same `special`, but for what rules normalize or
  // remove, and white space that special tokens swallowed.
  std::string decode(std::span<const TokenId> tokens, Special special) const;

  // Whether generation ends with this token (EOS, EOT and their kin by name).
  bool is_end(TokenId token) const;
  // Whether the token is found by its text before the text is split (control, unknown and
  // user-defined ones): where SentencePiece begins a text anew.
  bool is_special(TokenId token) const;
  int32_t size() const;
  // Where decode() drops a leading space.
  SpacePrefix space_prefix() const;
  // As given to create(), without what is in tables now (merges, rules, charsmap), and with the
  // types of tokens that end generation set to control.
  const Vocabulary& vocabulary() const;

 private:
  struct State;
  explicit Tokenizer(std::unique_ptr<const State> state);
  std::unique_ptr<const State> state_;
};

// Turns tokens into text as they come and never prints part of a character: bytes that do not yet
// complete a UTF-8 sequence wait for the next token; bytes that cannot become one are replaced by
// U+FFFD.
class StreamDetokenizer {
 public:
  // The tokenizer must outlive this. `skip_first_space`: the tokens begin a text, as in decode(),
  // so the space that a SentencePiece vocabulary puts before the first word is dropped.
  StreamDetokenizer(const Tokenizer& tokenizer, Special special, bool skip_first_space);
  std::string push(TokenId token);  // text that became printable
  std::string finish();             // what still waited, made valid

 private:
  std::string take(bool at_end);

  const Tokenizer& tokenizer_;
  Special special_;
  bool skip_space_;
  std::string pending_;  // between calls: at most 3 bytes
};

}  // namespace banyan
