// SPDX-License-Identifier: Apache-2.0
#pragma once
// Which KV exists, once, and who uses it: a prefix tree over token positions (ChunkAttention's
// prefix-aware KV cache, arXiv 2402.15220 section 3.1, with nodes of any length instead of fixed
// chunks). A node is a run of positions with one set of users; it may begin and end inside a panel.
// Forks and divergence split a node and copy nothing: a child opens its own panel with the earlier
// slots empty. What no sequence uses stays until the pool needs its panels: leaves first, from
// their ends, in the order of a segmented LRU (Karedla, Love and Wherry, Computer 27(3), 1994), so
// that prompts that never come again do not flush those that do.
//
// The tree holds tokens and panel ids only; it never touches the KV itself and never calls the
// model. A position counts as stored from extend() on, so others may match it at once: its KV must
// be written no later than the step in which they attend to it, and positions that will never be
// written are taken back with truncate() before close().
//
// Thread rule: engine thread only. No function recurses: chains of nodes may be of any depth.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/function_ref.h"
#include "base/ids.h"
#include "base/result.h"
#include "kv/pool.h"
#include "tensor/kv_layout.h"

namespace banyan {

using NodeId = uint32_t;
using SeqId = uint32_t;

inline constexpr SeqId kNoSequence = ~SeqId{0};

// Whose KV a sequence shares, and of which kind.
struct KvScope {
  // Only sequences of equal salts share. Compared as it is, so whoever gives one to a tenant sees
  // to it that no other has the same: a number counted up, not a hash.
  uint64_t salt = 0;
  bool accepts_approximate = false;  // matches approximate KV too
  bool stores_approximate = false;   // what it computes is approximate; else it is if its past is
};

class KvTree {
 public:
  // `pool` must outlive the tree, and the tree must be its only user.
  explicit KvTree(PanelPool& pool);
  KvTree(const KvTree&) = delete;
  KvTree& operator=(const KvTree&) = delete;

  struct Opened {
    SeqId seq;
    int32_t matched;  // positions [0, matched) are stored already
  };
  // A live sequence that begins with the longest stored prefix of `prompt` in its scope, compared
  // token by token, but never with more than `max_match` positions (a caller that needs the last
  // token's logits passes prompt.size() - 1). Holds that prefix. Splits a node where the match ends
  // inside it. O(tokens compared + nodes and panels on the path).
  Opened open(std::span<const TokenId> prompt, int32_t max_match, const KvScope& scope = {});

  // The positions that open(prompt, prompt.size(), scope) would match. Changes nothing. O(tokens
  // compared).
  int32_t matched(std::span<const TokenId> prompt, const KvScope& scope = {}) const {
    return longest_match(prompt, {scope.salt, scope.salt, scope.accepts_approximate}).length;
  }

  enum class Why { kHit, kEmpty, kDiverged, kEvicted, kOtherTenant, kApproximateOnly };
  struct Explanation {
    Why why = Why::kHit;
    int32_t matched = 0;  // positions that open() would match
    // kDiverged: what is stored at `matched`, in one of the longest matches, and the prompt's own.
    TokenId had = kNoToken;
    TokenId got = kNoToken;
    friend bool operator==(const Explanation&, const Explanation&) = default;
  };
  // What open(prompt, prompt.size(), scope) would match, and why no more:
  //   kHit              all of it, or all that was ever asked for: nothing is stored behind it
  //   kEmpty            nothing is stored in this scope
  //   kDiverged         what is stored goes on otherwise
  //   kEvicted          more was stored once. A hint: of evicted prefixes only the hashes of the
  //                     last 16,384 or fewer are kept, at chunk borders and ends
  //   kApproximateOnly  more is stored, but is approximate and the scope does not accept that
  //   kOtherTenant      more is stored under another salt; that is all that is said of it
  // Of the last three, the one with most to give. Changes nothing. O(prompt + tokens compared).
  Explanation explain(std::span<const TokenId> prompt, const KvScope& scope = {}) const;

  // Tokens that are stored behind exactly this prefix, as far as one node has them; none if nothing
  // is. Of several, what explain() names. Holds until the tree next changes. O(prefix).
  std::span<const TokenId> stored_behind(std::span<const TokenId> prefix,
                                         const KvScope& scope = {}) const;

  // Slots for `tokens` at the end of the sequence; evicts what no sequence uses where the pool is
  // empty. kFailed, with nothing changed, if the budget cannot hold them even after evicting all
  // that no sequence uses; the sentence names --kv-budget and says how many positions would fit.
  // O(tokens). Evicting a panel is O(1), but for closing the gap in a parent's list of children.
  Result<void> extend(SeqId seq, std::span<const TokenId> tokens);

  // A second sequence with the same past and scope. Neither can change what they share. O(nodes on
  // the path).
  SeqId fork(SeqId seq);

  // Forgets the last positions, down to `length`. CHECKs that no other live sequence shares them.
  // Their panels are free again, but for positions that unused KV builds on: these stay as cache.
  void truncate(SeqId seq, int32_t length);

  // Ends the sequence. Its KV stays in the tree, unused, until evicted; only what a sibling holds
  // too (the same tokens after the same past) is dropped at once.
  void close(SeqId seq);

  // Keeps the positions that a sequence had when it was taken from eviction, whatever becomes of
  // the sequence. The tree must outlive it.
  class Pin {
   public:
    Pin() = default;
    Pin(Pin&& other) noexcept : tree_(std::exchange(other.tree_, nullptr)), node_(other.node_) {}
    Pin& operator=(Pin&& other) noexcept {
      std::swap(tree_, other.tree_);
      std::swap(node_, other.node_);
      return *this;
    }
    ~Pin() {
      if (tree_ != nullptr) tree_->unpin(node_);
    }

   private:
    friend class KvTree;
    Pin(KvTree& tree, NodeId node) : tree_(&tree), node_(node) {}
    KvTree* tree_ = nullptr;
    NodeId node_ = 0;
  };
  // O(nodes on the path).
  [[nodiscard]] Pin pin(SeqId seq);

  int32_t length(SeqId seq) const;  // positions, the extended ones included

  // Of these the first that other live sequences have too: truncate() may go down to here. O(nodes
  // of its own).
  int32_t shared_length(SeqId seq) const;

  // Ends the sequence as close() does, but what only it used is not kept for later ones.
  void drop(SeqId seq) {
    truncate(seq, shared_length(seq));
    close(seq);
  }

  // Where a position in [0, length) lies. O(1) in the last node of the path, which holds the newest
  // tokens; else one step for each node above it.
  KvSlot slot(SeqId seq, Position position) const;

  // Nodes from the root to the sequence's end, parents first (the root itself, which is empty, is
  // left out). Appends to `out`. Ids and what they name hold until the tree next changes.
  void path(SeqId seq, std::vector<NodeId>& out) const;

  // The live sequences, in an order in which the users of every node are neighbours: rows that
  // follow it are depth-first. kNoSequence where there is none (any more). O(1).
  SeqId first_sequence() const { return first_seq_; }
  SeqId next_sequence(SeqId seq) const { return sequence(seq).next; }

  // The last node of the sequence's path; the root, 0, while it is empty. O(1).
  NodeId leaf(SeqId seq) const { return sequence(seq).leaf; }

  // Grows whenever the live sequences, their order, or the nodes on their paths change, but not
  // when a sequence's last node grows in place, nor with what no sequence uses.
  uint64_t structure_version() const { return structure_version_; }

  enum class Segment : uint8_t { kNone, kProbation, kProtected };

  struct Node {
    NodeId parent = 0;
    Position begin = 0;            // first position
    std::vector<TokenId> tokens;   // one for each position; empty in the root alone
    std::vector<PanelRef> refs;    // where they are, one for each panel; contiguous, covers
                                   // [begin, begin + tokens.size())
    std::vector<NodeId> children;  // by rising first token, then salt, then exact ones last
    uint32_t users = 0;            // live sequences at or below this node
    SeqId last_seq = kNoSequence;  // the last of them in the order of sequences
    uint64_t salt = 0;             // of KvScope; all below a node have its own
    bool exact = true;             // else nothing below is, either
    uint64_t prefix_hash = 0;      // of salt and tokens from position 0 to its end
    uint32_t pins = 0;             // that end at or below this node
    int32_t reused = 0;            // positions, from its first, that a later open() matched
    NodeId older = 0;              // neighbours in its segment, 0 at the ends
    NodeId younger = 0;
    Segment segment = Segment::kNone;  // that it is in while it can be evicted
    bool live = false;

    Position end() const { return begin + static_cast<Position>(tokens.size()); }
  };
  const Node& node(NodeId id) const { return nodes_[id]; }

  uint64_t positions() const { return positions_; }  // stored once each, over all nodes

  // Panels that extend() could have now: free ones, and those that no live sequence or pin holds.
  uint32_t available_panels() const { return pool_.capacity() - held_panels_; }

  // Room for a sequence to grow to `length`: extend() then does not allocate, but for the call that
  // opens a new node (the first after open(), fork() or a truncate() into what others share).
  void reserve(SeqId seq, int32_t length);

  // Checks every invariant; CHECKs on a violation. For tests and idle time. O(tree).
  void check_integrity() const;

  // One line for each node, depth-first: its positions, users, panels and first tokens.
  std::string to_text() const;

 private:
  static constexpr NodeId kRoot = 0;

  struct Sequence {
    NodeId leaf = kRoot;
    SeqId prev = kNoSequence;  // in the order of live sequences
    SeqId next = kNoSequence;
    KvScope scope;
    int32_t reserved = 0;  // length asked for with reserve()
    bool live = false;
  };
  // Nodes that hold slots of a panel: the halves of a split share one.
  struct PanelUse {
    uint32_t nodes = 0;
    uint32_t held = 0;  // those of them with users or pins
  };
  // What a match may follow.
  struct Filter {
    uint64_t first_salt = 0;
    uint64_t last_salt = 0;
    bool approximate = false;
  };
  struct Match {
    NodeId node = kRoot;
    int32_t length = 0;  // positions from the root
  };
  // Leaves that nothing holds. All of a protected one was matched again after it was stored.
  struct Lru {
    NodeId oldest = kRoot;  // the root, which is in none, ends a list
    NodeId youngest = kRoot;
    uint64_t positions = 0;
  };

  const Sequence& sequence(SeqId seq) const;
  Sequence& sequence(SeqId seq);
  SeqId new_sequence(NodeId leaf, const KvScope& scope);

  void follow(std::span<const TokenId> prompt, const Filter& filter,
              FunctionRef<bool(const Match&)> visit) const;
  Match longest_match(std::span<const TokenId> prompt, const Filter& filter) const;
  std::span<const TokenId> stored_behind(const Match& match, const KvScope& scope) const;
  int32_t longest_evicted(std::span<const TokenId> prompt, uint64_t salt) const;
  void remember_evicted(const Node& node, int32_t kept);
  std::span<const NodeId> children_beginning_with(const Node& parent, TokenId token,
                                                  uint64_t first_salt, uint64_t last_salt) const;
  std::span<const NodeId> siblings_alike(NodeId parent, const Node& node) const;
  void insert_child(NodeId parent, NodeId child);
  void erase_child(NodeId parent, NodeId child);

  NodeId new_node(NodeId parent, Position begin, uint64_t salt, bool exact);
  void remove_leaf(NodeId id);
  NodeId split(NodeId id, int32_t offset);
  void append(NodeId id, std::span<const TokenId> tokens);
  void shrink(NodeId id, size_t size);
  void reserve_node(NodeId id, int32_t length);
  void drop_duplicate(NodeId leaf);

  void retain_path(NodeId leaf, SeqId seq);
  void release_path(NodeId leaf, SeqId seq);
  void release_user(Node& node, SeqId seq);
  void unpin(NodeId node);
  static bool is_held(const Node& node) { return node.users > 0 || node.pins > 0; }
  void hold(Node& node);
  void let_go(Node& node);
  void add_panel_use(PanelId panel, bool held);
  void drop_panel_use(PanelId panel, bool held);

  bool may_append(const Sequence& s) const;
  bool appends_in_place(const Sequence& s) const;
  uint64_t panels_to_extend(NodeId leaf, size_t n_tokens, bool in_place) const;
  uint32_t free_panels() const { return pool_.capacity() - pool_.used(); }
  Error budget_error(const Sequence& s, size_t needed) const;
  bool is_evictable(NodeId id) const;
  Lru& lru_of(Segment segment) { return segment == Segment::kProbation ? probation_ : protected_; }
  bool protects_too_much() const;
  void enlist(NodeId id, bool just_used);
  void link(NodeId id, Segment segment, bool youngest);
  void unlink(Node& node);
  bool evict_panel();

  PanelPool& pool_;
  std::vector<Node> nodes_;         // [0] is the root
  std::vector<NodeId> free_nodes_;  // capacity >= nodes_.size()
  std::vector<Sequence> sequences_;
  std::vector<SeqId> free_sequences_;
  std::vector<PanelUse> panel_uses_;  // by PanelId
  Lru probation_;
  Lru protected_;
  std::vector<uint64_t> evicted_;       // prefix hashes, each in the place that it names; 0: none
  mutable std::vector<NodeId> search_;  // scratch of follow
  uint32_t held_panels_ = 0;            // panels that a node with users or pins refers to
  uint64_t positions_ = 0;
  uint64_t structure_version_ = 0;
  SeqId first_seq_ = kNoSequence;
};

std::string_view name(KvTree::Why why);  // "hit", "empty", "diverged", "evicted", ..

}  // namespace banyan
