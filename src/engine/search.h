// SPDX-License-Identifier: Apache-2.0
#pragma once
// Generation that branches: a tree of texts that grow from one prompt. What branches have in common
// is computed and held once; a step takes all branches that have something to do through the model
// together. No policy is in here: who wants beams, votes or a tree of thoughts forks, extends and
// prunes (engine/search_policies.h does it for those).

#include <cstdint>
#include <deque>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"

namespace banyan {

// Names a node of a Search. A node that was pruned, and the next one that takes its place, differ
// in `generation`, so an old handle is told from a live one. Generations begin at 1.
struct SearchNode {
  uint32_t index = 0;
  uint32_t generation = 0;
  friend bool operator==(const SearchNode&, const SearchNode&) = default;
};

// What a leaf is to get: first these tokens, then tokens that are sampled. With neither, only what
// of it is not computed yet is, so that next_tokens() can be asked.
struct Extension {
  std::vector<TokenId> tokens;
  int unscored = 0;  // so many of `tokens`, from the first, do not count in logprob()
  int max_tokens =
      0;  // to sample, >= 0; fewer where an end token, a stop string or the context ends it
  SamplerParams sampler;
  std::vector<std::string> stop;
  bool ignore_eos = false;
  // > 0: of what may follow the last token, only the `keep_next` likeliest are kept, where else all
  // logits are: [vocabulary] floats for each node. Nothing can be sampled behind them then.
  int keep_next = 0;
};

// A search as it stands, with nothing of the engine's in it.
struct SearchTree {
  struct Node {
    SearchNode node;
    int32_t parent = -1;          // index into nodes
    std::vector<TokenId> tokens;  // its own; the root's are the prompt
    double score = 0;
    bool is_leaf = true;
  };
  std::vector<Node> nodes;  // depth-first, [0] is the root; children in the order of their forks
};

// Tokens that have KV.
struct SearchKv {
  int64_t tokens = 0;       // each once
  int64_t path_tokens = 0;  // the leaves' paths added up
  uint64_t bytes = 0;       // of the panels that hold them
  uint64_t bytes_peak = 0;  // most that the engine's KV took, everybody's
};

// Not thread safe, and of the engine's thread. Errors are kBadInput where a handle is not (or no
// longer) of this search, and change nothing. A search that ends leaves its KV as cache, as a
// request does; what was pruned is forgotten.
class Search {
 public:
  // The root holds the prompt; nothing is computed yet, and of what the cache has of it nothing
  // will be. kBadInput as Engine::submit(). KV is shared within the salt only. The engine must
  // outlive the search.
  static Result<Search> open(Engine& engine, std::span<const TokenId> prompt, uint64_t salt = 0);
  Search(Search&&) noexcept;
  Search& operator=(Search&&) = delete;
  ~Search();

  SearchNode root() const { return {0, 1}; }

  // n new leaves behind a node, n in [1, 65536], which has no work left. The node stays and can be
  // read, forked again, but no longer extended. Computes and copies nothing. O(n).
  Result<std::vector<SearchNode>> fork(SearchNode node, int n);

  // Gives a leaf that has no work left something to do; its tokens stand at once. kBadInput for
  // inner nodes, values out of range and tokens past the context.
  Result<void> extend(SearchNode leaf, Extension extension);

  // extend() by the text of another branch since the two parted: the tokens are the same, their KV
  // is computed again, as it stands in another place. Their log-probabilities behind `leaf` count.
  Result<void> join(SearchNode leaf, SearchNode other);

  // All leaves that have work go on: by a token those that sample, by up to a step's rows those
  // that read. One pass through the model, more only for more than StepRunner::max_rows() leaves.
  // What goes wrong with one ends its work alone (generated() says why); no room for its KV, above
  // all. False when no work is left.
  bool step();
  void run() {
    while (step()) {
    }
  }
  bool has_work() const { return !working_.empty(); }

  // What the last extend() of a node sampled, or why it could not be done. Complete once it has no
  // work left.
  Result<Sample> generated(SearchNode node) const;

  // Sum of the log-probabilities of all tokens behind the prompt, but for unscored ones: the
  // model's own (log-softmax of its logits), in nats.
  Result<double> logprob(SearchNode node) const;
  // logprob(), or the number that the caller gave.
  Result<double> score(SearchNode node) const;
  Result<void> set_score(SearchNode node, double score);

  // The k likeliest tokens behind a node, best first, equal ones by id; fewer where fewer were kept
  // or are above -infinity. kBadInput where the node's end is not computed.
  Result<std::vector<TokenLogprob>> next_tokens(SearchNode node, int k) const;

  // The node and all below it go; a parent without children is a leaf again. The root stays as long
  // as the search. O(1) beside the parent's children; memory of more than a few nodes comes back
  // with the next calls, all of it with the next step().
  Result<void> prune(SearchNode node);

  // Only the path from the root to the node stays, and what is below it. O(path and the branches
  // beside it); memory comes back as prune() says.
  Result<void> commit(SearchNode node);

  bool is_live(SearchNode node) const;  // a node of this search that was not pruned
  Result<bool> is_leaf(SearchNode node) const;
  Result<SearchNode> parent(SearchNode node) const;            // kBadInput of the root
  Result<std::vector<TokenId>> tokens(SearchNode node) const;  // its own
  Result<std::vector<TokenId>> path(SearchNode node) const;    // from the prompt's end to its own

  SearchTree snapshot() const;
  SearchKv kv();                                      // O(tree)
  const CacheFacts& cache() const { return cache_; }  // of the prompt
  // Steps that computed something since the prompt was computed.
  int64_t decode_steps() const { return decode_steps_; }
  Engine& engine() const { return *engine_; }

 private:
  static constexpr uint32_t kNone = ~uint32_t{0};
  struct Work;
  struct Node;
  // Tokens of a node that go through the model in one pass.
  struct Turn {
    uint32_t node;
    int32_t n;
  };

  Search(Engine& engine, std::span<const TokenId> prompt, uint64_t salt, CacheFacts cache);

  Result<uint32_t> find(SearchNode node) const;
  SearchNode handle(uint32_t index) const;
  Position end(uint32_t index) const;
  uint32_t origin(uint32_t index) const;
  void append_path(uint32_t index, uint32_t above, std::vector<TokenId>& out) const;
  uint32_t new_node(uint32_t parent);
  void reclaim(size_t most);

  void gather();
  void prime(uint32_t index);
  uint32_t unfinished_above(uint32_t index) const;
  void open_sequence(uint32_t index);
  static bool wants(const Node& node, size_t token);
  void run_turns(std::span<const Turn> turns);
  Result<void> try_run(std::span<const Turn> turns);
  std::span<const float> logits(size_t piece, size_t i) const;
  void take(const Turn& turn, size_t piece);
  void take_likeliest(std::span<const Turn> turns);
  void choose(uint32_t index, std::span<const float> logits);
  void end_work(uint32_t index);
  void fail(uint32_t index, const Error& error);

  Engine* engine_;  // null where moved from
  KvScope scope_;
  CacheFacts cache_;
  std::deque<Node> nodes_;
  std::vector<uint32_t> free_;
  std::vector<uint32_t> working_;   // nodes with work, as they got it
  std::vector<uint32_t> detached_;  // pruned, with all below them, and not yet released
  int64_t decode_steps_ = 0;

  // Scratch of a step.
  std::vector<uint32_t> ready_;  // nodes with tokens to compute, whose past is computed
  std::vector<Turn> turns_;
  std::vector<Piece> pieces_;
  std::vector<uint32_t> wanted_;
  std::vector<std::vector<Candidate>> candidates_;  // by worker
};

}  // namespace banyan
