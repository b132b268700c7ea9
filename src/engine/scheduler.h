// SPDX-License-Identifier: Apache-2.0
#pragma once
// Continuous batching: which sequences get how many rows of the next step. Requests join and leave
// between steps; a step has one token of each sequence that decodes and pieces of prompts beside
// them, as many as keep the step short for those that decode.
//
// A sequence is all tokens of an answer so far, prompt and chosen ones, and how many of them have
// their KV. Decoding is nothing but having one token left to compute. A sequence that is preempted
// therefore goes back into the line as it is and matches what is left of its KV when it comes in.

#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/function_ref.h"
#include "engine/draft_model.h"
#include "engine/options.h"
#include "engine/request.h"
#include "engine/step.h"
#include "engine/step_time.h"
#include "kv/pool.h"
#include "kv/tree.h"
#include "sample/draft/choose_drafts.h"
#include "text/tokenizer.h"

namespace banyan {

// Not thread safe.
class Scheduler {
 public:
  // All references must outlive it. `kv_exact`: whether K and V are stored as they were computed.
  // `retention`, `speculation`: as EngineOptions says. `draft_model` may be null.
  Scheduler(PanelPool& pool, KvTree& tree, StepRunner& steps, bool kv_exact, bool retention,
            Speculation speculation, DraftModel* draft_model);
  ~Scheduler();

  // Puts a request into the line. Requires that it is valid and that the pool could hold its
  // prompt, and max_tokens >= 0.
  RequestId submit(const Tokenizer& tokenizer, Request request, const Listener& listener);

  // Runs one forward pass, if there is anything to run; appends the requests that are complete with
  // it. False when none is left. What a listener throws ends its request without a completion and
  // leaves this function when the step is done; what the step itself throws leaves the requests as
  // they were before it.
  bool step(std::vector<Completion>& finished);

  // The request ends with the next step, kCancelled. Unknown and complete ones: nothing.
  void cancel(RequestId id);

  // The request ends now, without a completion, and what it computed is forgotten.
  void drop(RequestId id);

  // What a request with this prompt and salt would find stored. Changes nothing.
  CacheFacts explain(const Tokenizer& tokenizer, std::span<const TokenId> prompt,
                     uint64_t salt) const;

  size_t n_waiting() const { return waiting_.size(); }  // answers, as is n_running()
  size_t n_running() const { return running_.size(); }

 private:
  struct Job;     // a request
  struct Stream;  // one of its answers
  // A stream's part of a step.
  struct Turn {
    Stream* stream;
    size_t n;              // rows
    size_t n_drafted = 0;  // of them: tokens that are not chosen yet
    size_t piece = 0;      // the first of the step that are the stream's
  };

  // Ends of streams and jobs.
  void guarded(Job& job, FunctionRef<void()> work);
  void finish(Stream& stream, std::vector<Completion>& finished);
  void end_early(Stream& stream, const Error& error, std::vector<Completion>& finished);
  void complete(Job& job, std::vector<Completion>& finished);
  void abandon(Job& job);
  void end_cancelled(std::vector<Completion>& finished);
  void erase_done();

  // The line.
  static std::pair<RequestId, int> place_in_line(const Stream* stream);
  Stream* pick();
  bool is_held_back(const Stream& stream) const;
  Stream* admit();
  int32_t most_positions(const Job& job) const;
  void prepare(Stream& stream);
  void open(Stream& stream);
  void close(Stream& stream);
  void wait(Stream& stream);
  void preempt(Stream& stream);
  int64_t committed_panels() const;

  // The step.
  void gather();
  void draft();
  void choose_drafts(FunctionRef<double(std::span<const size_t>)> milliseconds);
  static void lay_out(Turn& turn);
  void cut_branches();
  void run(std::vector<Turn>& turns, std::vector<Completion>& finished);
  Result<void> try_run(std::span<Turn> turns);
  Result<void> run_pieces(std::span<Turn> turns);
  bool is_scattered(const Stream& stream);
  void make_room(const Error& error, std::vector<Completion>& finished);
  void advance(const Turn& turn, std::vector<Completion>& finished);
  bool goes_on(Job& job);
  void verify(const Turn& turn, std::vector<Completion>& finished);
  bool choose(Stream& stream, std::span<const float> logits, std::vector<Completion>& finished);
  void settle_draft(Stream& stream);
  void fork_samples(Stream& first);

  PanelPool& pool_;
  KvTree& tree_;
  StepRunner& steps_;
  bool kv_exact_;
  bool retention_;
  Speculation speculation_;
  DraftModel* draft_model_;
  StepTimeModel time_;
  // Of steps that only decode, whose few rows cost more than a prompt's: what drafts may cost.
  StepTimeModel decode_time_{{4, 1, 1, 0.3}};
  RequestId next_id_ = 1;
  std::map<RequestId, Job> jobs_;
  std::vector<Stream*> waiting_;  // by request and answer
  std::vector<Stream*> running_;  // as they came in
  bool any_cancelled_ = false;
  bool any_done_ = false;
  bool no_room_ = false;       // for the first in line, and nothing has changed since
  uint64_t n_steps_ = 0;       // begun
  std::exception_ptr thrown_;  // by a listener in this step

  // Scratch of a step, kept for its capacity.
  std::vector<Turn> turns_;
  std::vector<Piece> pieces_;
  std::vector<uint32_t> indices_;  // 0, 1, .. max_rows() - 1
  std::vector<DraftModel::Asked> asked_;
  std::vector<std::span<const double>> reach_;  // by turn: of its draft
  std::vector<size_t> counts_;                  // by turn: drafted tokens
  DraftChooser chooser_;
  std::vector<uint32_t> chain_;  // of a draft
  std::vector<NodeId> path_;
  std::vector<const Stream*> readers_;  // running, with much of a prompt to compute
};

}  // namespace banyan
