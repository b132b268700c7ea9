// SPDX-License-Identifier: Apache-2.0
// Random draft trees, and what is left when some path of them was accepted: what plain decoding
// would have left.
#include "engine/draft_rows.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

namespace banyan {
namespace {

constexpr KvShape kShape{2, 1, 3, DType::kF32, DType::kF32};
constexpr uint32_t kPanels = 200;

class DraftRowsTest : public testing::Test {
 protected:
  // Any tree: chains that fork in the middle, fans, forests.
  Draft random_draft() {
    Draft draft;
    const uint32_t n = 1 + random_() % 24;
    const uint32_t way = 1 + random_() % 6;  // the more, the longer its ways
    for (uint32_t i = 0; i < n; ++i) {
      uint32_t under = i > 0 && random_() % way > 0 ? i - 1 : random_() % (i + 1);
      if (under == i) under = Draft::kText;
      draft.add(static_cast<TokenId>(1000 + i), under, 0.5, true);
    }
    return draft;
  }

  // The tokens from the text on to `token`.
  static std::vector<uint32_t> path_to(const Draft& draft, uint32_t token) {
    std::vector<uint32_t> path;
    for (; token != Draft::kText; token = draft.parent[token]) path.insert(path.begin(), token);
    return path;
  }

  float* k_of(int layer, const KvSlot& slot, int d) {
    return reinterpret_cast<float*>(pool_.planes(layer).k_panel(0, slot.panel)) + d * kPanelTokens +
           slot.slot;
  }
  float* v_of(int layer, const KvSlot& slot, int d) {
    return reinterpret_cast<float*>(pool_.planes(layer).v_panel(0, slot.panel)) +
           slot.slot * kShape.head_dim + d;
  }
  static float value(TokenId token, int layer, int d) {
    return static_cast<float>(token) + 0.25F * static_cast<float>(layer) +
           0.0625F * static_cast<float>(d);
  }
  void write(const KvSlot& slot, TokenId token) {
    for (int layer = 0; layer < kShape.n_layers; ++layer) {
      for (int d = 0; d < kShape.head_dim; ++d) {
        *k_of(layer, slot, d) = value(token, layer, d);
        *v_of(layer, slot, d) = -value(token, layer, d);
      }
    }
  }
  void write(SeqId seq, std::span<const TokenId> tokens) {
    Position position = tree_.length(seq) - static_cast<Position>(tokens.size());
    for (const TokenId token : tokens) write(tree_.slot(seq, position++), token);
  }
  // That the sequence is these tokens, K and V too.
  void expect_stored(SeqId seq, std::span<const TokenId> tokens) {
    ASSERT_EQ(tree_.length(seq), std::ssize(tokens));
    for (Position p = 0; p < std::ssize(tokens); ++p) {
      const KvSlot slot = tree_.slot(seq, p);
      for (int layer = 0; layer < kShape.n_layers; ++layer) {
        for (int d = 0; d < kShape.head_dim; ++d) {
          ASSERT_EQ(*k_of(layer, slot, d), value(tokens[p], layer, d)) << "position " << p;
          ASSERT_EQ(*v_of(layer, slot, d), -value(tokens[p], layer, d)) << "position " << p;
        }
      }
    }
  }

  std::mt19937 random_{1};
  PanelPool pool_ = *PanelPool::create(kShape, kPanels* kShape.panel_bytes());
  KvTree tree_{pool_};
};

TEST_F(DraftRowsTest, KeepsWhatWasAcceptedWherePlainDecodingHasIt) {
  std::vector<uint32_t> indices(64);
  std::iota(indices.begin(), indices.end(), 0);
  const SeqId seq = tree_.open({}, 0).seq;
  std::vector<TokenId> text;
  DraftRows rows;
  int branched = 0;
  int chains = 0;
  for (int round = 0; round < 400; ++round) {
    const Draft draft = random_draft();
    rows.lay_out(round, draft);
    std::vector<Piece> pieces;
    if (rows.branches()) {
      ++branched;
      ASSERT_TRUE(rows.extend(tree_, seq));
      rows.append_pieces(seq, indices, pieces);
    } else {
      ++chains;
      rows.append_pieces(seq, indices, pieces);
      ASSERT_EQ(pieces.size(), 1U);
      ASSERT_TRUE(tree_.extend(seq, pieces[0].tokens));
    }
    tree_.check_integrity();
    EXPECT_LE(pool_.used(), text.size() / kPanelTokens + 3 + rows.most_panels());
    text.push_back(round);

    // Every token has a row, once, at the end of a path that is its own.
    size_t n_rows = 0;
    for (const Piece& piece : pieces) {
      EXPECT_EQ(piece.wanted.size(), piece.tokens.size());
      n_rows += piece.tokens.size();
      write(piece.seq, piece.tokens);
    }
    EXPECT_EQ(n_rows, draft.size() + 1);
    EXPECT_EQ(pieces[0].tokens[0], round);
    for (uint32_t token = 0; token < draft.size(); ++token) {
      const auto [piece, index] = rows.row(token);
      ASSERT_EQ(pieces[piece].tokens[index], draft.tokens[token]);
      const SeqId own = pieces[piece].seq;
      Position position = tree_.length(own) - static_cast<Position>(pieces[piece].tokens.size()) +
                          static_cast<Position>(index);
      const auto path = path_to(draft, token);
      ASSERT_EQ(position + 1, std::ssize(text) + std::ssize(path));
      for (size_t i = path.size(); i-- > 0; --position) {
        const KvSlot slot = tree_.slot(own, position);
        ASSERT_EQ(*k_of(0, slot, 0), value(draft.tokens[path[i]], 0, 0));
      }
    }

    // Some path is accepted, or some of the tokens have no logits at all.
    const size_t end = random_() % (draft.size() + 1);
    const auto path = path_to(draft, end == draft.size() ? Draft::kText : uint32_t(end));
    if (random_() % 5 == 0) {
      rows.drop(tree_);
    } else {
      for (const uint32_t token : path) {
        rows.accept(token);
        text.push_back(draft.tokens[token]);
      }
      rows.settle(tree_, pool_);
    }
    EXPECT_FALSE(rows.branches());
    ASSERT_GE(tree_.length(seq), std::ssize(text));
    tree_.truncate(seq, static_cast<int32_t>(text.size()));
    expect_stored(seq, text);
    EXPECT_EQ(pool_.used(), (text.size() + kPanelTokens - 1) / kPanelTokens);
    EXPECT_EQ(tree_.next_sequence(tree_.first_sequence()), kNoSequence);
    tree_.check_integrity();
    if (text.size() > 300) {
      text.erase(text.begin() + random_() % 30, text.end());
      tree_.truncate(seq, static_cast<int32_t>(text.size()));
    }
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(branched, 100);
  EXPECT_GT(chains, 50);
}

TEST_F(DraftRowsTest, TakesBackWhatDoesNotFit) {
  const SeqId seq = tree_.open({}, 0).seq;
  const std::vector<TokenId> text((kPanels - 3) * kPanelTokens, 7);
  ASSERT_TRUE(tree_.extend(seq, text));
  int failed = 0;
  for (int round = 0; round < 200; ++round) {
    DraftRows rows;
    rows.lay_out(9, random_draft());
    const Result<void> extended = rows.extend(tree_, seq);
    failed += extended ? 0 : 1;
    rows.drop(tree_);
    ASSERT_GE(tree_.length(seq), std::ssize(text));
    tree_.truncate(seq, static_cast<int32_t>(text.size()));
    EXPECT_EQ(pool_.used(), kPanels - 3);
    tree_.check_integrity();
  }
  EXPECT_GT(failed, 50);
  EXPECT_LT(failed, 190);
}

}  // namespace
}  // namespace banyan
