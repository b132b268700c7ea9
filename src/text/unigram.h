// SPDX-License-Identifier: Apache-2.0
#pragma once
// The unigram language model of subwords (Kudo 2018, "Subword Regularization"): of all ways to cut
// a word into tokens the one with the best sum of scores, found as sentencepiece does, from left to
// right over the characters (Viterbi).

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "text/space_cuts.h"
#include "text/tokenizer.h"

namespace banyan {

// Immutable, safe to share between threads.
class UnigramModel {
 public:
  // Memory that is used again from word to word.
  struct Scratch {
    std::vector<double> scores;  // a ring
    std::vector<int32_t> arrivals;
    std::vector<TokenId> backwards;
  };

  // Control, byte and unknown tokens are not found in words. kBadInput for missing or infinite
  // scores, or if there is no unknown token.
  static Result<UnigramModel> create(const Vocabulary& vocabulary, const TextRules& rules);

  // Appends the tokens of `word`, which is UTF-8. A character without a token becomes its byte
  // tokens, where the rules say so, or unknown; unknown ones in a row are one token. Time and
  // memory are linear in the word: 4 bytes for each of its bytes beside a ring of the longest
  // token's length.
  void encode(std::string_view word, Scratch& scratch, std::vector<TokenId>& tokens) const;

  // Appends the token of one byte outside any word.
  void encode_byte(uint8_t byte, std::vector<TokenId>& tokens) const;

  const SpaceCuts& cuts() const { return cuts_; }

 private:
  struct Node {  // of a trie, in breadth-first order: children of a node stand side by side
    uint32_t first_child = 0;
    uint16_t n_children = 0;
    TokenId token = -1;  // that ends here
  };

  void build(std::vector<std::pair<std::string_view, TokenId>> pieces);
  // The child of `node` for `byte`, 0 (the root, nobody's child) if there is none.
  uint32_t child(uint32_t node, uint8_t byte) const;
  void forward(std::string_view word, Scratch& scratch) const;

  std::vector<Node> nodes_;
  std::vector<uint8_t> labels_;  // of the nodes, rising among siblings
  std::vector<float> scores_;    // by token
  std::vector<uint32_t> lengths_;
  size_t max_length_ = 4;  // of a token, in bytes, and of a character
  double unknown_score_ = 0;
  TokenId unknown_ = -1;
  bool byte_fallback_ = false;
  std::array<TokenId, 256> byte_tokens_{};  // -1: none
  SpaceCuts cuts_;
};

}  // namespace banyan
