// SPDX-License-Identifier: Apache-2.0
#pragma once
// The rows of one sequence's draft in one step. Up to where the draft first branches they are a
// piece of the sequence itself; each way on from there is a sequence of its own, which lives for
// that step. What is accepted of these moves behind the sequence's own tokens, so that it lies
// where plain decoding would have put it.

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "engine/step_view.h"
#include "kv/pool.h"
#include "kv/tree.h"
#include "sample/draft/draft.h"

namespace banyan {

// The sequences of ways are live from extend() until settle() or drop(), which must come before
// anything else is done to the sequence itself. Not thread safe.
class DraftRows {
 public:
  // Of a draft behind the token `last`, the newest of the text, which has no KV yet. Requires that
  // the rows before were settled or dropped.
  void lay_out(TokenId last, const Draft& draft);

  bool branches() const { return ways_.size() > 1; }
  // The most panels that ways need beside the sequence's own.
  size_t most_panels() const { return tokens_.size() - ways_[0].n; }

  // Takes slots for all rows, in `seq` and in ways of their own. Where it fails, drop() is due.
  Result<void> extend(KvTree& tree, SeqId seq);

  // Appends the pieces of all rows, `seq` being the sequence; extend() went before if it branches.
  // The first of indices (0, 1, ..) name each piece's tokens, all of which are wanted.
  void append_pieces(SeqId seq, std::span<const uint32_t> indices, std::vector<Piece>& pieces);

  struct Row {
    uint32_t piece = 0;  // counted from the first that was appended
    uint32_t index = 0;  // of its tokens
  };
  // The row of a token of the draft; of Draft::kText that of `last`.
  Row row(uint32_t token) const { return token == Draft::kText ? Row{} : rows_[token]; }

  // The next token of the text is this one of the draft, a child of the one accepted before.
  void accept(uint32_t token);

  // Ends the ways. The sequence keeps all that was accepted; behind it there may be some of its own
  // rows that were not.
  void settle(KvTree& tree, PanelPool& pool);

  // Ends the ways, whatever was accepted.
  void drop(KvTree& tree);

 private:
  // From the row `from`, if it is not the first; n tokens from tokens_[begin] on.
  struct Way {
    Row from;
    uint32_t begin = 0;
    uint32_t n = 0;
    SeqId seq = kNoSequence;
  };

  std::span<const TokenId> tokens_of(const Way& way) const {
    return std::span(tokens_).subspan(way.begin, way.n);
  }
  Result<void> extend_way(KvTree& tree, uint32_t place);

  std::vector<Way> ways_;  // the first is the sequence itself; what one leaves comes before it
  std::vector<TokenId> tokens_;     // way by way
  std::vector<Row> rows_;           // by token of the draft
  std::vector<uint32_t> children_;  // by token of the draft, and of `last` at the end
  std::vector<TokenId> kept_;       // accepted ones that lie in ways
  std::vector<KvSlot> from_;        // where
  std::vector<Row> accepted_;       // their rows
  std::vector<KvSlot> to_;
};

}  // namespace banyan
