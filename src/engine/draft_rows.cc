// SPDX-License-Identifier: Apache-2.0
#include "engine/draft_rows.h"

#include <algorithm>

#include "base/check.h"

namespace banyan {

void DraftRows::lay_out(TokenId last, const Draft& draft) {
  const auto n = static_cast<uint32_t>(draft.size());
  const auto place_of = [n](uint32_t token) { return std::min(token, n); };  // kText: the last
  children_.assign(n + 1, 0);
  for (const uint32_t parent : draft.parent) ++children_[place_of(parent)];
  // A token goes on with its parent's way if it is the first to do so, but for where the sequence
  // itself ends.
  ways_.assign(1, {});
  ways_[0].n = 1;
  accepted_.clear();
  rows_.resize(n);
  for (uint32_t i = 0; i < n; ++i) {
    const Row from = row(draft.parent[i]);
    const bool goes_on = ways_[from.piece].n == from.index + 1 &&
                         (from.piece > 0 || children_[place_of(draft.parent[i])] == 1);
    rows_[i] = {from.piece, from.index + 1};
    if (!goes_on) {
      rows_[i] = {static_cast<uint32_t>(ways_.size()), 0};
      ways_.emplace_back().from = from;
    }
    ++ways_[rows_[i].piece].n;
  }
  for (uint32_t i = 0, begin = 0; i < ways_.size(); begin += ways_[i++].n) ways_[i].begin = begin;
  tokens_.resize(n + 1);
  tokens_[0] = last;
  for (uint32_t i = 0; i < n; ++i) {
    tokens_[ways_[rows_[i].piece].begin + rows_[i].index] = draft.tokens[i];
  }
}

Result<void> DraftRows::extend(KvTree& tree, SeqId seq) {
  ways_[0].seq = seq;
  for (uint32_t i = 0; i < ways_.size(); ++i) BANYAN_TRY(extend_way(tree, i));
  return {};
}

// Ways that leave this one begin when it has just what is before them.
Result<void> DraftRows::extend_way(KvTree& tree, uint32_t place) {
  const Way& way = ways_[place];
  uint32_t done = 0;
  for (uint32_t index = 0; index < way.n; ++index) {
    for (Way& other : std::span(ways_).subspan(place + 1)) {
      if (other.from.piece != place || other.from.index != index) continue;
      BANYAN_TRY(tree.extend(way.seq, tokens_of(way).subspan(done, index + 1 - done)));
      done = index + 1;
      other.seq = tree.fork(way.seq);
    }
  }
  return tree.extend(way.seq, tokens_of(way).subspan(done));
}

void DraftRows::append_pieces(SeqId seq, std::span<const uint32_t> indices,
                              std::vector<Piece>& pieces) {
  ways_[0].seq = seq;
  for (const Way& way : ways_) pieces.push_back({way.seq, tokens_of(way), indices.first(way.n)});
}

void DraftRows::accept(uint32_t token) { accepted_.push_back(rows_[token]); }

void DraftRows::settle(KvTree& tree, PanelPool& pool) {
  if (!branches()) return drop(tree);
  from_.clear();
  kept_.clear();
  to_.clear();
  for (const Row& row : accepted_) {
    if (row.piece == 0) continue;
    const Way& way = ways_[row.piece];
    from_.push_back(tree.slot(way.seq, tree.length(way.seq) - way.n + row.index));
    kept_.push_back(tokens_of(way)[row.index]);
  }
  const SeqId seq = ways_[0].seq;
  drop(tree);
  if (kept_.empty()) return;
  const Position begin = tree.length(seq);
  const Result<void> extended = tree.extend(seq, kept_);
  BANYAN_CHECK(extended.has_value(), "ways had as many panels");
  for (Position i = 0; i < std::ssize(kept_); ++i) to_.push_back(tree.slot(seq, begin + i));
  pool.copy(from_, to_);
}

void DraftRows::drop(KvTree& tree) {
  // What leaves a way before the way itself.
  for (size_t i = ways_.size(); i-- > 1;) {
    if (ways_[i].seq != kNoSequence) tree.drop(ways_[i].seq);
  }
  ways_.clear();
  accepted_.clear();
}

}  // namespace banyan
