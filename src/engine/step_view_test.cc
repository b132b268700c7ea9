// SPDX-License-Identifier: Apache-2.0
// Random trees, and for every row of a step: what the view shows it against its sequence's path.

#include "engine/step_view.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <random>

namespace banyan {
namespace {

constexpr KvShape kShape{.n_layers = 1, .n_kv_heads = 1, .head_dim = 1};
constexpr uint32_t kPanels = 4096;

using Tokens = std::vector<TokenId>;
using Slots = std::vector<std::pair<PanelId, int>>;  // by position

// The slots of one node's positions, ref by ref.
Slots slots_of(const NodeView& node) {
  Slots slots;
  for (const PanelRef& ref : node.refs) {
    for (int slot = ref.slot_begin; slot < ref.slot_end; ++slot)
      slots.emplace_back(ref.panel, slot);
  }
  return slots;
}

class Steps {
 public:
  explicit Steps(uint32_t seed)
      : random_(seed),
        pool_(std::move(PanelPool::create(kShape, kPanels * kShape.panel_bytes())).value()),
        tree_(pool_),
        view_(tree_) {
    open({}, 0);
    grow(live_.begin()->first);
  }

  // Some sequences get tokens, and some of these are forked after that: the forks go on where the
  // row of another ends, or between two of its rows if it goes on itself.
  void random_step() {
    pieces_.clear();
    tokens_.clear();
    while (live_.size() > 1 && below(4) == 0) close();
    const uint32_t n_operations = 1 + below(12);
    for (uint32_t i = 0; i < n_operations; ++i) {
      const uint32_t dice = below(10);
      const SeqId seq = any_live();
      if (dice < 3) add_piece(fork(seq), 1 + below(3));
      if (dice == 3) open(live_.at(seq), below(live_.at(seq).size() + 1));
      if (dice > 3) add_piece(seq, 1 + below(below(3) == 0 ? 40 : 2));
    }
    if (pieces_.empty()) add_piece(any_live(), 1);
    std::shuffle(pieces_.begin(), pieces_.end(), random_);
    check();
  }

  // The same sequences, a token each.
  void next_step() {
    const std::vector<Piece> last = pieces_;
    pieces_.clear();
    tokens_.clear();
    for (const Piece& piece : last) add_piece(piece.seq, 1);
    check();
  }

  int advanced() const { return advanced_; }
  int inner_rows() const { return inner_rows_; }
  int middle_rows() const { return middle_rows_; }

 private:
  uint32_t below(uint32_t n) { return random_() % n; }
  SeqId any_live() { return std::next(live_.begin(), below(live_.size()))->first; }

  void open(Tokens prompt, int32_t length) {
    prompt.resize(length);
    const auto [seq, matched] = tree_.open(prompt, length);
    prompt.resize(matched);
    live_[seq] = prompt;
  }
  SeqId fork(SeqId seq) {
    const SeqId second = tree_.fork(seq);
    live_[second] = live_.at(seq);
    return second;
  }
  void close() {
    const SeqId seq = any_live();
    tree_.close(seq);
    live_.erase(seq);
  }
  void grow(SeqId seq) {
    Tokens tokens(1 + below(60));
    for (TokenId& token : tokens) token = static_cast<TokenId>(below(5));
    ASSERT_TRUE(tree_.extend(seq, tokens));
    live_[seq] = tokens;
  }
  void add_piece(SeqId seq, uint32_t n) {
    Tokens more(n);
    for (TokenId& token : more) token = static_cast<TokenId>(below(5));
    ASSERT_TRUE(tree_.extend(seq, more));
    Tokens& past = live_.at(seq);
    past.insert(past.end(), more.begin(), more.end());
    for (size_t i = 0; i < pieces_.size(); ++i) {
      if (pieces_[i].seq != seq) continue;
      tokens_[i].insert(tokens_[i].end(), more.begin(), more.end());
      pieces_[i].tokens = tokens_[i];
      return;
    }
    pieces_.push_back({seq, tokens_.emplace_back(more), {}});
  }

  void check() {
    const bool advanced = view_.update(pieces_);
    advanced_ += advanced;
    check_rows();
    StepView fresh(tree_);
    ASSERT_FALSE(fresh.update(pieces_));
    ASSERT_EQ(fresh.order(), view_.order());
    ASSERT_EQ(fresh.tokens(), view_.tokens());
    const TreeView a = view_.tree();
    const TreeView b = fresh.tree();
    ASSERT_TRUE(std::ranges::equal(a.row_pos, b.row_pos));
    ASSERT_EQ(a.nodes.size(), b.nodes.size());
    for (size_t i = 0; i < a.nodes.size(); ++i) {
      ASSERT_EQ(a.nodes[i].parent, b.nodes[i].parent);
      ASSERT_EQ(a.nodes[i].kv_begin, b.nodes[i].kv_begin);
      ASSERT_EQ(a.nodes[i].kv_len, b.nodes[i].kv_len);
      ASSERT_EQ(a.nodes[i].row_begin, b.nodes[i].row_begin);
      ASSERT_EQ(a.nodes[i].row_end, b.nodes[i].row_end);
      ASSERT_EQ(slots_of(a.nodes[i]), slots_of(b.nodes[i]));
    }
  }

  void check_rows() {
    const TreeView tree = view_.tree();
    uint32_t row = 0;
    ASSERT_EQ(tree.sequences.size(), pieces_.size());
    for (size_t i = 0; i < pieces_.size(); ++i) {
      const uint32_t p = view_.order()[i];
      const Piece& piece = pieces_[p];
      ASSERT_EQ(tree.sequences[i].row_begin, row);
      ASSERT_EQ(view_.row_begin(p), row);
      for (size_t t = 0; t < piece.tokens.size(); ++t, ++row) {
        const auto position =
            static_cast<Position>(live_.at(piece.seq).size() - piece.tokens.size() + t);
        ASSERT_EQ(tree.row_pos[row], position);
        ASSERT_EQ(view_.tokens()[row], piece.tokens[t]);
        check_visible(tree, row, piece.seq);
      }
      ASSERT_EQ(tree.sequences[i].row_end, row);
      const NodeView& leaf = tree.nodes[tree.sequences[i].leaf];
      inner_rows_ += leaf.row_end - leaf.row_begin > piece.tokens.size();
      // Others may leave it between two of its rows.
      const uint32_t above = leaf.parent;
      const auto first = static_cast<Position>(live_.at(piece.seq).size() - piece.tokens.size());
      middle_rows_ += leaf.kv_begin > first && above != NodeView::kNoParent &&
                      tree.nodes[above].row_end > tree.sequences[i].row_end;
    }
    ASSERT_EQ(row, tree.row_pos.size());
    ASSERT_EQ(row, view_.slots().size());
  }

  // All nodes whose interval holds the row, cut at its position, are its sequence's path.
  void check_visible(const TreeView& tree, uint32_t row, SeqId seq) {
    const Position end = tree.row_pos[row] + 1;
    std::map<Position, std::pair<PanelId, int>> seen;
    uint32_t above = NodeView::kNoParent;
    for (uint32_t i = 0; i < tree.nodes.size(); ++i) {
      const NodeView& node = tree.nodes[i];
      ASSERT_TRUE(node.parent == NodeView::kNoParent || node.parent < i);
      if (row < node.row_begin || row >= node.row_end) continue;
      ASSERT_EQ(node.parent, above) << "nodes that see a row are one path";
      above = i;
      const Slots slots = slots_of(node);
      ASSERT_EQ(slots.size(), static_cast<size_t>(node.kv_len));
      for (int32_t k = 0; k < node.kv_len; ++k) {
        if (node.kv_begin + k >= end) break;
        ASSERT_TRUE(seen.emplace(node.kv_begin + k, slots[k]).second);
      }
    }
    ASSERT_EQ(seen.size(), static_cast<size_t>(end));
    for (Position p = 0; p < end; ++p) {
      const KvSlot slot = tree_.slot(seq, p);
      ASSERT_EQ(seen.at(p), std::pair(slot.panel, slot.slot));
    }
    const KvSlot own = view_.slots()[row];
    ASSERT_EQ(seen.at(end - 1), std::pair(own.panel, own.slot));
  }

  std::mt19937 random_;
  PanelPool pool_;
  KvTree tree_;
  StepView view_;
  std::map<SeqId, Tokens> live_;
  std::vector<Piece> pieces_;
  std::deque<Tokens> tokens_;  // of the pieces
  int advanced_ = 0;
  int inner_rows_ = 0;
  int middle_rows_ = 0;
};

TEST(StepView, EveryRowSeesItsSequencesPath) {
  int advanced = 0;
  int inner_rows = 0;
  int middle_rows = 0;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    Steps steps(seed);
    for (int i = 0; i < 20 && !::testing::Test::HasFatalFailure(); ++i) {
      steps.random_step();
      steps.next_step();
      steps.next_step();
    }
    advanced += steps.advanced();
    inner_rows += steps.inner_rows();
    middle_rows += steps.middle_rows();
  }
  EXPECT_GT(advanced, 500);
  EXPECT_GT(inner_rows, 300);
  EXPECT_GT(middle_rows, 50);
}

}  // namespace
}  // namespace banyan
