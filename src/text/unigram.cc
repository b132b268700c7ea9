// SPDX-License-Identifier: Apache-2.0
#include "text/unigram.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <utility>

#include "text/byte_letters.h"
#include "text/utf8.h"

namespace banyan {
namespace {

// sentencepiece's kUnkPenalty: an unknown character is this much worse than the worst token.
constexpr double kUnknownPenalty = 10;
constexpr double kUnreached = -std::numeric_limits<double>::infinity();

// Tokens longer than this are found by their text, if at all: keeps a step over a character short.
constexpr size_t kMaxPieceBytes = 1024;

}  // namespace

Result<UnigramModel> UnigramModel::create(const Vocabulary& vocabulary, const TextRules& rules) {
  const size_t n = vocabulary.tokens.size();
  if (vocabulary.scores.size() != n) return bad_input("it has no token scores");
  if (vocabulary.unk < 0) return bad_input("it has no unknown token, which a unigram model needs");
  UnigramModel model;
  model.unknown_ = vocabulary.unk;
  model.byte_fallback_ = rules.byte_fallback;
  model.byte_tokens_.fill(-1);
  model.scores_.resize(n);
  model.lengths_.resize(n);
  std::vector<std::pair<std::string_view, TokenId>> pieces;
  pieces.reserve(n);
  double worst = std::numeric_limits<double>::max();
  for (size_t i = 0; i < n; ++i) {
    const std::string_view text = vocabulary.tokens[i];
    const TokenType type = vocabulary.types.empty() ? TokenType::kNormal : vocabulary.types[i];
    if (!std::isfinite(vocabulary.scores[i])) {
      return bad_input("the score of its token " + std::to_string(i) + " is not finite");
    }
    if (type == TokenType::kByte) {
      if (const auto byte = parse_byte_token(text)) {
        model.byte_tokens_[*byte] = static_cast<TokenId>(i);
      }
    }
    if (type == TokenType::kNormal) worst = std::min<double>(worst, vocabulary.scores[i]);
    const bool found =
        type == TokenType::kNormal || type == TokenType::kUserDefined || type == TokenType::kUnused;
    if (!found || text.empty() || text.size() > kMaxPieceBytes) continue;
    if (valid_utf8_length(text) != text.size()) continue;  // it would end inside a character
    // User-defined tokens are better than any that a text could become instead.
    model.scores_[i] = type == TokenType::kUserDefined ? 0.0F : vocabulary.scores[i];
    model.lengths_[i] = static_cast<uint32_t>(text.size());
    model.max_length_ = std::max(model.max_length_, text.size());
    model.cuts_.add(text);
    pieces.emplace_back(text, static_cast<TokenId>(i));
  }
  model.unknown_score_ = (pieces.empty() ? 0 : worst) - kUnknownPenalty;
  model.build(std::move(pieces));
  return model;
}

void UnigramModel::build(std::vector<std::pair<std::string_view, TokenId>> pieces) {
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  struct Range {  // of pieces that share the node's text
    size_t begin, end, depth;
  };
  std::vector<Range> ranges{{0, pieces.size(), 0}};
  nodes_.emplace_back();
  labels_.push_back(0);
  for (size_t node = 0; node < ranges.size(); ++node) {
    auto [at, end, depth] = ranges[node];
    for (; at < end && pieces[at].first.size() == depth; ++at) {
      nodes_[node].token = pieces[at].second;  // of equal texts the last
    }
    nodes_[node].first_child = static_cast<uint32_t>(nodes_.size());
    while (at < end) {
      const char label = pieces[at].first[depth];
      size_t next = at;
      while (next < end && pieces[next].first[depth] == label) ++next;
      ranges.push_back({at, next, depth + 1});
      nodes_.emplace_back();
      labels_.push_back(static_cast<uint8_t>(label));
      ++nodes_[node].n_children;
      at = next;
    }
  }
}

uint32_t UnigramModel::child(uint32_t node, uint8_t byte) const {
  const Node& parent = nodes_[node];
  const uint8_t* first = labels_.data() + parent.first_child;
  const uint8_t* last = first + parent.n_children;
  const uint8_t* found = std::lower_bound(first, last, byte);
  return found != last && *found == byte ? static_cast<uint32_t>(found - labels_.data()) : 0;
}

// Fills arrivals[end] for every end of a character: the token of the best way there, or minus the
// length of an unknown character.
void UnigramModel::forward(std::string_view word, Scratch& scratch) const {
  const size_t mask = std::bit_ceil(max_length_ + 1) - 1;
  scratch.scores.assign(mask + 1, kUnreached);
  scratch.arrivals.resize(word.size() + 1);
  scratch.scores[0] = 0;
  for (size_t begin = 0; begin < word.size();) {
    const double here = scratch.scores[begin & mask];
    scratch.scores[begin & mask] = kUnreached;  // for the position one ring on
    const size_t character = first_utf8_unit(word.substr(begin)).length;
    const auto arrive = [&](size_t end, double score, int32_t how) {
      if (score > scratch.scores[end & mask]) {
        scratch.scores[end & mask] = score;
        scratch.arrivals[end] = how;
      }
    };
    bool has_token = false;
    uint32_t node = 0;
    for (size_t at = begin; at < word.size();) {
      node = child(node, static_cast<uint8_t>(word[at++]));
      if (node == 0) break;
      const TokenId token = nodes_[node].token;
      if (token < 0) continue;
      has_token = has_token || at - begin == character;
      arrive(at, here + static_cast<double>(scores_[token]), token);
    }
    if (!has_token) {
      arrive(begin + character, here + unknown_score_, -static_cast<int32_t>(character));
    }
    begin += character;
  }
}

void UnigramModel::encode(std::string_view word, Scratch& scratch,
                          std::vector<TokenId>& tokens) const {
  if (word.empty()) return;
  forward(word, scratch);
  std::vector<TokenId>& backwards = scratch.backwards;
  backwards.clear();
  const size_t first = tokens.size();
  size_t unknown_end = 0;  // of a row of unknown characters; 0: none
  const auto end_of_row = [&](size_t begin) {
    if (unknown_end == 0) return;
    const std::string_view row = word.substr(begin, unknown_end - begin);
    unknown_end = 0;
    const auto has_token = [this](char c) { return byte_tokens_[static_cast<uint8_t>(c)] >= 0; };
    if (byte_fallback_ && std::all_of(row.begin(), row.end(), has_token)) {
      for (size_t i = row.size(); i-- > 0;) {
        backwards.push_back(byte_tokens_[static_cast<uint8_t>(row[i])]);
      }
    } else {
      backwards.push_back(unknown_);
    }
  };
  for (size_t end = word.size(); end > 0;) {
    const int32_t how = scratch.arrivals[end];
    if (how < 0) {
      if (unknown_end == 0) unknown_end = end;
      end -= static_cast<size_t>(-how);
    } else {
      end_of_row(end);
      backwards.push_back(how);
      end -= lengths_[how];
    }
  }
  end_of_row(0);
  tokens.insert(tokens.begin() + static_cast<ptrdiff_t>(first), backwards.rbegin(),
                backwards.rend());
}

void UnigramModel::encode_byte(uint8_t byte, std::vector<TokenId>& tokens) const {
  tokens.push_back(byte_tokens_[byte] >= 0 ? byte_tokens_[byte] : unknown_);
}

}  // namespace banyan
