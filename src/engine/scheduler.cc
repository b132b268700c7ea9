// SPDX-License-Identifier: Apache-2.0
#include "engine/scheduler.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>
#include <tuple>

#include "base/clock.h"
#include "engine/cache_facts.h"
#include "engine/draft_rows.h"
#include "engine/generation.h"
#include "sample/draft/lookup_drafter.h"

namespace banyan {
namespace {

// What prompts may add to a step in which others decode. They may wait twice as long for a token;
// the rest is for predictions that are wrong.
constexpr double kPromptMs = 100;
constexpr int64_t kLeastRows = kPanelTokens;   // of a prompt in a step, however long that takes
constexpr int kMostOvertaken = 64;             // later requests that may come in before one
constexpr size_t kWindow = 128;                // requests of the line whose prefixes are looked up
constexpr int64_t kGrowth = 4 * kPanelTokens;  // tokens that an answer should have room for
constexpr int kSavedByWaiting = kPanelTokens;  // tokens for which it is worth while to wait

constexpr int64_t kMostDrafted = 15;  // tokens that follow each other
// Where drafts must not depend on times: rows that cost as much as a step before its first one, and
// the least probability at which a model drafts one token more.
constexpr double kAssumedStep = 4;
constexpr double kLeastGain = 0.3;

// Panels that the positions [begin, end) may need beyond those of another sequence's.
int64_t panels_for(int64_t begin, int64_t end) {
  return end <= begin ? 0 : (end - 1) / kPanelTokens - begin / kPanelTokens + 1;
}

}  // namespace

struct Scheduler::Stream {
  Stream(Job& of, int number) : job(of), index(number) {}

  Job& job;
  int index;
  std::vector<TokenId> tokens;  // prompt and what was chosen
  int32_t computed = 0;         // of them have KV; all but this sequence's own since open()
  int32_t matched = 0;          // of them had it in open()
  SeqId seq = 0;                // where running
  bool running = false;
  bool complete = false;
  bool anew = false;                     // to be computed without a match
  std::optional<Generation> generation;  // from the first open() on
  Sample sample;
  int32_t cached = 0;  // tokens that the tree holds, looked up in step cached_at
  uint64_t cached_at = 0;
  LookupDrafter lookup;
  DraftModel::Text model_text;
  Draft draft;
  DraftRows rows;  // of a step with a draft

  std::span<const TokenId> rest() const { return std::span(tokens).subspan(computed); }
  // The last token is always computed: its logits choose the next one.
  std::span<const TokenId> matchable() const { return std::span(tokens).first(tokens.size() - 1); }
  bool has_begun() const { return !sample.tokens.empty(); }
  bool decodes() const { return has_begun() && rest().size() == 1; }
};

struct Scheduler::Job {
  RequestId id = 0;
  const Tokenizer* tokenizer = nullptr;
  Request request;  // its prompt is in the streams
  Listener listener;
  Reply reply;
  int64_t submitted_ns = 0;
  int64_t admitted_ns = 0;  // 0: not yet
  int64_t first_token_ns = 0;
  int overtaken = 0;           // later requests that came in before it
  RequestId overtaken_by = 0;  // the last of them
  bool cancelled = false;
  bool done = false;
  int n_incomplete = 0;                          // streams
  std::vector<std::unique_ptr<Stream>> streams;  // the first alone until the prompt is computed

  KvScope scope() const { return {.salt = request.salt}; }
};

std::pair<RequestId, int> Scheduler::place_in_line(const Stream* stream) {
  return {stream->job.id, stream->index};
}

Scheduler::Scheduler(PanelPool& pool, KvTree& tree, StepRunner& steps, bool kv_exact,
                     bool retention, Speculation speculation, DraftModel* draft_model)
    : pool_(pool),
      tree_(tree),
      steps_(steps),
      kv_exact_(kv_exact),
      retention_(retention),
      speculation_(speculation),
      draft_model_(draft_model),
      indices_(steps.max_rows()) {
  running_.reserve(steps.max_rows());
  std::iota(indices_.begin(), indices_.end(), 0);
}

Scheduler::~Scheduler() = default;

// --- requests ------------------------------------------------------------------------------------

RequestId Scheduler::submit(const Tokenizer& tokenizer, Request request, const Listener& listener) {
  const RequestId id = next_id_++;
  std::map<RequestId, Job> one;
  Job& job = one[id];
  job.id = id;
  job.tokenizer = &tokenizer;
  job.listener = listener;
  job.submitted_ns = now_ns();
  job.reply.prompt_tokens = static_cast<int>(request.prompt.size());
  job.n_incomplete = request.samples();
  job.streams.reserve(request.samples());
  Stream& first = *job.streams.emplace_back(std::make_unique<Stream>(job, 0));
  first.tokens = std::move(request.prompt);
  job.request = std::move(request);
  waiting_.push_back(&first);
  jobs_.merge(one);
  no_room_ = false;
  return id;
}

CacheFacts Scheduler::explain(const Tokenizer& tokenizer, std::span<const TokenId> prompt,
                              uint64_t salt) const {
  CacheFacts facts = cache_facts(tree_, tokenizer, prompt, {.salt = salt});
  facts.exact = kv_exact_;
  return facts;
}

void Scheduler::cancel(RequestId id) {
  const auto found = jobs_.find(id);
  if (found == jobs_.end()) return;
  found->second.cancelled = true;
  any_cancelled_ = true;
}

void Scheduler::drop(RequestId id) {
  const auto found = jobs_.find(id);
  if (found == jobs_.end()) return;
  abandon(found->second);
  erase_done();
}

// Listeners may throw; the others' results of the step must be taken all the same.
void Scheduler::guarded(Job& job, FunctionRef<void()> work) {
  try {
    work();
  } catch (...) {
    if (!thrown_) thrown_ = std::current_exception();
    abandon(job);
  }
}

void Scheduler::finish(Stream& stream, std::vector<Completion>& finished) {
  close(stream);
  stream.complete = true;
  if (stream.generation) stream.generation->finish();
  if (--stream.job.n_incomplete == 0) complete(stream.job, finished);
}

void Scheduler::complete(Job& job, std::vector<Completion>& finished) {
  const int64_t end = now_ns();
  const int64_t first_token = job.first_token_ns > 0 ? job.first_token_ns : end;
  const int64_t admitted = job.admitted_ns > 0 ? job.admitted_ns : first_token;
  std::vector<Sample> samples;
  for (auto& stream : job.streams) samples.push_back(std::move(stream->sample));
  std::ranges::stable_sort(samples, std::ranges::greater(), &Sample::mean_logprob);
  samples.resize(std::min<size_t>(samples.size(), job.request.n));
  Reply& reply = job.reply;
  static_cast<Sample&>(reply) = samples.front();
  reply.samples = std::move(samples);
  reply.queue_ms = ms_between(job.submitted_ns, admitted);
  reply.prompt_ms = ms_between(admitted, first_token);
  reply.predicted_ms = ms_between(first_token, end);
  reply.kv_bytes_peak = pool_.peak_bytes();
  if (draft_model_ != nullptr) reply.kv_bytes_peak += draft_model_->pool().peak_bytes();
  reply.kv_exact = kv_exact_;
  reply.cache.exact = kv_exact_;
  finished.push_back({job.id, std::move(reply)});
  job.done = true;
  any_done_ = true;
}

// What an answer has so far is good; without any there is only the error.
void Scheduler::end_early(Stream& stream, const Error& error, std::vector<Completion>& finished) {
  if (stream.has_begun()) {
    stream.sample.note = error.message;
    stream.sample.finish = FinishReason::kLength;
    return finish(stream, finished);
  }
  Job& job = stream.job;
  for (auto& each : job.streams) close(*each);
  finished.push_back({job.id, error});
  job.done = true;
  any_done_ = true;
}

// Ends a request whose steps may not count: what it computed goes, but for what others use by now.
void Scheduler::abandon(Job& job) {
  for (size_t i = job.streams.size(); i-- > 0;) {
    Stream& stream = *job.streams[i];
    if (stream.running) {
      stream.rows.drop(tree_);
      tree_.truncate(stream.seq, std::max(stream.matched, tree_.shared_length(stream.seq)));
    }
    close(stream);
  }
  job.done = true;
  any_done_ = true;
}

void Scheduler::end_cancelled(std::vector<Completion>& finished) {
  if (!std::exchange(any_cancelled_, false)) return;
  for (auto& [id, job] : jobs_) {
    if (!job.cancelled) continue;
    job.n_incomplete = 0;
    for (const auto& stream : job.streams) job.n_incomplete += stream->complete ? 0 : 1;
    for (const auto& stream : job.streams) {
      if (stream->complete || job.done) continue;
      stream->sample.finish = FinishReason::kCancelled;
      guarded(job, [&, &stream = *stream] { finish(stream, finished); });
    }
  }
}

void Scheduler::erase_done() {
  if (!std::exchange(any_done_, false)) return;
  std::erase_if(jobs_, [](const auto& entry) { return entry.second.done; });
}

// --- the line ------------------------------------------------------------------------------------

// Whoever waits longest behind later ones, then who was preempted, then the longest cached prefix,
// then who came first. Null if nobody can be let in now.
Scheduler::Stream* Scheduler::pick() {
  Stream* best = nullptr;
  auto best_rank = std::tuple(false, -1);
  for (Stream* stream : std::span(waiting_).first(std::min(waiting_.size(), kWindow))) {
    if (std::exchange(stream->cached_at, n_steps_) != n_steps_) {
      stream->cached = tree_.matched(stream->matchable(), stream->job.scope());
    }
    const bool held_back = is_held_back(*stream);
    if (stream->job.overtaken >= kMostOvertaken) return held_back ? nullptr : stream;
    const auto rank = std::tuple(stream->has_begun(), stream->cached);
    if (held_back || rank <= best_rank) continue;
    best = stream;
    best_rank = rank;
  }
  return best;
}

// Whether a sequence that is running is about to compute what this one would have to.
bool Scheduler::is_held_back(const Stream& stream) const {
  const std::span<const TokenId> mine = stream.matchable();
  const auto cached = static_cast<size_t>(stream.cached);
  const size_t wanted = cached + kSavedByWaiting;
  if (mine.size() < wanted) return false;
  return std::ranges::any_of(readers_, [&](const Stream* other) {
    if (other->tokens.size() < wanted || other->computed >= wanted) return false;
    if (other->job.request.salt != stream.job.request.salt) return false;
    // First where they are likeliest to differ.
    return std::equal(mine.begin() + cached, mine.begin() + wanted,
                      other->tokens.begin() + cached) &&
           std::equal(mine.begin(), mine.begin() + cached, other->tokens.begin());
  });
}

// Panels that running sequences will need for their prompts, and for the next tokens.
int64_t Scheduler::committed_panels() const {
  int64_t panels = 0;
  for (const Stream* stream : running_) {
    panels += panels_for(stream->computed, std::ssize(stream->tokens)) + 1;
  }
  return panels;
}

// Lets the next one in; null if there is none, or no room for it.
Scheduler::Stream* Scheduler::admit() {
  if (running_.size() == static_cast<size_t>(steps_.max_rows())) return nullptr;
  if (no_room_ && !running_.empty()) return nullptr;
  Stream* stream = pick();
  if (stream == nullptr) return nullptr;
  Job& job = stream->job;
  const int64_t committed = committed_panels();
  open(*stream);
  // Alone it may have everything.
  const int64_t to_come = job.request.max_tokens - std::ssize(stream->sample.tokens);
  const int64_t end = std::ssize(stream->tokens) + std::min(kGrowth, to_come);
  if (running_.size() > 1 &&
      committed + panels_for(stream->computed, end) > int64_t{tree_.available_panels()}) {
    preempt(*stream);
    no_room_ = true;
    return nullptr;
  }
  if (job.admitted_ns > 0) return stream;
  job.admitted_ns = now_ns();
  job.reply.cache = explain(*job.tokenizer, stream->tokens, job.request.salt);
  job.reply.cached_tokens = job.reply.cache.reused_tokens;
  for (const Stream* other : waiting_) {
    if (other->job.id > job.id) break;
    if (std::exchange(other->job.overtaken_by, job.id) != job.id) ++other->job.overtaken;
  }
  return stream;
}

// Positions to have memory for: as many as were asked for and the budget can hold, but no more than
// some thousands of an answer that may become long.
int32_t Scheduler::most_positions(const Job& job) const {
  constexpr int64_t kMostReserved = 4096;
  const int64_t asked =
      job.reply.prompt_tokens + std::min<int64_t>(job.request.max_tokens, kMostReserved);
  return static_cast<int32_t>(
      std::min({asked, int64_t{pool_.capacity()} * kPanelTokens, int64_t{INT32_MAX}}));
}

// Memory for an answer to the prompt in stream.tokens.
void Scheduler::prepare(Stream& stream) {
  const Job& job = stream.job;
  stream.tokens.reserve(most_positions(job) + 1);
  stream.generation.emplace(*job.tokenizer, job.request, stream.index, stream.tokens, job.listener,
                            stream.sample);
}

// From the line into the running ones.
void Scheduler::open(Stream& stream) {
  const int32_t most = most_positions(stream.job);
  if (!stream.generation) prepare(stream);
  steps_.reserve(most);
  const auto max_match =
      static_cast<int32_t>(std::exchange(stream.anew, false) ? 0 : stream.matchable().size());
  const KvTree::Opened opened = tree_.open(stream.tokens, max_match, stream.job.scope());
  stream.seq = opened.seq;
  stream.matched = stream.computed = opened.matched;
  stream.running = true;
  std::erase(waiting_, &stream);
  running_.push_back(&stream);
  tree_.reserve(stream.seq, most);
}

// Out of the line, or out of the running ones; with retention the KV stays as cache.
void Scheduler::close(Stream& stream) {
  if (stream.running) {
    settle_draft(stream);
    if (!retention_) tree_.truncate(stream.seq, tree_.shared_length(stream.seq));
    tree_.close(stream.seq);
    std::erase(running_, &stream);
  } else {
    std::erase(waiting_, &stream);
  }
  if (draft_model_ != nullptr) draft_model_->close(stream.model_text);
  stream.running = false;
  stream.computed = 0;
  no_room_ = false;
}

void Scheduler::wait(Stream& stream) {
  const auto place = std::ranges::lower_bound(waiting_, place_in_line(&stream), {}, &place_in_line);
  waiting_.insert(place, &stream);
}

void Scheduler::preempt(Stream& stream) {
  wait(stream);
  close(stream);
}

// --- the step ------------------------------------------------------------------------------------

bool Scheduler::step(std::vector<Completion>& finished) {
  ++n_steps_;
  end_cancelled(finished);
  gather();
  run(turns_, finished);
  erase_done();
  if (thrown_) std::rethrow_exception(std::exchange(thrown_, nullptr));
  return !jobs_.empty();
}

void Scheduler::gather() {
  turns_.clear();
  readers_.clear();
  for (Stream* stream : running_) {
    if (stream->decodes()) turns_.push_back({stream, 1});
  }
  const size_t n_decode = turns_.size();
  if (speculation_ != Speculation::kOff) draft();
  int64_t rows = steps_.max_rows();
  StepShape shape;
  for (const Turn& turn : turns_) {
    rows -= static_cast<int64_t>(turn.n);
    shape.add(static_cast<int64_t>(turn.n), std::ssize(turn.stream->tokens) + turn.n_drafted);
  }
  double ms = time_.predict_ms(shape);
  const double most_ms = n_decode == 0 ? std::numeric_limits<double>::infinity() : ms + kPromptMs;
  // Adds to a turn what it may have: a share of the rows and of the time that are left.
  const auto grow = [&](Turn& turn, int64_t share) {
    const auto done = turn.stream->computed + static_cast<int64_t>(turn.n);
    const int64_t rest = std::ssize(turn.stream->tokens) - done;
    int64_t n = std::min({rest, rows, std::max(rows / share, kLeastRows)});
    const int64_t least = turns_.size() == n_decode + 1 ? std::min(n, kLeastRows) : 0;
    const double limit = ms + (most_ms - ms) / static_cast<double>(share);
    StepShape more;
    for (;; n = std::max(least, n - n / 8 - 1)) {
      more = shape;
      more.add(n, done + n);
      if (n <= least || time_.predict_ms(more) <= limit) break;
    }
    if (n == 0) return false;
    turn.n += static_cast<size_t>(n);
    rows -= n;
    shape = more;
    ms = time_.predict_ms(shape);
    return true;
  };
  // Each takes half of what is left, so that short prompts need not wait until long ones are done;
  // what nobody needs goes to the first.
  const auto join = [&](Stream& stream) {
    turns_.push_back({&stream, 0});
    if (std::ssize(stream.rest()) >= kSavedByWaiting) readers_.push_back(&stream);
    return grow(turns_.back(), 2);
  };
  for (Stream* stream : running_) {
    if (!stream->decodes()) join(*stream);
  }
  for (Stream* stream = nullptr; rows > 0 && (stream = admit()) != nullptr;) {
    if (!join(*stream)) break;
  }
  for (Turn& turn : std::span(turns_).subspan(n_decode)) grow(turn, 1);
  if (speculation_ != Speculation::kOff) cut_branches();
  std::erase_if(turns_, [](const Turn& turn) { return turn.n == 0; });
}

// Adds drafts to the turns, all of which decode: as much as is worth while.
void Scheduler::draft() {
  const bool measured = speculation_ == Speculation::kAuto;
  const auto milliseconds = [&](std::span<const size_t> lengths) {
    StepShape shape;
    for (size_t i = 0; i < lengths.size(); ++i) {
      const auto n = static_cast<int64_t>(lengths[i]);
      shape.add(1 + n, std::ssize(turns_[i].stream->tokens) + n);
    }
    return measured ? decode_time_.predict_ms(shape)
                    : kAssumedStep + static_cast<double>(shape.rows);
  };
  asked_.clear();
  for (const Turn& turn : turns_) {
    Stream& stream = *turn.stream;
    stream.draft.clear();
    // The step itself chooses one more.
    const int64_t to_come = stream.job.request.max_tokens - std::ssize(stream.sample.tokens) - 1;
    const auto most = static_cast<size_t>(std::min(to_come, kMostDrafted));
    if (speculation_ != Speculation::kDraft) {
      stream.lookup.follow(stream.tokens);
      stream.lookup.draft(stream.tokens, most, stream.draft);
    }
    const double sure = stream.draft.reach.empty() ? 0 : stream.draft.reach.front();
    if (draft_model_ != nullptr && sure < stream.model_text.typical_rate()) {
      asked_.push_back(
          {&stream.model_text, stream.tokens, stream.job.request.salt, most, &stream.draft});
    }
  }
  if (!asked_.empty()) {
    counts_.assign(turns_.size(), 0);
    const double plain_ms = milliseconds(counts_);
    counts_[0] = 1;
    const double row_ms = milliseconds(counts_) - plain_ms;
    const double tokens_per_ms = static_cast<double>(turns_.size()) / plain_ms;
    draft_model_->draft(asked_, [&](double gain, double ms) {
      return measured ? gain > tokens_per_ms * (ms + row_ms) : gain > kLeastGain;
    });
  }
  choose_drafts(milliseconds);
}

// Cuts the drafts down to what is worth while, and adds it to the turns.
void Scheduler::choose_drafts(FunctionRef<double(std::span<const size_t>)> milliseconds) {
  reach_.clear();
  for (const Turn& turn : turns_) reach_.emplace_back(turn.stream->draft.reach);
  chooser_.choose(reach_, steps_.max_rows() - turns_.size(), milliseconds);
  for (size_t i = 0; i < turns_.size(); ++i) {
    if (chooser_.taken(i).empty()) continue;
    Stream& stream = *turns_[i].stream;
    stream.draft.keep(chooser_.taken(i));
    lay_out(turns_[i]);
  }
}

void Scheduler::lay_out(Turn& turn) {
  Stream& stream = *turn.stream;
  stream.rows.lay_out(stream.tokens.back(), stream.draft);
  turn.n_drafted = stream.draft.size();
  turn.n = 1 + turn.n_drafted;
}

// Nothing that is stored is evicted for branches: where panels are short, chains have to do.
void Scheduler::cut_branches() {
  int64_t free = int64_t{pool_.capacity()} - pool_.used();
  for (const Turn& turn : turns_) {
    const int32_t begin = turn.stream->computed;
    free -= panels_for(begin, begin + static_cast<int64_t>(turn.n));
  }
  for (Turn& turn : turns_) {
    Stream& stream = *turn.stream;
    if (turn.n_drafted == 0 || !stream.rows.branches()) continue;
    free -= static_cast<int64_t>(stream.rows.most_panels());
    if (free >= 0) continue;
    free += static_cast<int64_t>(stream.rows.most_panels());
    chain_.clear();
    for (uint32_t token = 0; token < stream.draft.size(); ++token) {
      if (stream.draft.on_chain[token]) chain_.push_back(token);
    }
    stream.draft.keep(chain_);
    lay_out(turn);
  }
}

// Runs turns of distinct streams, as far as these are running, and takes what comes of them.
void Scheduler::run(std::vector<Turn>& turns, std::vector<Completion>& finished) {
  for (;;) {
    std::erase_if(turns, [](const Turn& turn) { return !turn.stream->running; });
    if (turns.empty()) return;
    const Result<void> done = try_run(turns);
    if (done) break;
    // A draft must not cost anybody anything.
    const bool drafted = std::ranges::any_of(turns, [](const Turn& t) { return t.n_drafted > 0; });
    if (drafted) {
      for (Turn& turn : turns) turn.n -= std::exchange(turn.n_drafted, 0);
    } else if (done.error().code == ErrorCode::kFailed) {
      make_room(done.error(), finished);
    } else if (turns.size() == 1) {
      Stream& stream = *turns.front().stream;
      guarded(stream.job, [&] { end_early(stream, done.error(), finished); });
    } else {
      // It is the fault of one of them; the others go on.
      for (const Turn& turn : turns) {
        std::vector<Turn> one = {turn};
        run(one, finished);
      }
      return;
    }
  }
  for (const Turn& turn : turns) {
    if (!turn.stream->running) continue;
    guarded(turn.stream->job, [&] { advance(turn, finished); });
  }
}

// Either all streams have the KV of their turns, or all are as they were.
Result<void> Scheduler::try_run(std::span<Turn> turns) {
  StepShape shape;
  bool decodes = true;
  for (const Turn& turn : turns) {
    const auto n = static_cast<int64_t>(turn.n);
    shape.add(n, turn.stream->computed + n);
    decodes = decodes && turn.stream->decodes();
  }
  const auto take_back = [&] {
    for (const Turn& turn : turns) {
      Stream& stream = *turn.stream;
      stream.rows.drop(tree_);
      if (tree_.length(stream.seq) > stream.computed) tree_.truncate(stream.seq, stream.computed);
    }
  };
  try {
    const int64_t start = now_ns();
    Result<void> done = run_pieces(turns);
    if (done) {
      const double ms = ms_since(start);
      time_.observe(shape, ms);
      if (decodes) decode_time_.observe(shape, ms);
    } else {
      take_back();
    }
    return done;
  } catch (...) {
    take_back();
    throw;
  }
}

// Where it fails, some sequences may have been extended.
Result<void> Scheduler::run_pieces(std::span<Turn> turns) {
  const bool branches = std::ranges::any_of(
      turns, [](const Turn& t) { return t.n_drafted > 0 && t.stream->rows.branches(); });
  pieces_.clear();
  for (Turn& turn : turns) {
    Stream& stream = *turn.stream;
    turn.piece = pieces_.size();
    if (turn.n_drafted > 0) {
      if (branches) BANYAN_TRY(stream.rows.extend(tree_, stream.seq));
      stream.rows.append_pieces(stream.seq, indices_, pieces_);
      continue;
    }
    const std::span<const TokenId> tokens = stream.rest().first(turn.n);
    if (branches) BANYAN_TRY(tree_.extend(stream.seq, tokens));
    // What the last chosen token gives.
    const size_t n_wanted = turn.n == stream.rest().size() ? 1 : 0;
    pieces_.push_back(
        {stream.seq, tokens, std::span(indices_).subspan(turn.n - n_wanted, n_wanted)});
  }
  return branches ? steps_.run_extended(pieces_) : steps_.run(pieces_);
}

// The budget is used up: the youngest goes back into the line.
void Scheduler::make_room(const Error& error, std::vector<Completion>& finished) {
  Stream& youngest = **std::ranges::max_element(running_, {}, &place_in_line);
  if (running_.size() > 1) {
    ++youngest.job.reply.preemptions;
    preempt(youngest);
  } else if (is_scattered(youngest)) {
    youngest.anew = true;
    preempt(youngest);
  } else {
    guarded(youngest.job, [&] { end_early(youngest, error, finished); });
  }
}

// Whether a sequence takes more panels than its length needs: each part of it that was matched or
// is shared may leave the rest of a panel empty.
bool Scheduler::is_scattered(const Stream& stream) {
  path_.clear();
  tree_.path(stream.seq, path_);
  int64_t panels = 0;
  std::optional<PanelId> last;
  for (const NodeId id : path_) {
    for (const PanelRef& ref : tree_.node(id).refs) {
      if (last != ref.panel) ++panels;
      last = ref.panel;
    }
  }
  return panels > panels_for(0, stream.computed);
}

// Takes what a step has computed of a stream.
void Scheduler::advance(const Turn& turn, std::vector<Completion>& finished) {
  Stream& stream = *turn.stream;
  Job& job = stream.job;
  const bool reads_prompt = !stream.has_begun();
  stream.computed += static_cast<int32_t>(turn.n - turn.n_drafted);
  const auto* on_prompt = job.listener.on_prompt;
  if (goes_on(job) && reads_prompt && on_prompt != nullptr &&
      !(*on_prompt)(stream.computed, job.reply.prompt_tokens)) {
    cancel(job.id);
  }
  if (job.cancelled) return settle_draft(stream);
  if (!stream.rest().empty()) return;
  if (turn.n > 1 + turn.n_drafted) no_room_ = false;  // others may find more of their prompts
  if (!reads_prompt) return verify(turn, finished);
  const std::span<const float> logits = steps_.logits(turn.piece, 0);
  job.first_token_ns = now_ns();
  fork_samples(stream);
  for (const auto& each : job.streams) choose(*each, logits, finished);
}

// Whether a request may have more, as its listener is asked.
bool Scheduler::goes_on(Job& job) {
  const auto* go_on = job.listener.go_on;
  if (go_on != nullptr && !(*go_on)()) cancel(job.id);
  return !job.cancelled;
}

// Chooses tokens as if they came one by one, while they are drafted ones, and then one more.
void Scheduler::verify(const Turn& turn, std::vector<Completion>& finished) {
  Stream& stream = *turn.stream;
  SpeculationFacts& facts = stream.job.reply.speculation;
  ++facts.steps;
  facts.drafted += static_cast<int>(turn.n_drafted);
  const auto logits = [&](uint32_t token) {
    const DraftRows::Row row = turn.n_drafted > 0 ? stream.rows.row(token) : DraftRows::Row{};
    return steps_.logits(turn.piece + row.piece, row.index);
  };
  uint32_t last = Draft::kText;
  while (choose(stream, logits(last), finished) && turn.n_drafted > 0) {
    last = stream.draft.child(last, stream.tokens.back());
    if (last == Draft::kText) break;
    stream.rows.accept(last);
    ++stream.computed;
    ++facts.accepted;
    if (!stream.draft.on_chain[last]) ++facts.accepted_off_chain;
    if (!goes_on(stream.job)) break;
  }
  settle_draft(stream);
}

// The next token; false where the answer is complete.
bool Scheduler::choose(Stream& stream, std::span<const float> logits,
                       std::vector<Completion>& finished) {
  const TokenId token =
      stream.job.request.max_tokens > 0 ? stream.generation->choose(logits) : kNoToken;
  if (token == kNoToken) {
    finish(stream, finished);
    return false;
  }
  stream.tokens.push_back(token);
  return true;
}

// Of the KV of drafted tokens, that of the chosen ones stays.
void Scheduler::settle_draft(Stream& stream) {
  if (!stream.running) return;
  stream.rows.settle(tree_, pool_);
  if (tree_.length(stream.seq) > stream.computed) tree_.truncate(stream.seq, stream.computed);
}

// The request's other answers begin where the prompt ends. Those for which a step has no rows wait.
void Scheduler::fork_samples(Stream& first) {
  Job& job = first.job;
  for (int i = 1; i < job.request.samples(); ++i) {
    Stream& stream = *job.streams.emplace_back(std::make_unique<Stream>(job, i));
    stream.tokens = first.tokens;
    prepare(stream);
    if (running_.size() == static_cast<size_t>(steps_.max_rows())) {
      wait(stream);
      continue;
    }
    stream.seq = tree_.fork(first.seq);
    stream.matched = stream.computed = first.computed;
    stream.running = true;
    running_.push_back(&stream);
    tree_.reserve(stream.seq, most_positions(job));
  }
}

}  // namespace banyan
