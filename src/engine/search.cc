// SPDX-License-Identifier: Apache-2.0
#include "engine/search.h"

#include <algorithm>
#include <unordered_set>

#include <fmt/format.h>

#include "base/check.h"
#include "engine/generation.h"
#include "sample/scan.h"

namespace banyan {
namespace {

constexpr size_t kReclaimedAtOnce = 8;  // nodes: so that no call takes long
constexpr int32_t kScoredRows = 64;     // of a leaf in a pass: each needs its logits
constexpr int kMostForks = 65536;

Result<void> check_tokens(std::span<const TokenId> tokens, int32_t vocabulary) {
  for (const TokenId token : tokens) {
    if (token >= 0 && token < vocabulary) continue;
    return bad_input(
        fmt::format("token {} is not in the vocabulary of {} tokens", token, vocabulary));
  }
  return {};
}

double logprob_of(std::span<const float> logits, TokenId token) {
  return logits[token] - log_sum_exp(logits, max_value(logits));
}

Error only_some_kept(size_t n) {
  return bad_input(fmt::format(
      "of what may follow only the {} likeliest tokens were kept, by keep_next; give one of these",
      n));
}

}  // namespace

// What a leaf is doing.
struct Search::Work {
  Request request;
  Sample sample;
  std::optional<Generation> generation;  // from the first choice on
  int keep_next = 0;
};

struct Search::Node {
  uint32_t generation = 1;
  uint32_t parent = kNone;
  uint32_t epoch = 0;  // of its children: whose `since` is another was cut off by commit()
  uint32_t since = 0;
  Position begin = 0;  // tokens above it
  std::vector<uint32_t> children;
  std::vector<TokenId> tokens;
  std::vector<bool> unscored;  // of each: whether its log-probability is still to be added
  size_t computed = 0;         // of them have KV
  SeqId seq = kNoSequence;     // ends where `computed` does; none before the node is first run
  double logprob = 0;          // of the path
  std::optional<double> score;
  std::unique_ptr<Work> work;
  // Of the last extension.
  Sample sample;
  std::optional<Error> error;
  // Of what follows the last token, once it is computed: one of the two.
  std::vector<float> logits;
  std::vector<TokenLogprob> likeliest;

  size_t pending() const { return tokens.size() - computed; }
  void append(TokenId token, bool to_be_scored) {
    tokens.push_back(token);
    unscored.push_back(to_be_scored);
  }
  void add_score(size_t token, double logprob_of_token) {
    logprob += logprob_of_token;
    unscored[token] = false;
  }
  // Of a token behind the last computed one; none if it is not among those kept.
  std::optional<double> logprob_of_next(TokenId token) const {
    if (!logits.empty()) return logprob_of(logits, token);
    const auto kept = std::ranges::find(likeliest, token, &TokenLogprob::token);
    return kept == likeliest.end() ? std::nullopt : std::optional<double>(kept->logprob);
  }
};

// --- a search ------------------------------------------------------------------------------------

Result<Search> Search::open(Engine& engine, std::span<const TokenId> prompt, uint64_t salt) {
  Request request;
  request.prompt.assign(prompt.begin(), prompt.end());
  request.salt = salt;
  auto cache = engine.explain(request);
  if (!cache) return cache.error();
  return Search(engine, prompt, salt, *std::move(cache));
}

Search::Search(Engine& engine, std::span<const TokenId> prompt, uint64_t salt, CacheFacts cache)
    : engine_(&engine), scope_{.salt = salt}, cache_(std::move(cache)) {
  Node& root = nodes_.emplace_back();
  for (const TokenId token : prompt) root.append(token, false);
  const auto most = static_cast<int32_t>(prompt.size()) - 1;  // the last one's logits are needed
  const KvTree::Opened opened = engine.tree().open(prompt, most, scope_);
  root.seq = opened.seq;
  root.computed = opened.matched;
}

Search::Search(Search&& other) noexcept
    : engine_(std::exchange(other.engine_, nullptr)),
      scope_(other.scope_),
      cache_(std::move(other.cache_)),
      nodes_(std::move(other.nodes_)),
      free_(std::move(other.free_)),
      working_(std::move(other.working_)),
      detached_(std::move(other.detached_)),
      decode_steps_(other.decode_steps_) {}

Search::~Search() {
  if (engine_ == nullptr) return;
  reclaim(nodes_.size());
  for (size_t i = nodes_.size(); i-- > 0;) {
    if (nodes_[i].seq == kNoSequence) continue;
    if (engine_->options().retention) {
      engine_->tree().close(nodes_[i].seq);
    } else {
      engine_->tree().drop(nodes_[i].seq);
    }
  }
}

// --- the tree ------------------------------------------------------------------------------------

SearchNode Search::handle(uint32_t index) const { return {index, nodes_[index].generation}; }

bool Search::is_live(SearchNode node) const {
  if (node.index >= nodes_.size() || nodes_[node.index].generation != node.generation) return false;
  if (detached_.empty()) return true;
  for (uint32_t i = node.index; i != 0; i = nodes_[i].parent) {
    if (nodes_[i].parent == kNone || nodes_[i].since != nodes_[nodes_[i].parent].epoch)
      return false;
  }
  return true;
}

Result<uint32_t> Search::find(SearchNode node) const {
  if (is_live(node)) return node.index;
  return bad_input(
      fmt::format("node {} of generation {} is not in this search: it was pruned, or never was; "
                  "use one that fork() gave and that still stands",
                  node.index, node.generation));
}

Position Search::end(uint32_t index) const {
  return nodes_[index].begin + static_cast<Position>(nodes_[index].tokens.size());
}

// The node whose last token is the last one of the path to `index`.
uint32_t Search::origin(uint32_t index) const {
  while (nodes_[index].tokens.empty()) index = nodes_[index].parent;
  return index;
}

// The tokens of the path from below `above` to `index`.
void Search::append_path(uint32_t index, uint32_t above, std::vector<TokenId>& out) const {
  std::vector<uint32_t> nodes;
  for (; index != above; index = nodes_[index].parent) nodes.push_back(index);
  for (size_t i = nodes.size(); i-- > 0;) {
    const std::vector<TokenId>& tokens = nodes_[nodes[i]].tokens;
    out.insert(out.end(), tokens.begin(), tokens.end());
  }
}

uint32_t Search::new_node(uint32_t parent) {
  if (free_.empty()) {
    free_.push_back(static_cast<uint32_t>(nodes_.size()));
    nodes_.emplace_back();
  }
  const uint32_t index = free_.back();
  free_.pop_back();
  Node& node = nodes_[index];
  node.parent = parent;
  node.since = nodes_[parent].epoch;
  node.begin = end(parent);
  node.logprob = nodes_[parent].logprob;
  nodes_[parent].children.push_back(index);
  return index;
}

Result<std::vector<SearchNode>> Search::fork(SearchNode parent, int n) {
  const auto index = find(parent);
  if (!index) return index.error();
  if (n < 1 || n > kMostForks) {
    return bad_input(fmt::format("a fork has {} branches, expected 1 to {}", n, kMostForks));
  }
  if (nodes_[*index].work) {
    return bad_input(fmt::format("node {} has work left; fork it when that is done", *index));
  }
  reclaim(kReclaimedAtOnce);
  std::vector<SearchNode> children;
  children.reserve(n);
  for (int i = 0; i < n; ++i) children.push_back(handle(new_node(*index)));
  return children;
}

Result<void> Search::prune(SearchNode node) {
  const auto index = find(node);
  if (!index) return index.error();
  if (*index == 0) {
    return bad_input("the root cannot be pruned; end the search, or prune what is below it");
  }
  std::erase(nodes_[nodes_[*index].parent].children, *index);
  nodes_[*index].parent = kNone;
  detached_.push_back(*index);
  reclaim(kReclaimedAtOnce);
  return {};
}

Result<void> Search::commit(SearchNode node) {
  const auto index = find(node);
  if (!index) return index.error();
  for (uint32_t i = *index; i != 0; i = nodes_[i].parent) {
    Node& parent = nodes_[nodes_[i].parent];
    std::erase(parent.children, i);
    detached_.insert(detached_.end(), parent.children.begin(), parent.children.end());
    parent.children.assign(1, i);
    nodes_[i].since = ++parent.epoch;
  }
  return {};
}

// Frees up to `most` nodes of those that are cut off.
void Search::reclaim(size_t most) {
  for (; most > 0 && !detached_.empty(); --most) {
    const uint32_t index = detached_.back();
    detached_.pop_back();
    Node& node = nodes_[index];
    detached_.insert(detached_.end(), node.children.begin(), node.children.end());
    if (node.seq != kNoSequence) engine_->tree().drop(node.seq);
    if (node.work) std::erase(working_, index);
    Node next;
    next.generation = node.generation + 1;
    next.epoch = node.epoch + 1;  // children that wait to be freed are not the next one's
    node = std::move(next);
    free_.push_back(index);
  }
}

// --- what is asked -------------------------------------------------------------------------------

Result<void> Search::extend(SearchNode leaf, Extension extension) {
  const auto index = find(leaf);
  if (!index) return index.error();
  Node& node = nodes_[*index];
  const Extension& e = extension;
  if (node.work) return bad_input(fmt::format("node {} has work left; run it first", *index));
  if (!node.children.empty()) {
    return bad_input(
        fmt::format("node {} has branches; extend one of these, or fork it again", *index));
  }
  const int32_t vocabulary = engine_->tokenizer().size();
  BANYAN_TRY(check_tokens(e.tokens, vocabulary));
  if (e.unscored < 0 || e.unscored > std::ssize(e.tokens)) {
    return bad_input(fmt::format("unscored is {}, expected 0 to the {} tokens given", e.unscored,
                                 e.tokens.size()));
  }
  if (e.max_tokens < 0) {
    return bad_input(fmt::format("max_tokens is {}, expected at least 0", e.max_tokens));
  }
  if (e.keep_next < 0 || e.keep_next > vocabulary) {
    return bad_input(fmt::format("keep_next is {}, expected 0 to {}", e.keep_next, vocabulary));
  }
  if (std::ranges::any_of(e.stop, &std::string::empty)) {
    return bad_input("a stop string is empty, expected some text");
  }
  if (e.max_tokens > 0) BANYAN_TRY(validate(e.sampler, vocabulary));
  const int64_t length = int64_t{end(*index)} + std::ssize(e.tokens);
  const int64_t room = engine_->context() - length;
  if (room < 0 || (room == 0 && e.max_tokens > 0 && engine_->context_binds())) {
    return bad_input(fmt::format(
        "the branch has {} tokens with those given, the context {}; prune it or raise -c", length,
        engine_->context()));
  }
  const Node& last = nodes_[origin(*index)];
  const bool scores_next = !e.tokens.empty() && e.unscored == 0;
  const bool chooses_next = e.tokens.empty() && e.max_tokens > 0;
  if (last.pending() == 0 && ((scores_next && !last.logprob_of_next(e.tokens[0])) ||
                              (chooses_next && last.logits.empty()))) {
    return only_some_kept(last.likeliest.size());
  }

  reclaim(kReclaimedAtOnce);
  auto work = std::make_unique<Work>();
  work->request.sampler = std::move(extension.sampler);
  work->request.max_tokens = engine_->context_binds()
                                 ? static_cast<int>(std::min<int64_t>(e.max_tokens, room))
                                 : e.max_tokens;
  work->request.ignore_eos = e.ignore_eos;
  work->request.stop = std::move(extension.stop);
  work->keep_next = e.keep_next;
  for (int i = 0; i < std::ssize(e.tokens); ++i) node.append(e.tokens[i], i >= e.unscored);
  node.sample = {};
  node.error.reset();
  node.work = std::move(work);
  working_.push_back(*index);
  return {};
}

Result<void> Search::join(SearchNode leaf, SearchNode other) {
  const auto to = find(leaf);
  if (!to) return to.error();
  const auto from = find(other);
  if (!from) return from.error();
  std::unordered_set<uint32_t> above = {0};
  for (uint32_t i = *to; i != 0; i = nodes_[i].parent) above.insert(i);
  uint32_t parted = *from;
  while (!above.contains(parted)) parted = nodes_[parted].parent;
  Extension extension;
  append_path(*from, parted, extension.tokens);
  if (extension.tokens.empty()) {
    return bad_input(fmt::format(
        "node {} has no text that node {} has not; join one of another branch", *from, *to));
  }
  return extend(leaf, std::move(extension));
}

Result<Sample> Search::generated(SearchNode node) const {
  const auto index = find(node);
  if (!index) return index.error();
  const Node& n = nodes_[*index];
  if (n.error) return *n.error;
  return n.work ? n.work->sample : n.sample;
}

Result<double> Search::logprob(SearchNode node) const {
  const auto index = find(node);
  if (!index) return index.error();
  return nodes_[*index].logprob;
}

Result<double> Search::score(SearchNode node) const {
  const auto index = find(node);
  if (!index) return index.error();
  return nodes_[*index].score.value_or(nodes_[*index].logprob);
}

Result<void> Search::set_score(SearchNode node, double score) {
  const auto index = find(node);
  if (!index) return index.error();
  if (!std::isfinite(score)) return bad_input("a score is not finite, expected a number");
  nodes_[*index].score = score;
  return {};
}

Result<std::vector<TokenLogprob>> Search::next_tokens(SearchNode node, int k) const {
  const auto index = find(node);
  if (!index) return index.error();
  if (k < 1) return bad_input(fmt::format("{} tokens are asked for, expected at least 1", k));
  const Node& n = nodes_[origin(*index)];
  if (n.pending() > 0) {
    return bad_input(
        fmt::format("the end of node {} is not computed yet; extend it, and step", *index));
  }
  if (n.logits.empty()) {
    return std::vector(n.likeliest.begin(),
                       n.likeliest.begin() + std::min<size_t>(k, n.likeliest.size()));
  }
  std::vector<Candidate> candidates;
  std::vector<TokenLogprob> likeliest;
  top_logprobs(n.logits, k, candidates, likeliest);
  return likeliest;
}

Result<bool> Search::is_leaf(SearchNode node) const {
  const auto index = find(node);
  if (!index) return index.error();
  return nodes_[*index].children.empty();
}

Result<SearchNode> Search::parent(SearchNode node) const {
  const auto index = find(node);
  if (!index) return index.error();
  if (*index == 0) return bad_input("the root has no parent");
  return handle(nodes_[*index].parent);
}

Result<std::vector<TokenId>> Search::tokens(SearchNode node) const {
  const auto index = find(node);
  if (!index) return index.error();
  return nodes_[*index].tokens;
}

Result<std::vector<TokenId>> Search::path(SearchNode node) const {
  const auto index = find(node);
  if (!index) return index.error();
  std::vector<TokenId> tokens;
  append_path(*index, 0, tokens);
  return tokens;
}

SearchTree Search::snapshot() const {
  SearchTree tree;
  std::vector<std::pair<uint32_t, int32_t>> open = {{0, -1}};
  while (!open.empty()) {
    const auto [index, parent] = open.back();
    open.pop_back();
    const Node& node = nodes_[index];
    const auto place = static_cast<int32_t>(tree.nodes.size());
    tree.nodes.push_back({handle(index), parent, node.tokens, node.score.value_or(node.logprob),
                          node.children.empty()});
    for (size_t i = node.children.size(); i-- > 0;) open.emplace_back(node.children[i], place);
  }
  return tree;
}

SearchKv Search::kv() {
  reclaim(nodes_.size());
  const KvTree& tree = engine_->tree();
  SearchKv kv;
  std::unordered_set<NodeId> seen = {0};
  std::unordered_set<PanelId> panels;
  std::vector<std::pair<uint32_t, int64_t>> open = {{0, 0}};
  while (!open.empty()) {
    auto [index, above] = open.back();
    open.pop_back();
    const Node& node = nodes_[index];
    kv.tokens += std::ssize(node.tokens) - static_cast<int64_t>(node.pending());
    above += static_cast<int64_t>(node.computed);
    if (node.children.empty()) kv.path_tokens += above;
    for (const uint32_t child : node.children) open.emplace_back(child, above);
    if (node.seq == kNoSequence) continue;
    for (NodeId id = tree.leaf(node.seq); seen.insert(id).second; id = tree.node(id).parent) {
      for (const PanelRef& ref : tree.node(id).refs) panels.insert(ref.panel);
    }
  }
  kv.bytes = panels.size() * engine_->pool().panel_bytes();
  kv.bytes_peak = engine_->pool().peak_bytes();
  return kv;
}

// --- the step ------------------------------------------------------------------------------------

bool Search::step() {
  reclaim(nodes_.size());
  const bool decodes = nodes_[0].pending() == 0;
  gather();
  const auto n_single =
      std::ranges::stable_partition(ready_, [this](uint32_t i) { return nodes_[i].pending() == 1; })
          .begin() -
      ready_.begin();
  const auto most_rows = static_cast<int64_t>(engine_->steps().max_rows());
  for (int64_t i = 0; i < std::ssize(ready_) && (i == 0 || i < n_single);) {
    turns_.clear();
    for (int64_t rows = most_rows; rows > 0 && i < std::ssize(ready_); ++i) {
      const Node& node = nodes_[ready_[i]];
      auto n = std::min(rows, static_cast<int64_t>(node.pending()));
      const auto pending = node.unscored.begin() + static_cast<int64_t>(node.computed);
      if (std::find(pending, node.unscored.end(), true) != node.unscored.end()) {
        n = std::min<int64_t>(n, kScoredRows);
      }
      turns_.push_back({ready_[i], static_cast<int32_t>(n)});
      rows -= n;
    }
    run_turns(turns_);
  }
  if (decodes && !ready_.empty()) ++decode_steps_;
  std::erase_if(working_, [this](uint32_t i) { return !nodes_[i].work; });
  return !working_.empty();
}

// Nodes that have tokens to compute: leaves that have work, and above leaves whose past is not
// computed what has to be before.
void Search::gather() {
  ready_.clear();
  for (const uint32_t index : working_) prime(index);
  std::ranges::sort(ready_);
  const auto twice = std::ranges::unique(ready_);
  ready_.erase(twice.begin(), twice.end());
}

// The highest node above `index` that has tokens to compute; kNone if all above is computed.
uint32_t Search::unfinished_above(uint32_t index) const {
  uint32_t found = kNone;
  while (index != 0) {
    index = nodes_[index].parent;
    if (nodes_[index].tokens.empty()) continue;
    if (nodes_[index].pending() == 0) break;
    found = index;
  }
  return found;
}

// Requires that all above the node is computed.
void Search::open_sequence(uint32_t index) {
  Node& node = nodes_[index];
  if (node.seq != kNoSequence) return;
  node.seq = engine_->tree().fork(nodes_[origin(node.parent)].seq);
}

// Sees to it that a leaf with work is ready, or what it waits for.
void Search::prime(uint32_t index) {
  Node& node = nodes_[index];
  if (node.seq == kNoSequence) {
    if (const uint32_t above = unfinished_above(index); above != kNone) {
      open_sequence(above);
      ready_.push_back(above);
      return;
    }
  }
  Work& work = *node.work;
  // The end of what is computed, behind which the next token is scored or chosen.
  const Node& last = node.computed > 0 || index == 0 ? node : nodes_[origin(node.parent)];
  if (node.pending() > 0 && node.unscored[node.computed]) {
    const std::optional<double> logprob = last.logprob_of_next(node.tokens[node.computed]);
    if (!logprob) return fail(index, only_some_kept(last.likeliest.size()));
    node.add_score(node.computed, *logprob);
  }
  if (node.pending() == 0) {
    if (work.request.max_tokens == 0) return end_work(index);
    if (last.logits.empty()) return fail(index, only_some_kept(last.likeliest.size()));
    choose(index, last.logits);
    if (!node.work) return;
  }
  node.logits = {};
  node.likeliest.clear();
  open_sequence(index);
  ready_.push_back(index);
}

// Whether the logits behind an own token are read.
bool Search::wants(const Node& node, size_t token) {
  return token + 1 == node.tokens.size() || node.unscored[token + 1];
}

// What fails for one of several is run again by halves, until it fails for that one alone.
void Search::run_turns(std::span<const Turn> turns) {
  const Result<void> done = try_run(turns);
  if (!done) {
    if (turns.size() == 1) return fail(turns[0].node, done.error());
    run_turns(turns.first(turns.size() / 2));
    run_turns(turns.subspan(turns.size() / 2));
    return;
  }
  for (const Turn& turn : turns) nodes_[turn.node].computed += turn.n;
  take_likeliest(turns);
  for (size_t i = 0; i < turns.size(); ++i) take(turns[i], i);
}

// Either all nodes have the KV of their turns, or all are as they were.
Result<void> Search::try_run(std::span<const Turn> turns) {
  size_t rows = 0;
  for (const Turn& turn : turns) rows += turn.n;
  wanted_.clear();
  wanted_.reserve(rows);  // pieces point into it
  pieces_.clear();
  for (const Turn& turn : turns) {
    const Node& node = nodes_[turn.node];
    const size_t first = wanted_.size();
    for (uint32_t i = 0; i < turn.n; ++i) {
      if (wants(node, node.computed + i)) wanted_.push_back(i);
    }
    pieces_.push_back({node.seq, std::span(node.tokens).subspan(node.computed, turn.n),
                       std::span(wanted_).subspan(first)});
  }
  KvTree& tree = engine_->tree();
  const auto take_back = [&] {
    for (const Turn& turn : turns) {
      const Node& node = nodes_[turn.node];
      const auto length = node.begin + static_cast<int32_t>(node.computed);
      if (tree.length(node.seq) > length) tree.truncate(node.seq, length);
    }
  };
  try {
    Result<void> done = engine_->steps().run(pieces_);
    if (!done) take_back();
    return done;
  } catch (...) {
    take_back();
    throw;
  }
}

std::span<const float> Search::logits(size_t piece, size_t i) const {
  return engine_->steps().logits(piece, i).first(engine_->tokenizer().size());
}

// The likeliest tokens behind those nodes that keep these alone, by all workers: a pass over the
// vocabulary for each beam would be a thirtieth of a step.
void Search::take_likeliest(std::span<const Turn> turns) {
  const auto keeps = [this](const Turn& turn) {
    const Node& node = nodes_[turn.node];
    return node.work && node.pending() == 0 ? node.work->keep_next : 0;
  };
  ThreadPool& threads = engine_->threads();
  candidates_.resize(threads.size());
  // Nothing allocates below.
  for (auto& candidates : candidates_) candidates.reserve(engine_->tokenizer().size());
  for (const Turn& turn : turns) nodes_[turn.node].likeliest.reserve(keeps(turn));
  const auto n = static_cast<int64_t>(turns.size());
  threads.parallel_for(n, 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t i = begin; i < end; ++i) {
      if (const int k = keeps(turns[i]); k > 0) {
        top_logprobs(logits(i, pieces_[i].wanted.size() - 1), k, candidates_[worker],
                     nodes_[turns[i].node].likeliest);
      }
    }
  });
}

// Takes what the last pass has computed of a node.
void Search::take(const Turn& turn, size_t piece) {
  Node& node = nodes_[turn.node];
  const size_t begin = node.computed - turn.n;
  const std::span<const uint32_t> wanted = pieces_[piece].wanted;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const std::span<const float> logits = this->logits(piece, i);
    const size_t next = begin + wanted[i] + 1;
    if (next < node.tokens.size()) {
      node.add_score(next, logprob_of(logits, node.tokens[next]));
      continue;
    }
    if (node.work && node.work->request.max_tokens > 0) {
      choose(turn.node, logits);
    } else if (node.work) {
      end_work(turn.node);
    }
    if (node.pending() > 0) {
      node.likeliest.clear();
    } else if (node.likeliest.empty()) {
      node.logits.assign(logits.begin(), logits.end());
    }
  }
}

// The next token of a leaf that samples, unless its text ends here.
void Search::choose(uint32_t index, std::span<const float> logits) {
  Node& node = nodes_[index];
  Work& work = *node.work;
  if (!work.generation) {
    std::vector<TokenId> past = nodes_[0].tokens;
    append_path(index, 0, past);
    work.generation.emplace(engine_->tokenizer(), work.request, 0, past, Listener{}, work.sample);
  }
  const size_t n_before = work.sample.tokens.size();
  const TokenId token = work.generation->choose(logits);
  if (work.sample.tokens.size() > n_before) {
    node.append(work.sample.tokens.back(), false);
    node.logprob += work.sample.logprobs.back();
  }
  if (token == kNoToken) end_work(index);
}

void Search::end_work(uint32_t index) {
  Node& node = nodes_[index];
  if (node.work->generation) node.work->generation->finish();
  node.sample = std::move(node.work->sample);
  node.work.reset();
}

// Ends a leaf's work, or of all leaves below a node that they wait for.
void Search::fail(uint32_t index, const Error& error) {
  for (const uint32_t leaf : working_) {
    Node& node = nodes_[leaf];
    if (!node.work || (leaf != index && unfinished_above(leaf) != index)) continue;
    node.error = error;
    node.work.reset();
  }
}

}  // namespace banyan
