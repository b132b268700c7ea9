// SPDX-License-Identifier: Apache-2.0
#include "kv/tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"

namespace banyan {
namespace {

// Which of a node's refs holds a position: refs follow the absolute grid, one for each panel.
size_t ref_index(Position begin, Position position) {
  return static_cast<size_t>(position / kPanelTokens - begin / kPanelTokens);
}

// Prefix hashes: a step for each token, which can be undone, so that a node needs its end's only.
// They are hints; whatever decides over KV compares tokens.
constexpr uint64_t kHashFactor = 0x9e3779b97f4a7c15;  // 2^64 / golden ratio: odd, spreads upwards
constexpr uint64_t kHashInverse = 0xf1de83e19937733d;
static_assert(kHashFactor * kHashInverse == 1);
constexpr int kEvictedBits = 14;

uint64_t hash_of_nothing(uint64_t salt) { return (salt ^ 0xcbf29ce484222325) * kHashFactor; }
uint64_t hash_with(uint64_t hash, TokenId token) { return (hash ^ uint32_t(token)) * kHashFactor; }
uint64_t hash_without(uint64_t hash, TokenId token) {
  return (hash * kHashInverse) ^ uint32_t(token);
}
size_t evicted_place(uint64_t hash) { return hash >> (64 - kEvictedBits); }

}  // namespace

std::string_view name(KvTree::Why why) {
  switch (why) {
    case KvTree::Why::kHit:
      return "hit";
    case KvTree::Why::kEmpty:
      return "empty";
    case KvTree::Why::kDiverged:
      return "diverged";
    case KvTree::Why::kEvicted:
      return "evicted";
    case KvTree::Why::kOtherTenant:
      return "other_tenant";
    case KvTree::Why::kApproximateOnly:
      return "approximate_only";
  }
  return "";
}

KvTree::KvTree(PanelPool& pool) : pool_(pool), evicted_(size_t{1} << kEvictedBits) {
  BANYAN_CHECK(pool.used() == 0, "a pool belongs to one tree");
  // Room for every panel, so that none is made in extend(); beyond this many (16 M positions) the
  // vector grows as any other.
  constexpr uint32_t kReservedPanels = 1 << 20;
  panel_uses_.reserve(std::min(pool.capacity(), kReservedPanels));
  nodes_.emplace_back().live = true;
}

// --- sequences -----------------------------------------------------------------------------------

const KvTree::Sequence& KvTree::sequence(SeqId seq) const {
  BANYAN_CHECK(seq < sequences_.size() && sequences_[seq].live, "a live sequence");
  return sequences_[seq];
}

KvTree::Sequence& KvTree::sequence(SeqId seq) {
  return const_cast<Sequence&>(std::as_const(*this).sequence(seq));
}

SeqId KvTree::new_sequence(NodeId leaf, const KvScope& scope) {
  if (free_sequences_.empty()) {
    free_sequences_.push_back(static_cast<SeqId>(sequences_.size()));
    sequences_.emplace_back();
  }
  const SeqId seq = free_sequences_.back();
  free_sequences_.pop_back();
  sequences_[seq] = {.leaf = leaf, .scope = scope, .live = true};
  retain_path(leaf, seq);
  return seq;
}

KvTree::Opened KvTree::open(std::span<const TokenId> prompt, int32_t max_match,
                            const KvScope& scope) {
  BANYAN_CHECK(max_match >= 0, "a number of positions");
  const Match match = longest_match(prompt.first(std::min<size_t>(prompt.size(), max_match)),
                                    {scope.salt, scope.salt, scope.accepts_approximate});
  NodeId leaf = match.node;
  if (match.length < nodes_[leaf].end()) leaf = split(leaf, match.length - nodes_[leaf].begin);
  for (NodeId id = leaf; id != kRoot; id = nodes_[id].parent) {
    nodes_[id].reused = static_cast<int32_t>(nodes_[id].tokens.size());
  }
  return {new_sequence(leaf, scope), match.length};
}

SeqId KvTree::fork(SeqId seq) {
  const Sequence past = sequence(seq);
  return new_sequence(past.leaf, past.scope);
}

void KvTree::close(SeqId seq) {
  const NodeId leaf = sequence(seq).leaf;
  release_path(leaf, seq);
  sequence(seq).live = false;
  free_sequences_.push_back(seq);
  if (!is_evictable(leaf)) return;
  std::vector<TokenId>& tokens = nodes_[leaf].tokens;
  if (tokens.capacity() > 2 * tokens.size()) tokens.shrink_to_fit();  // what reserve() took
  enlist(leaf, true);
  drop_duplicate(leaf);
}

Result<void> KvTree::extend(SeqId seq, std::span<const TokenId> tokens) {
  if (tokens.empty()) return {};
  Sequence& s = sequence(seq);
  const NodeId leaf = s.leaf;
  BANYAN_CHECK(tokens.size() <= size_t(std::numeric_limits<Position>::max() - nodes_[leaf].end()),
               "positions fit their type");
  // With all of its unused children evicted, the sole user of a node appends in place.
  if (panels_to_extend(leaf, tokens.size(), may_append(s)) > available_panels()) {
    return budget_error(s, tokens.size());
  }
  const auto is_short = [&] {
    return free_panels() < panels_to_extend(leaf, tokens.size(), appends_in_place(s));
  };
  while (is_short()) {
    const bool freed = evict_panel();
    BANYAN_CHECK(freed || !is_short(), "available panels are free or can be evicted");
  }
  if (!appends_in_place(s)) {
    const bool exact = nodes_[leaf].exact && !s.scope.stores_approximate;
    const NodeId child = new_node(leaf, nodes_[leaf].end(), s.scope.salt, exact);
    reserve_node(child, s.reserved);
    nodes_[child].users = 1;
    nodes_[child].last_seq = seq;
    nodes_[child].prefix_hash =
        leaf == kRoot ? hash_of_nothing(s.scope.salt) : nodes_[leaf].prefix_hash;
    append(child, tokens);
    insert_child(leaf, child);
    s.leaf = child;
    ++structure_version_;
  } else {
    append(leaf, tokens);
  }
  return {};
}

void KvTree::truncate(SeqId seq, int32_t length) {
  NodeId leaf = sequence(seq).leaf;
  BANYAN_CHECK(length >= 0 && length <= nodes_[leaf].end(), "a length that the sequence has");
  ++structure_version_;
  while (nodes_[leaf].end() > length) {
    BANYAN_CHECK(nodes_[leaf].users == 1, "truncated positions belong to one live sequence");
    const bool stays = !nodes_[leaf].children.empty() || nodes_[leaf].pins > 0;
    const int32_t kept = length - nodes_[leaf].begin;
    if (kept > 0 && !stays) {
      shrink(leaf, kept);
      break;
    }
    const NodeId dropped = leaf;
    leaf = kept > 0 ? split(leaf, kept) : nodes_[leaf].parent;
    release_user(nodes_[dropped], seq);
    if (!stays) remove_leaf(dropped);
  }
  sequence(seq).leaf = leaf;
}

int32_t KvTree::length(SeqId seq) const { return nodes_[sequence(seq).leaf].end(); }

int32_t KvTree::shared_length(SeqId seq) const {
  NodeId shared = sequence(seq).leaf;
  while (shared != kRoot && nodes_[shared].users == 1) shared = nodes_[shared].parent;
  return nodes_[shared].end();
}

KvSlot KvTree::slot(SeqId seq, Position position) const {
  const Node* node = &nodes_[sequence(seq).leaf];
  BANYAN_CHECK(position >= 0 && position < node->end(), "a position of the sequence");
  while (position < node->begin) node = &nodes_[node->parent];
  return {node->refs[ref_index(node->begin, position)].panel, position % kPanelTokens};
}

void KvTree::path(SeqId seq, std::vector<NodeId>& out) const {
  const size_t first = out.size();
  for (NodeId id = sequence(seq).leaf; id != kRoot; id = nodes_[id].parent) out.push_back(id);
  std::reverse(out.begin() + first, out.end());
}

void KvTree::reserve(SeqId seq, int32_t length) {
  Sequence& s = sequence(seq);
  s.reserved = std::max(s.reserved, length);
  if (appends_in_place(s)) reserve_node(s.leaf, s.reserved);
}

// --- matching ------------------------------------------------------------------------------------

// Salts differ among the children of the root only.
std::span<const NodeId> KvTree::children_beginning_with(const Node& parent, TokenId token,
                                                        uint64_t first_salt,
                                                        uint64_t last_salt) const {
  const auto key = [this](NodeId id) {
    return std::pair(nodes_[id].tokens.front(), nodes_[id].salt);
  };
  const std::vector<NodeId>& all = parent.children;
  const auto begin = std::ranges::lower_bound(all, std::pair(token, first_salt), {}, key);
  return {begin, std::ranges::upper_bound(begin, all.end(), std::pair(token, last_salt), {}, key)};
}

std::span<const NodeId> KvTree::siblings_alike(NodeId parent, const Node& node) const {
  return children_beginning_with(nodes_[parent], node.tokens.front(), node.salt, node.salt);
}

// Calls `visit` for every node that is reached and as far as it matches, until that returns false.
// Sequences that computed the same tokens side by side leave siblings that begin alike, so every
// such branch is followed, exact ones first.
void KvTree::follow(std::span<const TokenId> prompt, const Filter& filter,
                    FunctionRef<bool(const Match&)> visit) const {
  search_.assign(1, kRoot);
  while (!search_.empty()) {
    const NodeId id = search_.back();
    search_.pop_back();
    const Node& node = nodes_[id];
    if (!node.exact && !filter.approximate) continue;
    const std::span<const TokenId> rest = prompt.subspan(node.begin);
    const auto differs = std::ranges::mismatch(node.tokens, rest);
    const int32_t length = node.begin + static_cast<int32_t>(differs.in2 - rest.begin());
    if (!visit({id, length})) return;
    if (length == node.end() && size_t(length) < prompt.size()) {
      const std::span<const NodeId> next =
          children_beginning_with(node, prompt[length], filter.first_salt, filter.last_salt);
      search_.insert(search_.end(), next.begin(), next.end());
    }
  }
}

// The first of the longest, so an exact one if there is one.
KvTree::Match KvTree::longest_match(std::span<const TokenId> prompt, const Filter& filter) const {
  Match best;
  follow(prompt, filter, [&](const Match& match) {
    if (match.length > best.length) best = match;
    return size_t(best.length) < prompt.size();
  });
  return best;
}

KvTree::Explanation KvTree::explain(std::span<const TokenId> prompt, const KvScope& scope) const {
  const auto match = [&](uint64_t first_salt, uint64_t last_salt, bool approximate) {
    return longest_match(prompt, {first_salt, last_salt, approximate});
  };
  const bool accepts = scope.accepts_approximate;
  const Match own = match(scope.salt, scope.salt, accepts);
  Explanation explanation{.why = Why::kHit, .matched = own.length};
  if (size_t(own.length) == prompt.size()) return explanation;

  int32_t longest = own.length;
  const auto consider = [&](int32_t length, Why why) {
    if (length <= longest) return;
    longest = length;
    explanation.why = why;
  };
  consider(match(scope.salt, scope.salt, true).length, Why::kApproximateOnly);
  consider(longest_evicted(prompt, scope.salt), Why::kEvicted);
  consider(match(0, std::numeric_limits<uint64_t>::max(), accepts).length, Why::kOtherTenant);
  if (longest > own.length) return explanation;

  const std::span<const TokenId> had = stored_behind(prompt.first(own.length), scope);
  if (!had.empty()) return {Why::kDiverged, own.length, had.front(), prompt[own.length]};
  if (own.length == 0) explanation.why = Why::kEmpty;
  return explanation;
}

std::span<const TokenId> KvTree::stored_behind(std::span<const TokenId> prefix,
                                               const KvScope& scope) const {
  std::span<const TokenId> behind;
  follow(prefix, {scope.salt, scope.salt, scope.accepts_approximate}, [&](const Match& one) {
    if (size_t(one.length) == prefix.size()) behind = stored_behind(one, scope);
    return behind.empty();
  });
  return behind;
}

std::span<const TokenId> KvTree::stored_behind(const Match& match, const KvScope& scope) const {
  const Node& node = nodes_[match.node];
  if (match.length < node.end()) return std::span(node.tokens).subspan(match.length - node.begin);
  for (const NodeId child : node.children) {
    const Node& next = nodes_[child];
    const bool visible = next.salt == scope.salt && (next.exact || scope.accepts_approximate);
    if (visible) return next.tokens;
  }
  return {};
}

// Notes what goes when a node keeps `kept` positions. Its end, unless eviction cut it there before,
// at the end of a panel; and ends of chunks.
void KvTree::remember_evicted(const Node& node, int32_t kept) {
  uint64_t hash = node.prefix_hash;
  for (Position end = node.end(); end > node.begin + kept; --end) {
    const bool is_end = end == node.end() && end % kPanelTokens != 0;
    if (is_end || end % kChunkTokens == 0) evicted_[evicted_place(hash)] = hash;
    hash = hash_without(hash, node.tokens[end - 1 - node.begin]);
  }
}

int32_t KvTree::longest_evicted(std::span<const TokenId> prompt, uint64_t salt) const {
  int32_t longest = 0;
  uint64_t hash = hash_of_nothing(salt);
  for (size_t i = 0; i < prompt.size(); ++i) {
    hash = hash_with(hash, prompt[i]);
    if (evicted_[evicted_place(hash)] == hash) longest = static_cast<int32_t>(i + 1);
  }
  return longest;
}

void KvTree::insert_child(NodeId parent, NodeId child) {
  std::vector<NodeId>& children = nodes_[parent].children;
  const std::span<const NodeId> alike = siblings_alike(parent, nodes_[child]);
  const size_t place = nodes_[child].exact ? alike.size() : 0;
  children.insert(children.begin() + (alike.data() + place - children.data()), child);
}

void KvTree::erase_child(NodeId parent, NodeId child) {
  std::vector<NodeId>& children = nodes_[parent].children;
  const std::span<const NodeId> alike = siblings_alike(parent, nodes_[child]);
  const auto at = std::ranges::find(alike, child);
  BANYAN_CHECK(at != alike.end(), "a parent knows its child");
  children.erase(children.begin() + (&*at - children.data()));
}

// --- nodes ---------------------------------------------------------------------------------------

NodeId KvTree::new_node(NodeId parent, Position begin, uint64_t salt, bool exact) {
  if (free_nodes_.empty()) {
    free_nodes_.push_back(static_cast<NodeId>(nodes_.size()));
    nodes_.emplace_back();
    // So that eviction, which runs inside extend(), does not allocate.
    free_nodes_.reserve(nodes_.capacity());
  }
  const NodeId id = free_nodes_.back();
  free_nodes_.pop_back();
  Node& node = nodes_[id];
  node.parent = parent;
  node.begin = begin;
  node.salt = salt;
  node.exact = exact;
  node.live = true;
  return id;
}

void KvTree::remove_leaf(NodeId id) {
  const NodeId parent = nodes_[id].parent;
  if (nodes_[id].segment != Segment::kNone) unlink(nodes_[id]);
  erase_child(parent, id);
  shrink(id, 0);
  nodes_[id] = Node{};
  free_nodes_.push_back(id);
  if (is_evictable(parent)) enlist(parent, false);
}

// Cuts a node in two at `offset` in (0, size) and returns the upper half, which is new. The lower
// half keeps the id, so that its sequences and children need no change.
NodeId KvTree::split(NodeId id, int32_t offset) {
  const NodeId upper_id =
      new_node(nodes_[id].parent, nodes_[id].begin, nodes_[id].salt, nodes_[id].exact);
  Node& upper = nodes_[upper_id];
  Node& lower = nodes_[id];
  BANYAN_CHECK(offset > 0 && offset < int32_t(lower.tokens.size()), "both halves have positions");
  std::ranges::replace(nodes_[lower.parent].children, id, upper_id);
  upper.children.assign(1, id);
  upper.users = lower.users;
  upper.last_seq = lower.last_seq;
  upper.pins = lower.pins;
  upper.reused = std::min(lower.reused, offset);
  lower.reused -= upper.reused;
  if (lower.segment != Segment::kNone) lru_of(lower.segment).positions -= offset;
  upper.prefix_hash = lower.prefix_hash;
  for (size_t i = lower.tokens.size(); i > size_t(offset); --i) {
    upper.prefix_hash = hash_without(upper.prefix_hash, lower.tokens[i - 1]);
  }
  upper.tokens.assign(lower.tokens.begin(), lower.tokens.begin() + offset);
  lower.tokens.erase(lower.tokens.begin(), lower.tokens.begin() + offset);

  const Position border = lower.begin + offset;
  const auto border_ref = lower.refs.begin() + ref_index(lower.begin, border);
  upper.refs.assign(lower.refs.begin(), border_ref);
  if (const auto slot = static_cast<uint8_t>(border % kPanelTokens); slot != 0) {
    upper.refs.push_back({border_ref->panel, border_ref->slot_begin, slot});
    border_ref->slot_begin = slot;
    add_panel_use(border_ref->panel, is_held(lower));
  }
  lower.refs.erase(lower.refs.begin(), border_ref);
  lower.parent = upper_id;
  lower.begin = border;
  return upper_id;
}

// Requires free panels for what does not fit the node's last one.
void KvTree::append(NodeId id, std::span<const TokenId> tokens) {
  Node& node = nodes_[id];
  positions_ += tokens.size();
  for (const TokenId token : tokens) node.prefix_hash = hash_with(node.prefix_hash, token);
  while (!tokens.empty()) {
    const int slot = node.end() % kPanelTokens;
    if (slot == 0 || node.refs.empty()) {
      const std::optional<PanelId> panel = pool_.allocate();
      BANYAN_CHECK(panel.has_value(), "panels were counted before");
      add_panel_use(*panel, is_held(node));
      node.refs.push_back({*panel, static_cast<uint8_t>(slot), static_cast<uint8_t>(slot)});
    }
    const size_t taken = std::min<size_t>(kPanelTokens - slot, tokens.size());
    node.refs.back().slot_end = static_cast<uint8_t>(slot + taken);
    node.tokens.insert(node.tokens.end(), tokens.begin(), tokens.begin() + taken);
    tokens = tokens.subspan(taken);
  }
}

// Takes positions from the end of a node without children until `size` are left.
void KvTree::shrink(NodeId id, size_t size) {
  Node& node = nodes_[id];
  BANYAN_CHECK(node.children.empty() && size <= node.tokens.size(), "nothing builds on the end");
  const size_t dropped = node.tokens.size() - size;
  positions_ -= dropped;
  if (node.segment != Segment::kNone) lru_of(node.segment).positions -= dropped;
  for (; node.tokens.size() > size; node.tokens.pop_back()) {
    node.prefix_hash = hash_without(node.prefix_hash, node.tokens.back());
  }
  node.reused = std::min(node.reused, static_cast<int32_t>(size));
  while (!node.refs.empty()) {
    PanelRef& last = node.refs.back();
    const Position last_begin = std::max(
        node.begin, (node.begin / kPanelTokens + Position(node.refs.size()) - 1) * kPanelTokens);
    if (last_begin < node.end()) {
      last.slot_end = static_cast<uint8_t>(last.slot_begin + (node.end() - last_begin));
      break;
    }
    drop_panel_use(last.panel, is_held(node));
    node.refs.pop_back();
  }
}

void KvTree::reserve_node(NodeId id, int32_t length) {
  Node& node = nodes_[id];
  if (length <= node.end()) return;
  node.tokens.reserve(length - node.begin);
  node.refs.reserve(ref_index(node.begin, length - 1) + 1);
}

// Of two siblings without users below, one of which begins with all tokens of the other, the
// shorter goes: requests that repeat each other would fill the cache with the same KV.
void KvTree::drop_duplicate(NodeId leaf) {
  const Node& node = nodes_[leaf];
  const auto serves_as = [this](NodeId longer, NodeId shorter) {
    const Node& a = nodes_[longer];
    const Node& b = nodes_[shorter];
    return (a.exact || !b.exact) && a.tokens.size() >= b.tokens.size() &&
           std::equal(b.tokens.begin(), b.tokens.end(), a.tokens.begin());
  };
  for (const NodeId sibling : siblings_alike(node.parent, node)) {
    if (sibling == leaf) continue;
    if (serves_as(sibling, leaf)) return remove_leaf(leaf);
    if (is_evictable(sibling) && serves_as(leaf, sibling)) return remove_leaf(sibling);
  }
}

// --- users and panels ----------------------------------------------------------------------------

// Before a node's users or pins become more.
void KvTree::hold(Node& node) {
  if (is_held(node)) return;
  if (node.segment != Segment::kNone) unlink(node);
  for (const PanelRef& ref : node.refs) {
    if (panel_uses_[ref.panel].held++ == 0) ++held_panels_;
  }
}

// After they became fewer.
void KvTree::let_go(Node& node) {
  if (is_held(node)) return;
  for (const PanelRef& ref : node.refs) {
    if (--panel_uses_[ref.panel].held == 0) --held_panels_;
  }
}

// The new user stands behind all others of the nearest node that has some: there the users of that
// node end, and those of the nodes above it go on or end too, so that no node's are parted.
void KvTree::retain_path(NodeId leaf, SeqId seq) {
  ++structure_version_;
  NodeId used = leaf;
  while (nodes_[used].users == 0 && used != kRoot) used = nodes_[used].parent;
  const SeqId before = nodes_[used].last_seq;
  SeqId& after = before == kNoSequence ? first_seq_ : sequences_[before].next;
  sequences_[seq].prev = before;
  sequences_[seq].next = after;
  if (after != kNoSequence) sequences_[after].prev = seq;
  after = seq;

  const auto retain = [&](Node& node) {
    hold(node);
    ++node.users;
    if (node.last_seq == before || node.last_seq == kNoSequence) node.last_seq = seq;
  };
  for (NodeId id = leaf; id != kRoot; id = nodes_[id].parent) retain(nodes_[id]);
  retain(nodes_[kRoot]);
}

void KvTree::release_user(Node& node, SeqId seq) {
  --node.users;
  // The one before it is a user too, unless it was the only one.
  if (node.last_seq == seq) node.last_seq = node.users > 0 ? sequences_[seq].prev : kNoSequence;
  let_go(node);
}

void KvTree::release_path(NodeId leaf, SeqId seq) {
  ++structure_version_;
  for (NodeId id = leaf; id != kRoot; id = nodes_[id].parent) release_user(nodes_[id], seq);
  release_user(nodes_[kRoot], seq);
  const SeqId prev = sequences_[seq].prev;
  const SeqId next = sequences_[seq].next;
  (prev == kNoSequence ? first_seq_ : sequences_[prev].next) = next;
  if (next != kNoSequence) sequences_[next].prev = prev;
}

KvTree::Pin KvTree::pin(SeqId seq) {
  const NodeId leaf = sequence(seq).leaf;
  for (NodeId id = leaf; id != kRoot; id = nodes_[id].parent) ++nodes_[id].pins;  // held already
  ++nodes_[kRoot].pins;
  return {*this, leaf};
}

void KvTree::unpin(NodeId node) {
  for (NodeId id = node; id != kRoot; id = nodes_[id].parent) {
    --nodes_[id].pins;
    let_go(nodes_[id]);
  }
  --nodes_[kRoot].pins;
  if (is_evictable(node)) enlist(node, true);
}

void KvTree::add_panel_use(PanelId panel, bool held) {
  if (panel >= panel_uses_.size()) panel_uses_.resize(panel + 1);
  PanelUse& use = panel_uses_[panel];
  ++use.nodes;
  if (held && use.held++ == 0) ++held_panels_;
}

void KvTree::drop_panel_use(PanelId panel, bool held) {
  PanelUse& use = panel_uses_[panel];
  if (held && --use.held == 0) --held_panels_;
  if (--use.nodes == 0) pool_.release(panel);
}

// --- budget --------------------------------------------------------------------------------------

// Where a pin ends, nothing is appended: it would be pinned too. A node is of one exactness.
bool KvTree::may_append(const Sequence& s) const {
  const Node& leaf = nodes_[s.leaf];
  return s.leaf != kRoot && leaf.users == 1 && leaf.pins == 0 &&
         !(leaf.exact && s.scope.stores_approximate);
}

// The slots after the end of a node without children are in no other use: nodes that share its last
// panel are its ancestors.
bool KvTree::appends_in_place(const Sequence& s) const {
  return may_append(s) && nodes_[s.leaf].children.empty();
}

uint64_t KvTree::panels_to_extend(NodeId leaf, size_t n_tokens, bool in_place) const {
  const uint64_t begin = nodes_[leaf].end();
  const uint64_t touched = (begin + n_tokens - 1) / kPanelTokens - begin / kPanelTokens + 1;
  return touched - (in_place && begin % kPanelTokens != 0 ? 1 : 0);
}

Error KvTree::budget_error(const Sequence& s, size_t needed) const {
  const uint64_t used_slots = nodes_[s.leaf].end() % kPanelTokens;
  uint64_t fit = uint64_t{available_panels()} * kPanelTokens;
  if (may_append(s)) {
    fit += used_slots == 0 ? 0 : kPanelTokens - used_slots;
  } else {
    fit -= std::min(fit, used_slots);  // left empty in the panel that a new node opens
  }
  return failed(fmt::format(
      "--kv-budget {} holds {} positions and is used up: {} more were needed and {} fit beside "
      "what live sequences{} use",
      format_bytes(pool_.budget_bytes()), uint64_t{pool_.capacity()} * kPanelTokens, needed, fit,
      nodes_[kRoot].pins > 0 ? " and pins" : ""));
}

bool KvTree::is_evictable(NodeId id) const {
  const Node& node = nodes_[id];
  return id != kRoot && node.live && !is_held(node) && node.children.empty();
}

// An eighth of the budget, or one leaf however large: more would hold dead conversations, whose
// turns all came again once (docs/decisions.md has a trace).
bool KvTree::protects_too_much() const {
  return protected_.positions > uint64_t{pool_.capacity()} * kPanelTokens / 8 &&
         protected_.oldest != protected_.youngest;
}

// Sets a leaf that has become evictable in its place: the young end of its segment if it was just
// used. If it lost its last child, it is about as old as that was, the oldest in probation; having
// been matched again, it has outlived a child that was not, and is as good as the youngest.
void KvTree::enlist(NodeId id, bool just_used) {
  const bool matched_again = nodes_[id].reused == int32_t(nodes_[id].tokens.size());
  const Segment segment = matched_again ? Segment::kProtected : Segment::kProbation;
  link(id, segment, just_used || matched_again);
  while (protects_too_much()) {
    const NodeId demoted = protected_.oldest;
    unlink(nodes_[demoted]);
    nodes_[demoted].reused = 0;
    link(demoted, Segment::kProbation, true);
  }
}

void KvTree::link(NodeId id, Segment segment, bool youngest) {
  Node& node = nodes_[id];
  Lru& lru = lru_of(segment);
  node.segment = segment;
  node.older = youngest ? lru.youngest : kRoot;
  node.younger = youngest ? kRoot : lru.oldest;
  (node.older == kRoot ? lru.oldest : nodes_[node.older].younger) = id;
  (node.younger == kRoot ? lru.youngest : nodes_[node.younger].older) = id;
  lru.positions += node.tokens.size();
}

void KvTree::unlink(Node& node) {
  Lru& lru = lru_of(node.segment);
  (node.older == kRoot ? lru.oldest : nodes_[node.older].younger) = node.younger;
  (node.younger == kRoot ? lru.youngest : nodes_[node.younger].older) = node.older;
  lru.positions -= node.tokens.size();
  node.segment = Segment::kNone;
}

// Takes positions from the end of the oldest leaf, and so on, until one panel is free. False if all
// that could be evicted is gone and no panel came free.
bool KvTree::evict_panel() {
  const uint32_t used_before = pool_.used();
  while (pool_.used() == used_before) {
    const NodeId id = probation_.oldest != kRoot ? probation_.oldest : protected_.oldest;
    if (id == kRoot) return false;
    Node& node = nodes_[id];
    const PanelRef& last = node.refs.back();
    int32_t kept = static_cast<int32_t>(node.tokens.size()) - (last.slot_end - last.slot_begin);
    if (node.segment == Segment::kProbation) kept = std::max(kept, node.reused);
    remember_evicted(node, kept);
    if (kept == 0) {
      remove_leaf(id);
      continue;
    }
    shrink(id, kept);
    if (node.segment == Segment::kProbation && kept == node.reused) {
      unlink(node);
      enlist(id, false);
    }
  }
  return true;
}

}  // namespace banyan
