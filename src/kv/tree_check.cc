// SPDX-License-Identifier: Apache-2.0
// What a KvTree promises about itself, checked and written out.

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "kv/tree.h"

namespace banyan {
namespace {

void check_refs(const KvTree::Node& node) {
  Position position = node.begin;
  for (const PanelRef& ref : node.refs) {
    BANYAN_CHECK(ref.slot_begin == position % kPanelTokens, "a position keeps to its grid slot");
    BANYAN_CHECK(ref.slot_begin < ref.slot_end && ref.slot_end <= kPanelTokens,
                 "a ref holds slots of one panel");
    position += ref.slot_end - ref.slot_begin;
    BANYAN_CHECK(&ref == &node.refs.back() || ref.slot_end == kPanelTokens,
                 "refs of a node are contiguous");
  }
  BANYAN_CHECK(position == node.end(), "refs cover the positions of their node");
}

}  // namespace

void KvTree::check_integrity() const {
  // Users counted anew, from the sequences in their order.
  struct Users {
    uint32_t count = 0;
    uint32_t first_row = 0;
    uint32_t last_row = 0;
    SeqId last = kNoSequence;
  };
  std::vector<Users> users(nodes_.size());
  uint32_t rows = 0;
  SeqId previous_seq = kNoSequence;
  for (SeqId seq = first_seq_; seq != kNoSequence; seq = sequences_[seq].next) {
    BANYAN_CHECK(sequences_[seq].live && sequences_[seq].prev == previous_seq,
                 "live sequences know their neighbours");
    BANYAN_CHECK(rows < sequences_.size(), "the order of sequences has an end");
    const auto count = [&](NodeId id) {
      Users& u = users[id];
      if (u.count++ == 0) u.first_row = rows;
      u.last_row = rows;
      u.last = seq;
    };
    for (NodeId id = sequences_[seq].leaf; id != kRoot; id = nodes_[id].parent) count(id);
    count(kRoot);
    previous_seq = seq;
    ++rows;
  }
  BANYAN_CHECK(rows == size_t(std::ranges::count_if(sequences_, &Sequence::live)),
               "every live sequence is in the order");
  size_t evictable = 0;
  for (const auto& [lru, segment] :
       {std::pair(probation_, Segment::kProbation), std::pair(protected_, Segment::kProtected)}) {
    uint64_t listed_positions = 0;
    NodeId older = kRoot;
    for (NodeId id = lru.oldest; id != kRoot; id = nodes_[id].younger) {
      const Node& node = nodes_[id];
      BANYAN_CHECK(is_evictable(id) && node.segment == segment && node.older == older,
                   "evictable leaves know their neighbours");
      BANYAN_CHECK((segment == Segment::kProtected) == (node.reused == int32_t(node.tokens.size())),
                   "all of a protected leaf was matched again");
      listed_positions += node.tokens.size();
      older = id;
      ++evictable;
    }
    BANYAN_CHECK(lru.youngest == older, "the youngest ends its list");
    BANYAN_CHECK(lru.positions == listed_positions, "positions of a segment are counted");
  }
  BANYAN_CHECK(!protects_too_much(), "the protected segment is bounded");

  struct Use {
    uint32_t nodes = 0;
    uint32_t held = 0;
    uint32_t slots = 0;  // bit set
  };
  std::unordered_map<PanelId, Use> panels;
  uint64_t positions = 0;
  size_t reached = 0;
  std::vector<NodeId> open{kRoot};
  while (!open.empty()) {
    const NodeId id = open.back();
    open.pop_back();
    ++reached;
    const Node& node = nodes_[id];
    BANYAN_CHECK(node.live, "a node that is reached is live");
    const Users& u = users[id];
    BANYAN_CHECK(node.users == u.count, "users are the live sequences at or below");
    BANYAN_CHECK(node.last_seq == u.last, "the last user is known");
    BANYAN_CHECK(u.count == 0 || u.last_row - u.first_row + 1 == u.count,
                 "users of a node are neighbours");
    BANYAN_CHECK((id == kRoot) == node.tokens.empty(), "the root alone is empty");
    BANYAN_CHECK(node.reused >= 0 && node.reused <= int32_t(node.tokens.size()),
                 "what was matched again is in its node");
    if (node.segment == Segment::kNone) {
      BANYAN_CHECK(!is_evictable(id), "evictable leaves are in a segment");
    } else {
      --evictable;
    }
    check_refs(node);
    positions += node.tokens.size();
    for (const PanelRef& ref : node.refs) {
      Use& use = panels[ref.panel];
      ++use.nodes;
      use.held += is_held(node) ? 1 : 0;
      const uint32_t slots = (1U << ref.slot_end) - (1U << ref.slot_begin);
      BANYAN_CHECK((use.slots & slots) == 0, "a slot holds one position");
      use.slots |= slots;
    }
    uint32_t pins = 0;
    std::tuple<TokenId, uint64_t, bool> previous{-1, 0, false};
    for (const NodeId child : node.children) {
      BANYAN_CHECK(nodes_[child].parent == id, "a child knows its parent");
      BANYAN_CHECK(nodes_[child].begin == node.end(), "a child begins where its parent ends");
      BANYAN_CHECK(id == kRoot || nodes_[child].salt == node.salt, "salts differ at the root only");
      BANYAN_CHECK(node.exact || !nodes_[child].exact, "nothing exact builds on approximate KV");
      const std::tuple key{nodes_[child].tokens.front(), nodes_[child].salt, nodes_[child].exact};
      BANYAN_CHECK(node.children.front() == child || key >= previous, "children are in order");
      previous = key;
      pins += nodes_[child].pins;
      open.push_back(child);
    }
    BANYAN_CHECK(pins <= node.pins, "pins are counted up to the root");
  }
  BANYAN_CHECK(evictable == 0, "what is in a segment is in the tree");
  BANYAN_CHECK(reached + free_nodes_.size() == nodes_.size(), "every other node is free");
  BANYAN_CHECK(positions == positions_, "positions are counted");
  BANYAN_CHECK(panels.size() == pool_.used(), "panels in use are those that nodes refer to");
  uint32_t held = 0;
  for (const auto& [panel, use] : panels) {
    BANYAN_CHECK(panel < panel_uses_.size() && panel_uses_[panel].nodes == use.nodes &&
                     panel_uses_[panel].held == use.held,
                 "uses of a panel are counted");
    held += use.held > 0 ? 1 : 0;
  }
  BANYAN_CHECK(held == held_panels_, "panels in use are counted");
}

std::string KvTree::to_text() const {
  constexpr size_t kShownTokens = 8;
  constexpr int kMaxIndent = 32;  // deep chains would fill the text with blanks
  struct Entry {
    NodeId id;
    int depth;
  };
  std::string text = fmt::format("tree: {} positions, {} of {} panels, {} live sequences\n",
                                 positions_, pool_.used(), pool_.capacity(), nodes_[kRoot].users);
  std::vector<Entry> open;
  const auto push_children = [&](NodeId id, int depth) {
    const std::vector<NodeId>& children = nodes_[id].children;
    std::transform(children.rbegin(), children.rend(), std::back_inserter(open),
                   [depth](NodeId child) {
                     return Entry{child, depth};
                   });
  };
  push_children(kRoot, 0);
  while (!open.empty()) {
    const auto [id, depth] = open.back();
    open.pop_back();
    const Node& node = nodes_[id];
    fmt::format_to(std::back_inserter(text), "{:{}}node {} [{}, {}) users {} panels", "",
                   2 * std::min(depth, kMaxIndent), id, node.begin, node.end(), node.users);
    for (const PanelRef& ref : node.refs) {
      fmt::format_to(std::back_inserter(text), " {}:{}-{}", ref.panel, ref.slot_begin,
                     ref.slot_end);
    }
    if (node.salt != 0) fmt::format_to(std::back_inserter(text), " salt {}", node.salt);
    if (!node.exact) text += " approximate";
    text += " tokens";
    for (size_t i = 0; i < std::min(node.tokens.size(), kShownTokens); ++i) {
      fmt::format_to(std::back_inserter(text), " {}", node.tokens[i]);
    }
    text += node.tokens.size() > kShownTokens ? " ..\n" : "\n";
    push_children(id, depth + 1);
  }
  return text;
}

}  // namespace banyan
